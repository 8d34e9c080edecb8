"""The programs under test: started, watched, asked for their status, and ended by their own id."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import pytest

from cmgmux.admin import fetch_status
from cmgmux.exceptions import StatusError

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")

HOST: Final = "127.0.0.1"
"""Where everything listens."""

DEADLINE_S: Final = 30.0
"""How long anything may take before a test gives up waiting for it."""

_LOOK_INTERVAL_S: Final = 0.02
_LOG_TAIL_LINES: Final = 40
_STOP_TIMEOUT_S: Final = 10.0

# Below the ports that the system gives to outgoing connections, so that none of those takes a port
# that a restarted process wants back.
_PORTS: Final = range(12_000, 32_000)
_given: Final[set[int]] = set()


class Process:
    """A program. Leaving it ends it, however it behaves."""

    running: Final[list[Process]] = []
    """All that have not been left."""

    left: Final[list[Process]] = []
    """Those that were left because something had failed."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start `command`; its output goes to files in `folder`."""
        self.name = name
        self._log = folder / f"{name}.log"
        self._output = folder / f"{name}.out"
        with self._log.open("wb") as log, self._output.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                # A pipe that ends when this process does: nothing outlives the tests.
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.running.append(self)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End it."""
        if self.is_running():
            self._popen.terminate()
            try:
                self._popen.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        self.running.remove(self)
        if kind is not None:
            self.left.append(self)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """End it without a chance to say goodbye, and wait until it is gone."""
        self._popen.kill()
        self._popen.wait()

    def wait(self) -> int:
        """Wait for its end and give its exit status."""
        try:
            return self._popen.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} did not end within {DEADLINE_S:g} s")

    def log(self) -> str:
        """What it wrote to standard error."""
        return self._log.read_text(errors="replace")

    def output(self) -> str:
        """What it wrote to standard output."""
        return self._output.read_text(errors="replace")

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log().splitlines()[-_LOG_TAIL_LINES:])

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def memory_bytes(self, field: str = "VmRSS") -> int:
        """Its resident memory: now, or with ``VmHWM`` the most that it ever had."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None, f"no {field} of {self.name}"
        return int(found[1]) * 1024

    def children(self) -> list[int]:
        """The ids of the processes that it started."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(word) for word in text.split()]


class Service(Process):
    """One of our long-running commands, with an admin socket."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, admin: Path) -> None:
        """Start ``cmgmux`` with `arguments`; log records are JSON objects."""
        command = [sys.executable, "-m", "cmgmux", *arguments]
        super().__init__(name, [*command, "--log-format=json", "--stop-at-eof"], folder)
        self._admin = admin

    def started(self) -> Self:
        """Wait until it serves its status."""
        self.wait_for("its status", lambda _: True)
        return self

    def status(self) -> dict[str, Any]:
        """Its counters and state."""
        return fetch_status(self._admin, timeout_s=DEADLINE_S)

    def wait_for(self, what: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until its status satisfies `condition`, and return that status."""
        seen: dict[str, Any] = {}

        def look() -> dict[str, Any] | None:
            nonlocal seen
            try:
                seen = self.status()
            except StatusError:
                return None
            return seen if condition(seen) else None

        return wait_until(
            f"{self.name}: {what}", look, watched=[self], details=lambda: json.dumps(seen, indent=1)
        )

    def wait_for_record(self, message: str, *words: str) -> dict[str, Any]:
        """Wait until its log has a record with this message and these words, and return it."""

        def look() -> dict[str, Any] | None:
            for line in self.log().splitlines(keepends=True):
                if message in line and all(word in line for word in words) and line[-1] == "\n":
                    record: dict[str, Any] = json.loads(line)
                    if record["msg"] == message:
                        return record
            return None

        return wait_until(f"{self.name} logs {message!r} {words}", look, watched=[self])


def wait_until(
    what: str,
    look: Callable[[], T | None],
    *,
    watched: Iterable[Process] = (),
    details: Callable[[], str] = lambda: "",
) -> T:
    """Look again and again until `look` returns something, and return that.

    The test fails if one of the `watched` processes ends, or after `DEADLINE_S` seconds.
    """
    watched = list(watched)
    deadline = time.monotonic() + DEADLINE_S
    while (seen := look()) is None:
        for process in watched:
            if not process.is_running():
                pytest.fail(f"{what}: {process.name} has ended:\n{process.tail()}")
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {DEADLINE_S:g} s\n{details()}")
        time.sleep(_LOOK_INTERVAL_S)
    return seen


def free_address() -> str:
    """Find a loopback address with a port that nobody uses and that was not given before."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311 - no secret
        if port in _given:
            continue
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
            _given.add(port)
            return f"{HOST}:{port}"


def accepts(address: str) -> bool | None:
    """Tell whether somebody accepts connections at `address`; None for no, to go on waiting."""
    try:
        socket.create_connection(split(address), timeout=DEADLINE_S).close()
    except OSError:
        return None
    return True


def split(address: str) -> tuple[str, int]:
    """Split an address into host and port."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def to_toml(settings: Mapping[str, Any]) -> str:
    """Write settings as TOML: values first, then each list of tables."""
    values, tables = "", ""
    for key, value in settings.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            tables += "".join(f"\n[[{key}]]\n{to_toml(item)}" for item in value)
        else:
            # JSON's strings, numbers, booleans and lists of them are TOML's too.
            values += f"{key} = {json.dumps(value)}\n"
    return values + tables
