"""Tables and ratios of the path and its rivals, where a figure is nothing."""

from __future__ import annotations

import re
from math import inf

from bench.bulk import DIRECTIONS, Bulk
from bench.handshakes import Handshakes
from bench.memory import STATES, Memory
from bench.report import memory_lines, ratio, speed_lines, throughput_lines
from bench.throughput import Throughput


def cells(lines: list[str], name: str) -> list[str]:
    """The medians in the row `name`."""
    row = next(line for line in lines if line.startswith(name))
    return re.findall(r"(\S+) \(", row)


def test_nothing_beside_nothing_is_as_much_and_all_else_infinitely_more() -> None:
    pairs = {(3, 2): 1.5, (0, 2): 0, (0, 0): 1, (3, 0): inf, (-3, 0): -inf}
    assert {pair: ratio(*pair) for pair in pairs} == pairs


def test_a_rival_that_served_nothing_has_a_row_of_ratios() -> None:
    results = [
        Throughput(side, 1, 1, per_s, 0.0, per_s, 1.0, {side: per_s}, 0.0, [])
        for side, per_s in (("nginx", 0.0), ("path", 3.0))
    ]
    assert cells(throughput_lines(results), "path/nginx") == ["inf", "1.00", "inf", "inf"]


def test_transfers_without_processor_time_have_a_row_of_ratios() -> None:
    moved = [
        Bulk(side, direction, 1, 1, 2.0, {side: 0.0})
        for side in ("nginx", "path")
        for direction in DIRECTIONS
    ]
    admitted = [Handshakes(side, 1, 1, 1.0, {side: 0.0}) for side in ("nginx", "path")]
    assert cells(speed_lines(moved, admitted), "path/nginx") == ["1.00"] * 6


def test_clients_that_cost_a_rival_nothing_have_a_row_of_ratios() -> None:
    results = [
        Memory(side, state, 1, (0, 1, 2), {part: (0, 0, size)})
        for side, part, size in (("nginx", "nginx", 0), ("path", "gateway", 4096))
        for state in STATES
    ]
    assert cells(memory_lines(results), "gateway/nginx") == ["inf"] * len(STATES)
