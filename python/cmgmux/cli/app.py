"""The list of subcommands, and what becomes of their errors."""

from __future__ import annotations

import os
import signal
import sys
from importlib.metadata import version
from typing import Final, NoReturn

from cyclopts import App, CycloptsError

from cmgmux.exceptions import CmgmuxError, ConfigError

EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1
"""Something went wrong while running."""
EXIT_CONFIG: Final = 2
"""A setting, option or file was wrong from the start."""

app = App(
    name="cmgmux",
    help="Carry the traffic of very many clients to on-premises services over a few channels.",
    version=lambda: version("cmgmux"),
    result_action="return_value",
)
app.command("cmgmux.cli.demo:demo", help="Show the whole path on this machine.")
app.command("cmgmux.cli.gateway:gateway", help="Run a gateway instance.")
app.command("cmgmux.cli.connection_point:connection_point", help="Run a connection point.")
app.command("cmgmux.cli.status:status", help="Show counters and state of a running process.")
app.command("cmgmux.cli.config:config", help="Look at configuration files.")
app.command("cmgmux.cli.pki:pki", help="Make certificates for development.")
app.command("cmgmux.cli.sample_role:sample_role", help="Run the sample role of demo and tests.")
app.command("cmgmux.cli.completion:completion", help="Print a shell's completion script.")
app.command("cmgmux.cli.load:load", help="Hold many notification streams, and measure.")


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong setting or option."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line and return the exit status."""
    try:
        result = app(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        print(f"cmgmux: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_CONFIG
    except ConfigError as error:
        print(f"cmgmux: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except (CmgmuxError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            return _reader_gone()
        print(f"cmgmux: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return result if isinstance(result, int) else EXIT_OK


def _reader_gone() -> int:
    """Have the interpreter's last flush go nowhere, and end as ``SIGPIPE`` would have us end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    return 128 + signal.SIGPIPE
