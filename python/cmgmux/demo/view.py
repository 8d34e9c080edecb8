"""Showing a demo's readings: live tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol

from cmgmux.demo.readings import mebibytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from rich.console import Group
    from rich.table import Table

    from cmgmux.demo.readings import Channel, Instance, Point, Reading, Summary

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
    """Tables that are drawn anew."""

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
        self._live.update(tables(reading))


def write(summary: Summary, stream: TextIO) -> None:
    """Write how a demo ended: what each part carried, then the verdict."""
    from rich.console import Console

    console = Console(file=stream, soft_wrap=True)
    console.print(_tables(summary.instances, summary.channels_held, summary.points))
    for text in summary.lines():
        print(text, file=stream, flush=True)


def line(reading: Reading) -> str:
    """Give a reading as one line."""
    return (
        f"{reading.elapsed_s:5.1f} s  {reading.phase}: {reading.connecting} connecting, "
        f"{reading.holding} holding, {reading.messages} notified, {reading.unhappy} failed; "
        f"{len(reading.channels)} channels, {reading.streams} streams, "
        f"{reading.requests} requests answered"
    )


def tables(reading: Reading) -> Group:
    """Give a reading as tables: clients, instances, channels, connection points."""
    from rich.console import Group
    from rich.text import Text

    kinds = ", ".join(f"{count} {kind}" for kind, count in reading.kinds.items())
    return Group(
        Text(line(reading)),
        Text(f"held: {kinds or 'none yet'}"),
        _tables(reading.instances, reading.channels, reading.points),
    )


def _tables(
    instances: Sequence[Instance], channels: Sequence[Channel], points: Sequence[Point]
) -> Group:
    from rich.console import Group

    return Group(
        _table(
            "gateway instances",
            ("instance", "clients", "streams", "requests", "memory"),
            [
                (each.name, each.clients, each.streams, each.requests, mebibytes(each.memory))
                for each in instances
            ],
        ),
        _table(
            "channels",
            ("instance", "shard", "point", "streams", "in all", "rtt", "sent KiB", "got KiB"),
            [
                (
                    each.instance,
                    each.shard,
                    each.peer,
                    each.streams,
                    each.streams_total,
                    "-" if each.rtt_us is None else f"{each.rtt_us / 1e3:.2f} ms",
                    f"{each.bytes_sent / 1024:.1f}",
                    f"{each.bytes_received / 1024:.1f}",
                )
                for each in channels
            ],
        ),
        _table(
            "connection points",
            ("name", "channels", "exchanges", "in all", "to roles", "memory"),
            [
                (
                    each.name,
                    each.channels,
                    each.exchanges,
                    each.exchanges_total,
                    each.upstream,
                    mebibytes(each.memory),
                )
                for each in points
            ],
        ),
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*map(str, row))
    return table
