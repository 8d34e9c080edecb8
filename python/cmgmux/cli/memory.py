"""Giving the memory of a burst back to the system.

The GNU C library keeps what was freed below something that lives on: a process that served 65,000
streams for a moment would look like one with a leak for the rest of its days.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from typing import TYPE_CHECKING, Final

from cmgmux._supervisor import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmgmux._service import Service

_LOOK_INTERVAL_S: Final = 5.0
_SPARE_BYTES: Final = 16 << 20
_SPARE_FACTOR: Final = 1.1
_FEWER_TASKS: Final = 4_096
"""So many tasks leave some MiB behind."""


class Trimmer:
    """Decides when memory is to be given back, which makes other threads wait for some ms."""

    def __init__(self, trim: Callable[[], object], resident: Callable[[], int | None]) -> None:
        """`trim` gives back what can be, `resident` tells the bytes in use, if that is known."""
        self._trim = trim
        self._resident = resident
        self._least = resident() or 0
        self._most_tasks = 0

    def look(self, tasks: int) -> None:
        """Trim if the process has grown by much since the last time, or many tasks have ended."""
        self._most_tasks = max(self._most_tasks, tasks)
        has_fewer = self._most_tasks - tasks >= _FEWER_TASKS
        if has_fewer or (self._resident() or 0) > self._least * _SPARE_FACTOR + _SPARE_BYTES:
            self._trim()
            self._least, self._most_tasks = self._resident() or 0, tasks


async def keep_small(service: Service) -> None:
    """Look after the process of a running service until cancelled."""
    trim = _malloc_trim()
    if trim is None:
        return
    trimmer = Trimmer(trim, lambda: resident_bytes(os.getpid()))
    while True:
        await asyncio.sleep(_LOOK_INTERVAL_S)
        trimmer.look(service.status().get("tasks", 0))


def _malloc_trim() -> Callable[[], object] | None:
    """What the GNU C library has for it; other libraries need none."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    malloc_trim.argtypes, malloc_trim.restype = [ctypes.c_size_t], ctypes.c_int
    return lambda: malloc_trim(0)
