"""The goals of the multiplexer, and whether the rounds reach them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.multiplexers import CEILING, CORE, OURS, RIVALS
from bench.report import Spread, table
from bench.scenarios import LINK_BYTES_PER_S, Failure, Figures, trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.scenarios import Rounds

Round = Mapping[str, Figures]
"""The figures of one round, by multiplexer: none of one that failed in it, and no entry for one
that failed in all of them."""


@dataclass(frozen=True)
class Goal:
    """A figure that the multiplexer must reach."""

    name: str
    scenario: str
    take: Callable[[Round], float]
    """Makes the figure of one round."""
    bound: float
    form: str
    at_least: bool = True

    @property
    def must_be_zero(self) -> bool:
        """Whether one bad round is a failure, however good the others are."""
        return self.bound == 0 and not self.at_least

    def judge(self, rounds: Rounds) -> tuple[str, str]:
        """Write what the rounds reached, and whether that holds."""
        values, failed = [], 0
        for figures in _by_round(rounds):
            try:
                values.append(self.take(figures))
            except (KeyError, ValueError):
                # Who it is of, or is compared with, failed.
                failed += 1
        if not values:
            return "-", "not measured"
        reached = Spread.of(values)
        # A round that failed may have lost anything.
        is_known = not (self.must_be_zero and failed)
        words = "holds" if is_known and self.holds(reached) else "does not hold"
        if failed:
            words += f", {failed} of {failed + len(values)} rounds not measured"
        return reached.text(self.form), words

    def holds(self, reached: Spread) -> bool:
        """Say whether the rounds are good enough: their median, or all of them for a zero."""
        if self.must_be_zero:
            return reached.highest <= 0
        return reached.median >= self.bound if self.at_least else reached.median <= self.bound

    def needs(self) -> str:
        """Write what is needed."""
        if self.must_be_zero:
            return "0 in every round"
        sign = ">=" if self.at_least else "<="
        return f"{sign} {self.bound:{self.form}}"


def _own(key: str, per: float = 1.0, peer: str = OURS) -> Callable[[Round], float]:
    return lambda figures: figures[peer][key] / per


def _of(peer: str, key: str) -> Callable[[Round], float]:
    return lambda figures: figures[OURS][key] / figures[peer][key]


def _of_best(key: str, best: Callable[..., float]) -> Callable[[Round], float]:
    def ratio(figures: Round) -> float:
        return figures[OURS][key] / best(figures[peer][key] for peer in RIVALS if peer in figures)

    return ratio


def _added_ms(figures: Round) -> float:
    return figures[OURS]["p99_ms"] - figures[OURS]["base_ms"]


_SHAPED: Final = {"shaped-256k": "queue of 256 KiB", "shaped-2m": "queue of 2 MiB"}

GOALS: Final = (
    Goal("bulk, 1 stream, of rustls", "bulk-1", _of(CEILING, "bytes_per_s"), 0.80, ".2f"),
    Goal("bulk, 100 streams, of rustls", "bulk-100", _of(CEILING, "bytes_per_s"), 0.90, ".2f"),
    Goal("fairness of 100 streams, Jain", "bulk-100", _own("jain"), 0.99, ".4f"),
    Goal(
        "messages on 10,000 streams, of rustls", "small", _of(CEILING, "messages_per_s"), 0.3, ".2f"
    ),
    Goal("the same, of the best rival", "small", _of_best("messages_per_s", max), 1.9, ".2f"),
    Goal(
        "allocations a message",
        "allocations",
        _own("allocations_per_message"),
        0.0,
        ".3f",
        at_least=False,
    ),
    Goal("open and close, of the best rival", "churn", _of_best("streams_per_s", max), 5.0, ".2f"),
    Goal(
        "heap of an idle stream a side, core, B",
        "idle",
        _own("bytes_per_stream", 2, CORE),
        128,
        ".0f",
        at_least=False,
    ),
    Goal(
        "the same with its handles, B",
        "idle",
        _own("bytes_per_stream", 2),
        320,
        ".0f",
        at_least=False,
    ),
    Goal(
        "p99 under bulk, of the best rival",
        "echo",
        _of_best("p99_ms", min),
        1.0,
        ".2f",
        at_least=False,
    ),
    Goal(
        "the same, of rust-yamux", "echo", _of("rust-yamux", "p99_ms"), 0.05, ".3f", at_least=False
    ),
    *(
        goal
        for scenario, queue in _SHAPED.items()
        for goal in (
            Goal(
                f"p99 added to the round trip, {queue}, ms",
                scenario,
                _added_ms,
                11.0,
                ".1f",
                at_least=False,
            ),
            Goal(
                f"use of that link, {queue}",
                scenario,
                _own("bulk_bytes_per_s", LINK_BYTES_PER_S),
                0.95,
                ".2f",
            ),
        )
    ),
    Goal("link killed at full load, ms", "killed", _own("median_ms"), 5, ".2f", at_least=False),
    Goal("bytes lost by that", "killed", _own("bytes_lost"), 0, ".0f", at_least=False),
    Goal(
        "core a frame and side, 10,000 streams, ns",
        "core-10k",
        _own("ns_per_frame_and_side", peer=CORE),
        20,
        ".0f",
        at_least=False,
    ),
    Goal(
        "core a frame and side, 100,000 streams, ns",
        "core-100k",
        _own("ns_per_frame_and_side", peer=CORE),
        60,
        ".0f",
        at_least=False,
    ),
)


def verdict(results: Mapping[str, Rounds]) -> list[str]:
    """Give the table of the goals of those scenarios that were measured, and who failed in them."""
    rows = [["goal", "must", "reached", ""]]
    for goal in GOALS:
        if goal.scenario in results:
            rows.append([goal.name, goal.needs(), *goal.judge(results[goal.scenario])])
    return [*table(rows), *_failures(results)]


def _by_round(rounds: Rounds) -> Iterator[Round]:
    measured = {
        peer: outcomes
        for peer, outcomes in rounds.items()
        if not all(isinstance(outcome, Failure) for outcome in outcomes)
    }
    for outcomes in zip(*measured.values(), strict=True):
        yield {
            peer: {} if isinstance(outcome, Failure) else outcome
            for peer, outcome in zip(measured, outcomes, strict=True)
        }


def _failures(results: Mapping[str, Rounds]) -> list[str]:
    """Say who failed, why, and in which scenarios."""
    scenarios: dict[str, list[str]] = {}
    for scenario, rounds in results.items():
        for peer, outcomes in rounds.items():
            if what := trouble(outcomes):
                scenarios.setdefault(f"{peer} {what}", []).append(scenario)
    return [f"{what} ({', '.join(names)})" for what, names in scenarios.items()]
