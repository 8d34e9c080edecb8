"""Showing a demo's readings: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol

from cmgmux.demo.readings import mebibytes

if TYPE_CHECKING:
    from typing import TextIO

    from rich.table import Table

    from cmgmux.demo.readings import Reading

_LINE_INTERVAL_S: Final = 1.0


class View(Protocol):
    """Something that shows readings."""

    def show(self, reading: Reading) -> None:
        """Show `reading` instead of the one before."""

    def opened(self) -> AbstractContextManager[object]:
        """Use the terminal for as long as this is entered."""


def view_on(stream: TextIO) -> View:
    """Choose the view that suits `stream`."""
    return LiveView(stream) if stream.isatty() else LineView(stream)


class LineView:
    """One line a second, and one for each change of phase."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        self._stream = stream
        self._phase = ""
        self._written_at = 0.0

    def opened(self) -> AbstractContextManager[object]:
        """Nothing to open."""
        return nullcontext()

    def show(self, reading: Reading) -> None:
        """Write a line if it is time for one."""
        now = time.monotonic()
        if reading.phase == self._phase and now < self._written_at + _LINE_INTERVAL_S:
            return
        self._phase, self._written_at = reading.phase, now
        print(line(reading), file=self._stream, flush=True)


class LiveView:
    """A table that is drawn anew."""

    def __init__(self, stream: TextIO) -> None:
        """Draw on `stream`, a terminal."""
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(file=stream), refresh_per_second=8)

    def opened(self) -> AbstractContextManager[object]:
        """Own the terminal's last lines."""
        return self._live

    def show(self, reading: Reading) -> None:
        """Draw `reading`."""
        self._live.update(table(reading))


def line(reading: Reading) -> str:
    """Give a reading as one line."""
    return (
        f"{reading.elapsed_s:5.1f} s  {reading.phase}: {reading.connecting} connecting, "
        f"{reading.holding} holding, {reading.answers} answered, {reading.unhappy} failed; "
        f"{reading.channels} channels, {reading.streams} streams, {reading.requests} requests"
    )


def table(reading: Reading) -> Table:
    """Give a reading as a table."""
    from rich.table import Table

    table = Table(title=f"cmgmux demo: {reading.phase} ({reading.elapsed_s:.0f} s)")
    for column in ("clients", "gateway", "memory"):
        table.add_column(column, justify="right")
    counts = [f"{reading.connecting} connecting", f"{reading.holding} holding"]
    counts += [f"{reading.answers} answered", f"{reading.unhappy} failed"]
    carried = [f"{reading.channels} channels", f"{reading.streams} streams"]
    carried += [f"{reading.requests} requests", f"{reading.held} held by the role"]
    memory = [f"{name} {mebibytes(size)}" for name, size in reading.memory.items()]
    memory += [""] * (4 - len(memory))
    for row in zip(counts, carried, memory, strict=True):
        table.add_row(*row)
    return table
