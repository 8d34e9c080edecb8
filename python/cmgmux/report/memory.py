"""The private memory of processes over time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def private_bytes(pid: int) -> int | None:
    """Read the memory of process `pid` that it shares with no other; none where it is not told.

    Linux: the private pages in ``/proc/PID/smaps_rollup`` (proc(5)), which excludes the kernel's
    memory, such as socket buffers.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:  # noqa: PTH123 - no path, a question to the kernel
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        kibibytes = [fields[key].split()[0] for key in ("Private_Clean", "Private_Dirty")]
        return sum(map(int, kibibytes)) * 1024
    except (OSError, KeyError, ValueError):
        return None


class MemoryLog:
    """What processes took, second by second."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        """Watch `processes`: names and process ids."""
        self._processes = dict(processes)
        self._began_at = time.monotonic()
        self.readings: dict[str, list[tuple[float, int]]] = {name: [] for name in processes}

    def read(self) -> None:
        """Take a reading of each process that is still there."""
        elapsed_s = round(time.monotonic() - self._began_at, 3)
        for name, pid in self._processes.items():
            size = private_bytes(pid)
            if size is not None:
                self.readings[name].append((elapsed_s, size))

    def notes(self) -> list[str]:
        """Say of which processes nothing is known."""
        return [
            f"the memory of {name} (process {self._processes[name]}) could not be read"
            for name, readings in self.readings.items()
            if not readings
        ]
