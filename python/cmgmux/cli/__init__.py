"""The ``cmgmux`` command: one file a subcommand; `app` has the list and `main`."""
