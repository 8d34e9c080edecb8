"""Starting processes of our own program, noticing their death, and ending them all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, Self, TypeVar

from cmgmux.admin import fetch_status
from cmgmux.exceptions import ServiceError, StatusError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

T = TypeVar("T")

_TAIL_LINES: Final = 15
_STOP_TIMEOUT_S: Final = 10.0
_POLL_INTERVAL_S: Final = 0.05


class Child:
    """One process. Its standard input is a pipe that ends when this process does, however."""

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, output: Path, admin_socket: Path
    ) -> None:
        """Start ``cmgmux`` with the arguments `command`."""
        self.name = name
        self.log = log
        self.output = output
        self.admin_socket = admin_socket
        with log.open("wb") as log_file, output.open("wb") as output_file:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "cmgmux", *command],
                stdin=subprocess.PIPE,
                stdout=output_file,
                stderr=log_file,
                # The terminal's Ctrl-C is for the supervisor, which ends the others in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def status(self) -> dict[str, Any] | None:
        """Read its counters; none if it does not serve them at this moment."""
        try:
            return fetch_status(self.admin_socket)
        except StatusError:
            return None

    def death(self) -> str | None:
        """If it has ended: how, with the end of its log."""
        code = self.process.poll()
        if code is None:
            return None
        how = f"exit status {code}" if code >= 0 else f"signal {-code}"
        return f"the {self.name} process ended with {how}:\n{tail(self.log)}"

    def request_stop(self) -> None:
        """Have it stop in its own time."""
        if self.process.poll() is None:
            self.process.terminate()

    def finish(self, timeout_s: float) -> None:
        """Wait for its end, and make it end if it takes longer than `timeout_s` seconds."""
        try:
            self.process.wait(max(timeout_s, 0.0))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


class Supervisor:
    """Processes that belong together. Leaving it ends those left, the last started first."""

    def __init__(self) -> None:
        """Supervise nothing yet."""
        self.children: dict[str, Child] = {}

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes."""
        children = list(reversed(self.children.values()))
        for child in children:
            child.request_stop()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for child in children:
            child.finish(deadline - time.monotonic())

    def start(
        self, name: str, command: Sequence[str], *, log: Path, output: Path, admin_socket: Path
    ) -> Child:
        """Start a process called `name`."""
        child = Child(name, command, log=log, output=output, admin_socket=admin_socket)
        self.children[name] = child
        return child

    def check(self, *, may_end: Sequence[str] = ()) -> None:
        """Raise if a process has died that should not.

        Raises:
            ServiceError: One has; the end of its log says why.
        """
        for child in self.children.values():
            death = child.death()
            if death is not None and (child.name not in may_end or child.process.returncode < 0):
                raise ServiceError(death)

    def wait_for(
        self,
        what: str,
        look: Callable[[], T | None],
        *,
        timeout_s: float,
        may_end: Sequence[str] = (),
        meanwhile: Callable[[], None] = lambda: None,
    ) -> T:
        """Look again and again until `look` returns something, and return that.

        Raises:
            ServiceError: A process died, or `timeout_s` seconds have passed.
        """
        deadline = time.monotonic() + timeout_s
        while (seen := look()) is None:
            self.check(may_end=may_end)
            meanwhile()
            if time.monotonic() > deadline:
                logs = "\n".join(
                    f"--- {child.name}\n{tail(child.log)}" for child in self.children.values()
                )
                raise ServiceError(f"{what}: not within {timeout_s:g} s\n{logs}")
            time.sleep(_POLL_INTERVAL_S)
        return seen


def tail(path: Path, lines: int = _TAIL_LINES) -> str:
    """Give the last `lines` lines of a text file."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 200 * lines))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:]) or "(it wrote nothing)"


def resident_bytes(pid: int) -> int | None:
    """Resident memory of process `pid`; none where ``/proc`` does not say."""
    try:
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 - no path, a question to the kernel
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["VmRSS"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
