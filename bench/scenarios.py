"""What the multiplexers have to do, and which figures come of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.multiplexers import CEILING, CORE, OURS, RIVALS

Figures = Mapping[str, float]
"""What one multiplexer gave in one round."""


@dataclass(frozen=True)
class Failure:
    """Why one multiplexer gave no figures in one round."""

    reason: str


Outcome = Figures | Failure
"""What came of one round of one multiplexer."""

Rounds = Mapping[str, Sequence[Outcome]]
"""The rounds of one scenario, by multiplexer: as many of each."""

_REASON_LENGTH: Final = 80


def measured(outcomes: Sequence[Outcome]) -> list[Figures]:
    """Give the figures of those rounds that have some."""
    return [outcome for outcome in outcomes if not isinstance(outcome, Failure)]


def trouble(outcomes: Sequence[Outcome]) -> str:
    """Say in one line how often a multiplexer failed, and why; nothing if it never did."""
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Failure)]
    if not reasons:
        return ""
    extent = f"failed in {len(reasons)} of {len(outcomes)} rounds"
    if len(reasons) == len(outcomes):
        extent = "not measured"
    why = " ".join("; ".join(dict.fromkeys(reasons)).split())
    if len(why) > _REASON_LENGTH:
        why = f"{why[: _REASON_LENGTH - 3]}..."
    return f"{extent}: {why}"


@dataclass(frozen=True)
class Figure:
    """One figure that a scenario gives."""

    key: str
    unit: str
    scale: float
    """What a unit is in the unit that was measured."""
    form: str
    higher_is_better: bool | None = True
    """`None` for what says only how much was measured."""
    may_be_zero: bool = False
    """Whether 0 is a figure like others; else nothing was done, and nothing can be compared."""

    def label(self) -> str:
        """Write what it is, and which way is better."""
        if self.higher_is_better is None:
            return self.unit
        return f"{self.unit}, {'higher' if self.higher_is_better else 'lower'} is better"

    def fault(self, value: object) -> str:
        """Say what is wrong with a value that is no such figure; nothing if it is one."""
        is_one = (
            isinstance(value, int | float)
            and math.isfinite(value)
            and (value > 0 or (self.may_be_zero and value == 0))
        )
        return "" if is_one else f"{self.key} is {value!r}"


@dataclass(frozen=True)
class Scenario:
    """One thing to do."""

    title: str
    job: Mapping[str, Any]
    figures: Sequence[Figure]
    peers: Sequence[str] = (OURS, *RIVALS)
    """Who can do it."""
    counts_heap: bool = False
    note: str = ""
    """What is to be said of those who cannot."""

    def outcome(self, answer: Mapping[str, Any]) -> Outcome:
        """Take an answer as figures, if all that are wanted are there."""
        faults = (figure.fault(answer.get(figure.key)) for figure in self.figures)
        fault = next(filter(None, faults), None)
        return answer if fault is None else Failure(fault)


LINK_BYTES_PER_S: Final = 12.5e6
"""What the shaped link carries in a direction."""

_KIB: Final = 1024
_ALL: Final = (CEILING, OURS, *RIVALS)
_BULK: Final = (Figure("bytes_per_s", "GB/s", 1e9, ".2f"), Figure("jain", "Jain", 1.0, ".4f"))
_MESSAGES: Final = (Figure("messages_per_s", "M messages/s", 1e6, ".3f"),)
_ALLOCATIONS: Final = (
    Figure(
        "allocations_per_message",
        "allocations",
        1.0,
        ".3f",
        higher_is_better=False,
        may_be_zero=True,
    ),
)
_STREAM_BYTES: Final = (Figure("bytes_per_stream", "bytes", 1.0, ".0f", higher_is_better=False),)
_CORE: Final = (Figure("ns_per_frame_and_side", "ns", 1.0, ".1f", higher_is_better=False),)
_ECHO: Final = (
    Figure("p99_ms", "p99 ms", 1.0, ".3f", higher_is_better=False),
    Figure("p50_ms", "p50 ms", 1.0, ".3f", higher_is_better=False),
    Figure("base_ms", "base ms", 1.0, ".3f", higher_is_better=False),
    Figure("bulk_bytes_per_s", "bulk MB/s", 1e6, ".2f"),
)


def _shaped(buffer_bytes: int) -> Scenario:
    shape = {"bits_per_s": LINK_BYTES_PER_S * 8, "delay_ms": 10, "buffer_bytes": buffer_bytes}
    return Scenario(
        f"echo under bulk, 100 Mbit/s, 20 ms, queue of {buffer_bytes // _KIB} KiB",
        {"scenario": "echo", "path": {"shaped": shape}},
        (*_ECHO, Figure("bulk_bytes_per_s", "share of the link", LINK_BYTES_PER_S, ".2f")),
    )


def _core(streams: int) -> Scenario:
    return Scenario(
        f"our core alone in memory, messages of 300 B on {streams:,} streams, a frame and side",
        {"scenario": "small", "streams": streams},
        _CORE,
        peers=(CORE,),
    )


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "bulk-1": Scenario("bulk, 1 stream", {"scenario": "bulk"}, _BULK, peers=_ALL),
    "bulk-100": Scenario(
        "bulk, 100 streams", {"scenario": "bulk", "streams": 100}, _BULK, peers=_ALL
    ),
    "small": Scenario(
        "messages of 300 B on 10,000 streams",
        {"scenario": "small", "streams": 10_000},
        _MESSAGES,
        peers=_ALL,
    ),
    "small-uncoalesced": Scenario(
        "messages of 300 B, each in a record of its own",
        {"scenario": "small-uncoalesced"},
        _MESSAGES,
        peers=(CEILING,),
    ),
    "allocations": Scenario(
        "allocations a message of 300 B on 10,000 streams, both ends",
        {"scenario": "small", "streams": 10_000},
        _ALLOCATIONS,
        peers=(OURS, CORE),
        counts_heap=True,
    ),
    "churn": Scenario(
        "open, 1 B each way, close; 100 at a time",
        {"scenario": "churn"},
        (Figure("streams_per_s", "k streams/s", 1e3, ".1f"),),
    ),
    "idle": Scenario(
        "heap of an idle stream, both ends",
        {"scenario": "idle", "streams": 10_000},
        _STREAM_BYTES,
        peers=(OURS, CORE, *RIVALS),
        counts_heap=True,
    ),
    "echo": Scenario("echo of 300 B under bulk, loopback", {"scenario": "echo"}, _ECHO),
    "shaped-256k": _shaped(256 * _KIB),
    "shaped-2m": _shaped(2048 * _KIB),
    "killed": Scenario(
        "link killed at full load, bulk and messages of 300 B both ways on 10,000 streams",
        {"scenario": "killed", "streams": 10_000},
        (
            Figure("median_ms", "ms", 1.0, ".2f", higher_is_better=False),
            Figure("max_ms", "longest ms", 1.0, ".2f", higher_is_better=False),
            Figure("kills", "kills", 1.0, ".0f", higher_is_better=None),
            Figure("bytes_written", "MB", 1e6, ".0f", higher_is_better=None),
            Figure(
                "bytes_lost", "bytes lost", 1.0, ".0f", higher_is_better=False, may_be_zero=True
            ),
        ),
        peers=(OURS,),
        note=f"{', '.join(RIVALS)}: their streams end with their connection",
    ),
    "core-10k": _core(10_000),
    "core-100k": _core(100_000),
}
