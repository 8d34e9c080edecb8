"""Bars as one page of HTML that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report import Spread

_LEFT: Final = 110
_LENGTH: Final = 380
_ROW: Final = 26
_TEXT: Final = 230

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 760px; margin: 2em auto; padding: 0 1em; }
h2 { font-size: 1.05em; margin-top: 2em; } svg { width: 100%; height: auto; }
pre { overflow-x: auto; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
.bar { fill: #8a8f9c; } .first { fill: #2f6fde; } .spread { stroke: currentColor; }
"""


@dataclass(frozen=True)
class Bar:
    """A named bar: its length is the median, a line over it the spread."""

    name: str
    spread: Spread | None
    """`None` leaves the place empty, but for the text."""
    text: str


@dataclass(frozen=True)
class Chart:
    """Bars with a common axis that begins at 0."""

    title: str
    bars: Sequence[Bar]


def page(title: str, facts: Sequence[str], charts: Sequence[Chart], verdict: Sequence[str]) -> str:
    """Write the page: facts, charts, and what follows from them."""
    body = f"<h1>{escape(title)}</h1><pre>{escape(chr(10).join(facts))}</pre>"
    body += "".join(f"<h2>{escape(chart.title)}</h2>{_svg(chart)}" for chart in charts)
    body += f"<h2>Goals</h2><pre>{escape(chr(10).join(verdict))}</pre>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def _svg(chart: Chart) -> str:
    longest = max((bar.spread.highest for bar in chart.bars if bar.spread), default=0.0) or 1.0
    rows = "".join(_row(bar, number * _ROW, longest) for number, bar in enumerate(chart.bars))
    width, height = _LEFT + _LENGTH + _TEXT, len(chart.bars) * _ROW
    return f'<svg viewBox="0 0 {width} {height}" role="img">{rows}</svg>'


def _row(bar: Bar, y: int, longest: float) -> str:
    """Draw the bar whose row begins at `y`; `longest` fills the length that there is."""
    middle, end, drawing = y + _ROW / 2, 0.0, ""
    if bar.spread is not None:
        low, median, end = (
            _LENGTH * value / longest
            for value in (bar.spread.lowest, bar.spread.median, bar.spread.highest)
        )
        kind = "first" if bar.name == "cmgmux" else "bar"
        drawing = (
            f'<rect class="{kind}" x="{_LEFT}" y="{y + 4}"'
            f' width="{median:.1f}" height="{_ROW - 8}"/>'
            f'<line class="spread" x1="{_LEFT + low:.1f}" x2="{_LEFT + end:.1f}"'
            f' y1="{middle:.0f}" y2="{middle:.0f}"/>'
        )
    return (
        f'<text x="{_LEFT - 8}" y="{middle + 4:.0f}" text-anchor="end">{escape(bar.name)}</text>'
        f"{drawing}"
        f'<text x="{_LEFT + end + 8:.1f}" y="{middle + 4:.0f}">{escape(bar.text)}</text>'
    )
