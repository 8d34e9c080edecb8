"""``python -m cmgmux``: the same as the ``cmgmux`` command."""

from cmgmux.cli.app import main

if __name__ == "__main__":
    main()
