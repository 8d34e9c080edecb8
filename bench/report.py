"""The tables and the verdict: medians, spreads, and one side as a ratio of the other. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from bench.bulk import DIRECTIONS
from bench.memory import STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.bulk import Bulk
    from bench.handshakes import Handshakes
    from bench.memory import Memory, State
    from bench.throughput import Throughput

RIVAL: Final = "nginx"

OURS: Final = "path"

GOAL_REQUESTS: Final = 0.35
"""The least share of the rival's requests a second that will do."""

MAX_OTHERS: Final = 0.1
"""The greatest share of the machine that other processes may have had in a round."""

_KIB: Final = 1024


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Sum up the values of the rounds."""
        all_values = list(values)
        return cls(median(all_values), min(all_values), max(all_values))

    def text(self, form: str) -> str:
        """Write it with the format `form`, as median (lowest..highest)."""
        return f"{self.median:{form}} ({self.lowest:{form}}..{self.highest:{form}})"


def ratio(ours: float, theirs: float) -> float:
    """Divide our figure by theirs: nothing is as much as nothing, and all else infinitely more."""
    if theirs == 0:
        return 1.0 if ours == 0 else math.copysign(math.inf, ours)
    return ours / theirs


def throughput_lines(results: Sequence[Throughput]) -> list[str]:
    """Give the table of requests and their times."""
    figures: list[tuple[str, str, Callable[[Throughput], float]]] = [
        ("requests/s", ",.0f", lambda result: result.requests_per_s),
        ("p50 ms", ".2f", lambda result: result.p50_ms),
        ("p99 ms", ".2f", lambda result: result.p99_ms),
        ("CPU us/request", ".1f", _cpu_us),
    ]
    rows = [["", *(name for name, _, _ in figures)]]
    names = dict.fromkeys(result.side for result in results)
    for side in names:
        spreads = [
            Spread.of(take(result) for result in results if result.side == side).text(form)
            for _, form, take in figures
        ]
        rows.append([side, *spreads])
    for rival in names:
        if rival != OURS:
            ratios = [throughput_ratio(results, take, rival).text(".2f") for _, _, take in figures]
            rows.append([f"{OURS}/{rival}", *ratios])
    return table(rows)


def speed_lines(transfers: Sequence[Bulk], admitted: Sequence[Handshakes]) -> list[str]:
    """Give the table of transfers and handshakes."""
    columns: list[tuple[str, str, dict[tuple[str, int], float]]] = []
    for direction in DIRECTIONS:
        alike = [each for each in transfers if each.direction == direction]
        columns += [
            (
                f"{direction} MB/s",
                ",.0f",
                {(each.side, each.round): each.mb_per_s for each in alike},
            ),
            (
                "CPU s/GB",
                ".2f",
                {(each.side, each.round): sum(each.cpu_s_per_gb.values()) for each in alike},
            ),
        ]
    columns += [
        ("handshakes/s", ",.0f", {(each.side, each.round): each.per_s for each in admitted}),
        (
            "CPU us",
            ",.0f",
            {(each.side, each.round): sum(each.cpu_us.values()) for each in admitted},
        ),
    ]
    rows = [["", *(name for name, _, _ in columns)]]
    for side in (RIVAL, OURS):
        spreads = [
            Spread.of(value for (at, _), value in values.items() if at == side).text(form)
            for _, form, values in columns
        ]
        rows.append([side, *spreads])
    ratios = [
        Spread.of(
            ratio(value, values[RIVAL, number])
            for (at, number), value in values.items()
            if at == OURS
        ).text(".2f")
        for _, _, values in columns
    ]
    return table([*rows, [f"{OURS}/{RIVAL}", *ratios]])


def undisturbed(results: Iterable[Throughput]) -> list[Throughput]:
    """Leave out the rounds in which other processes had too much of the machine.

    Processes that compete get equal shares, so the way with more of them gets more of a machine
    that is busy with something else, whatever it costs.
    """
    all_results = list(results)
    disturbed = {result.round for result in all_results if result.others > MAX_OTHERS}
    return [result for result in all_results if result.round not in disturbed]


def memory_lines(results: Sequence[Memory]) -> list[str]:
    """Give the table of memory a client."""
    rows = [["KiB a client", *STATES]]
    parts = dict.fromkeys((each.side, part) for each in results for part in each.private_bytes)
    for side, part in parts:
        spreads = [
            Spread.of(
                result.bytes_per_client[part] / _KIB
                for result in results
                if result.side == side and result.state == state
            )
            for state in STATES
        ]
        rows.append([part, *(spread.text(".2f") for spread in spreads)])
    for part in [part for side, part in parts if side == OURS]:
        ratios = [memory_ratio(results, part, state).text(".2f") for state in STATES]
        rows.append([f"{part}/{RIVAL}", *ratios])
    return table(rows)


def verdict(throughput: Sequence[Throughput], memory: Sequence[Memory], *, disturbed: bool) -> str:
    """Say in one line how the path compares, in ratios alone."""
    requests = throughput_ratio(throughput, lambda result: result.requests_per_s)
    p99 = throughput_ratio(throughput, lambda result: result.p99_ms)
    held = ", ".join(
        f"{part} {memory_ratio(memory, part, 'long-poll').median:.2f}"
        for part in next(result for result in memory if result.side == OURS).private_bytes
    )
    reached = "reached" if requests.median >= GOAL_REQUESTS else "missed"
    return (
        f"{OURS}/{RIVAL}: requests/s {requests.text('.2f')}, "
        f"goal {GOAL_REQUESTS} {'not judged, too disturbed' if disturbed else reached}; "
        f"p99 {p99.text('.2f')}; memory a held long-poll: {held}"
    )


def throughput_ratio(
    results: Sequence[Throughput], take: Callable[[Throughput], float], rival: str = RIVAL
) -> Spread:
    """Compare a figure of ours with that of a rival, round by round."""
    rivals = {result.round: take(result) for result in results if result.side == rival}
    ours = [result for result in results if result.side == OURS]
    return Spread.of(ratio(take(result), rivals[result.round]) for result in ours)


def memory_ratio(results: Sequence[Memory], part: str, state: State) -> Spread:
    """Compare one process of ours with the rival, round by round."""
    alike = [result for result in results if result.state == state]
    rivals = {
        result.round: sum(result.bytes_per_client.values())
        for result in alike
        if result.side == RIVAL
    }
    ours = [result for result in alike if result.side == OURS]
    return Spread.of(ratio(result.bytes_per_client[part], rivals[result.round]) for result in ours)


def _cpu_us(result: Throughput) -> float:
    """Processor time of what is between client and role."""
    ends = ("h2load", "role")
    return sum(time_us for name, time_us in result.cpu_us.items() if name not in ends)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the cells of rows; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
