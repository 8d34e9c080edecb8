"""Line plots as inline SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH: Final = 720
_HEIGHT: Final = 300
_LEFT: Final = 72
_RIGHT: Final = 28
_TOP: Final = 34
_BOTTOM: Final = 64
_MAX_TICKS: Final = 6
_COLOURS: Final = 8


@dataclass(frozen=True)
class Series:
    """A named line through points of x and y."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`, with ticks and their labels."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def part(self, value: float) -> float:
        """Say where `value` lies, from 0 at the low to 1 at the high end."""
        return (value - self.low) / (self.high - self.low)


def linear(title: str, values: Sequence[float]) -> Axis:
    """Make an axis from 0 that has room for `values`, with round ticks."""
    highest = max([value for value in values if math.isfinite(value)], default=0.0)
    step = round_step(highest if highest > 0 else 1.0)
    count = max(1, math.ceil(highest / step - 1e-9))
    ticks = [(number * step, label(number * step)) for number in range(count + 1)]
    return Axis(title, 0.0, count * step, ticks)


def percentiles(title: str) -> Axis:
    """Make an axis that gives each further nine the same room, up to 99.99 %."""
    shares = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)
    ticks = [(nines(share), f"{share:g}") for share in shares]
    return Axis(title, 0.0, nines(shares[-1]), ticks)


def nines(percent: float) -> float:
    """Say how many nines a percentage has: 1 for 90, 2 for 99, and in between."""
    return -math.log10(1.0 - percent / 100.0)


def round_step(highest: float) -> float:
    """Choose a step of 1, 2 or 5 times a power of ten, so that few reach `highest`."""
    rough = highest / _MAX_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def label(value: float) -> str:
    """Write a tick's value, thousands as k and millions as M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.6g} {suffix}"
    return f"{value:.6g}"


def plot(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """Draw `series` as one SVG element.

    Colours are those of the classes ``s0`` to ``s7``, for the page to define.
    """
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{escape(title)}</title>",
        f'<text class="title" x="{_LEFT}" y="18">{escape(title)}</text>',
    ]
    for value, text in y.ticks:
        at = _TOP + high * (1 - y.part(value))
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}h{wide}"/>')
        parts.append(f'<text class="y" x="{_LEFT - 6}" y="{at + 4:.1f}">{escape(text)}</text>')
    for value, text in x.ticks:
        at = _LEFT + wide * x.part(value)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}v{high}"/>')
        parts.append(f'<text class="x" x="{at:.1f}" y="{_TOP + high + 16}">{escape(text)}</text>')
    middle = _LEFT + wide / 2
    parts.append(f'<text class="x" x="{middle}" y="{_TOP + high + 32}">{escape(x.title)}</text>')
    upright = f"rotate(-90 14 {_TOP + high / 2})"
    parts.append(
        f'<text class="x" x="14" y="{_TOP + high / 2}" transform="{upright}">'
        f"{escape(y.title)}</text>"
    )
    room = wide / max(1, len(series))
    for number, each in enumerate(series):
        colour = f"s{number % _COLOURS}"
        spots = [
            f"{_LEFT + wide * x.part(at):.1f} {_TOP + high * (1 - y.part(value)):.1f}"
            for at, value in each.points
            if math.isfinite(value)
        ]
        if len(spots) == 1:
            # A line needs two ends to be seen.
            spots *= 2
        if spots:
            parts.append(f'<path class="line {colour}" d="M{"L".join(spots)}"/>')
        left, line = _LEFT + room * number, _HEIGHT - 12
        parts.append(f'<path class="line {colour}" d="M{left:.1f} {line - 4}h18"/>')
        parts.append(f'<text x="{left + 24:.1f}" y="{line}">{escape(each.name)}</text>')
    return "".join([*parts, "</svg>"])
