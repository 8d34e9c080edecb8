"""``cmgmux completion``."""

from __future__ import annotations

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the script that completes cmgmux's commands and options.

    For bash: cmgmux completion bash > ~/.local/share/bash-completion/completions/cmgmux

    Args:
        shell: Whose script.
    """
    from cmgmux.cli.app import app

    print(app.generate_completion(shell=shell))
