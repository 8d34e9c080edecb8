"""Durations counted by value, as the native swarm gives them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


@dataclass
class Histogram:
    """Microseconds and how often they were seen.

    The native recorder rounds equal durations to equal values in every process, so histograms are
    added by adding counts.
    """

    counts: Counter[int] = field(default_factory=Counter)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Histogram:
        """Read ``{"unit": "us", "counts": [[value, count], …]}``."""
        return cls(Counter({microseconds: count for microseconds, count in value["counts"]}))

    def add(self, other: Histogram) -> None:
        """Count what `other` has counted, too."""
        self.counts.update(other.counts)

    @property
    def total(self) -> int:
        """How many durations there are."""
        return self.counts.total()

    def percentile_ms(self, percent: float) -> float | None:
        """Give the smallest duration, in ms, that at least `percent` of 100 are not above."""
        wanted = percent / 100.0 * self.total
        seen = 0
        for microseconds, count in sorted(self.counts.items()):
            seen += count
            # Sums of counts are whole numbers, so that a little tolerance is harmless.
            if seen >= wanted - 1e-6:
                return microseconds / 1e3
        return None

    @property
    def max_ms(self) -> float | None:
        """The longest duration, in ms."""
        return max(self.counts) / 1e3 if self.counts else None

    def to_json(self) -> dict[str, Any]:
        """Give the counts and what is usually asked of them."""
        return {
            "unit": "us",
            "counts": [list(pair) for pair in sorted(self.counts.items())],
            "count": self.total,
            "percentiles_ms": {
                **{f"p{percent:g}": self.percentile_ms(percent) for percent in PERCENTILES},
                "max": self.max_ms,
            },
        }
