"""Whether rounds reach the goals of the multiplexer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.goals import verdict

if TYPE_CHECKING:
    from bench.scenarios import Rounds


def row(results: dict[str, Rounds], name: str) -> str:
    """The line of the goal that begins with `name`."""
    return next(line for line in verdict(results) if line.startswith(name))


def killed(*lost: float) -> dict[str, Rounds]:
    """Rounds of killed links, by the bytes that each lost."""
    return {"killed": {"cmgmux": [{"median_ms": 2.0, "bytes_lost": each} for each in lost]}}


def test_bytes_that_two_of_five_rounds_lose_are_too_many() -> None:
    line = row(killed(0, 0, 7, 0, 12), "bytes lost")
    assert line.endswith("does not hold")
    assert "0 (0..12)" in line


def test_no_bytes_lost_in_any_round_is_what_holds() -> None:
    line = row(killed(0, 0, 0), "bytes lost")
    assert line.endswith("  holds")
    assert "0 in every round" in line


def test_a_single_round_that_allocates_is_one_too_many() -> None:
    rounds = [{"allocations_per_message": value} for value in (0.0, 0.0, 0.001)]
    line = row({"allocations": {"cmgmux": rounds, "core": rounds}}, "allocations")
    assert line.endswith("does not hold")
    assert "0 in every round" in line


def test_other_goals_are_judged_by_the_median() -> None:
    rounds = [{"median_ms": median_ms, "bytes_lost": 0} for median_ms in (1.0, 2.0, 900.0)]
    line = row({"killed": {"cmgmux": rounds}}, "link killed")
    assert line.endswith("  holds")
    assert "<= 5.00" in line


def test_goals_of_scenarios_that_were_left_out_are_not_listed() -> None:
    assert len(verdict(killed(0))) == 3  # the head, and the two goals of killed links


@pytest.mark.parametrize("lost", [0, 5])
def test_one_round_is_enough_for_a_verdict(lost: int) -> None:
    holds = "  holds" if lost == 0 else "does not hold"
    assert row(killed(lost), "bytes lost").endswith(holds)
