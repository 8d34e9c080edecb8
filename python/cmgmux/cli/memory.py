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

_LOOK_INTERVAL_S: Final = 5.0
MAX_LOOKS_APART: Final = 128
"""Looks from one trim to the next in a process that has nothing to give back: 10 minutes."""
_SPARE_BYTES: Final = 16 << 20
_SPARE_FACTOR: Final = 1.1


class Trimmer:
    """Decides when memory is to be given back, which makes other threads wait for some ms.

    A process that is much larger than it began is trimmed, and again at the next look if that gave
    back much or if it has grown much since; otherwise after twice as many looks as before.
    """

    def __init__(self, trim: Callable[[], object], resident: Callable[[], int | None]) -> None:
        """`trim` gives back what can be, `resident` tells the bytes in memory, if that is known."""
        self._trim = trim
        self._resident = resident
        self._at_first = self._after_trim = resident() or 0
        self._looks_left = 0
        self._looks_apart = 1

    def look(self) -> None:
        """Trim if it is time to."""
        self._looks_left -= 1
        before = self._resident() or 0
        if not _is_much_more(before, self._at_first):
            return
        if self._looks_left > 0 and not _is_much_more(before, self._after_trim):
            return
        self._trim()
        self._after_trim = self._resident() or 0
        gave_much = _is_much_more(before, self._after_trim)
        self._looks_apart = 1 if gave_much else min(2 * self._looks_apart, MAX_LOOKS_APART)
        self._looks_left = self._looks_apart


async def give_back() -> None:
    """Look after this process until cancelled."""
    trim = _malloc_trim()
    if trim is None:
        return
    trimmer = Trimmer(trim, lambda: resident_bytes(os.getpid()))
    while True:
        await asyncio.sleep(_LOOK_INTERVAL_S)
        trimmer.look()


def _is_much_more(size: int, than: int) -> bool:
    return size > than * _SPARE_FACTOR + _SPARE_BYTES


def _malloc_trim() -> Callable[[], object] | None:
    """The call of the GNU C library; others have none."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    malloc_trim.argtypes, malloc_trim.restype = [ctypes.c_size_t], ctypes.c_int
    return lambda: malloc_trim(0)
