"""The processes of a benchmark: started, watched, measured, and ended by their id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")

_LOG_TAIL_LINES: Final = 10
_LOOK_INTERVAL_S: Final = 0.05
_STOP_TIMEOUT_S: Final = 10.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A measurement that could not be made. Its text says why."""


class Process:
    """A program and the processes that it started itself. Leaving it ends them."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path) -> None:
        """Start `command`; what it prints goes to `log`."""
        self.name = name
        self.command = list(command)
        self._log = log
        with log.open("wb") as output:
            # Its input is a pipe that ends when this process does, however that comes about.
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.stop()

    def stop(self) -> None:
        """Have it end, and make it end if it takes longer than 10 seconds."""
        if self._popen.poll() is None:
            children = self.pids()[1:]
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                for pid in children:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._popen.kill()
                self._popen.wait()
        if self._popen.stdin is not None:
            self._popen.stdin.close()

    def wait(self, timeout_s: float) -> str:
        """Wait until it ends by itself and give what it printed.

        Raises:
            BenchError: It failed, or did not end within `timeout_s` seconds.
        """
        try:
            status = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name} did not end within {timeout_s:g} s") from None
        if status != 0:
            raise BenchError(self._death(status))
        return self._log.read_text(errors="replace")

    def check(self) -> None:
        """Raise if it has ended.

        Raises:
            BenchError: It has; the end of its log says why.
        """
        if (status := self._popen.poll()) is not None:
            raise BenchError(self._death(status))

    def pids(self) -> list[int]:
        """The process and its children, such as the workers of an nginx."""
        pid = self._popen.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [pid, *map(int, children.split())]

    def cpu_s(self) -> float:
        """Processor time used so far, in the kernel and outside, in steps of 10 ms."""
        return sum(_cpu_ticks(pid) for pid in self.pids()) / _TICKS_PER_S

    def private_bytes(self) -> int:
        """Resident memory that is shared with no other process."""
        return sum(_private_bytes(pid) for pid in self.pids())

    def _death(self, status: int) -> str:
        how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join([f"{self.name} ended with {how}:", *lines])


def wait_until(
    what: str, look: Callable[[], T | None], processes: Iterable[Process], *, timeout_s: float
) -> T:
    """Look again and again until `look` returns something, and return that.

    Raises:
        BenchError: One of `processes` ended, or `timeout_s` seconds have passed.
    """
    watched = list(processes)
    deadline = time.monotonic() + timeout_s
    while (seen := look()) is None:
        for process in watched:
            process.check()
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {timeout_s:g} s")
        time.sleep(_LOOK_INTERVAL_S)
    return seen


def free_addresses(count: int) -> list[str]:
    """Find that many loopback addresses with ports that nobody uses at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def accepts(address: str) -> bool | None:
    """Tell whether somebody accepts connections at `address`; None for no, to go on waiting."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except OSError:
        return None
    return True


def machine_cpu_s() -> tuple[float, float]:
    """Processor time of the whole machine since it started: busy, and in all."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    user, nice, system, idle, waiting, interrupts, soft_interrupts, stolen = map(int, fields)
    busy = user + nice + system + interrupts + soft_interrupts + stolen
    return busy / _TICKS_PER_S, (busy + idle + waiting) / _TICKS_PER_S


def _cpu_ticks(pid: int) -> int:
    # The second field is the program's name in brackets, which may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _private_bytes(pid: int) -> int:
    kibibytes = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Private_Clean", "Private_Dirty"):
            kibibytes += int(rest.split()[0])
    return kibibytes * 1024
