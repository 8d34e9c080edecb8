"""Whether rounds reach the goals of the multiplexer, and what is said of those who failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.goals import verdict
from bench.scenarios import Failure

if TYPE_CHECKING:
    from bench.scenarios import Outcome, Rounds


def row(results: dict[str, Rounds], name: str) -> str:
    """The line of the goal that begins with `name`."""
    return next(line for line in verdict(results) if line.startswith(name))


def killed(*lost: float | Failure) -> dict[str, Rounds]:
    """Rounds of killed links, by the bytes that each lost."""
    rounds: list[Outcome] = [
        each if isinstance(each, Failure) else {"median_ms": 2.0, "bytes_lost": each}
        for each in lost
    ]
    return {"killed": {"cmgmux": rounds}}


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


def test_a_round_that_failed_lost_bytes_for_all_that_is_known() -> None:
    line = row(killed(0, Failure("the streams do not end"), 0), "bytes lost")
    assert line.endswith("does not hold, 1 of 3 rounds not measured")


def test_other_goals_are_judged_by_the_median_of_the_rounds_that_were_measured() -> None:
    rounds: list[Outcome] = [{"median_ms": 1.0, "bytes_lost": 0}] * 3
    rounds += [{"median_ms": 900.0, "bytes_lost": 0}, Failure("nothing arrives")]
    line = row({"killed": {"cmgmux": rounds}}, "link killed")
    assert line.endswith("  holds, 1 of 5 rounds not measured")
    assert "<= 5.00" in line


def test_ratios_are_made_of_rounds_that_both_were_measured_in() -> None:
    results: dict[str, Rounds] = {
        "echo": {
            "cmgmux": [{"p99_ms": 1.0}, Failure("gone"), {"p99_ms": 3.0}],
            "rust-yamux": [{"p99_ms": 10.0}, {"p99_ms": 1.0}, Failure("gone")],
        }
    }
    line = row(results, "the same, of rust-yamux")
    assert "0.100 (0.100..0.100)" in line
    assert line.endswith("2 of 3 rounds not measured")


def test_a_round_in_which_the_best_rival_failed_says_nothing_about_the_best() -> None:
    results: dict[str, Rounds] = {
        "churn": {
            "cmgmux": [{"streams_per_s": 600.0}] * 3,
            "h2": [{"streams_per_s": 10.0}] * 3,
            "quinn": [{"streams_per_s": 200.0}, Failure("gone"), Failure("gone")],
        }
    }
    line = row(results, "open and close")
    assert "3.00 (3.00..3.00)" in line
    assert line.endswith("does not hold, 2 of 3 rounds not measured")


def test_a_goal_without_anybody_to_compare_with_is_not_measured() -> None:
    results: dict[str, Rounds] = {
        "churn": {"cmgmux": [{"streams_per_s": 1.0}], "h2": [Failure("no such thing")]}
    }
    assert row(results, "open and close").endswith("-  not measured")


def test_goals_of_scenarios_that_were_left_out_are_not_listed() -> None:
    assert len(verdict(killed(0))) == 3  # the head, and the two goals of killed links


def test_who_failed_is_listed_once_with_reason_and_scenarios() -> None:
    missing = [Failure("go not found"), Failure("go not found")]
    figures = [{"bytes_per_s": 1.0, "jain": 1.0}] * 2
    rounds: Rounds = {"rustls": figures, "cmgmux": figures, "go-smux": missing}
    lines = verdict({"bulk-1": rounds, "bulk-100": rounds})
    assert lines[-1] == "go-smux not measured: go not found (bulk-1, bulk-100)"
    assert sum("go-smux" in line for line in lines) == 1


@pytest.mark.parametrize("lost", [0, 5])
def test_one_round_is_enough_for_a_verdict(lost: int) -> None:
    holds = "  holds" if lost == 0 else "does not hold"
    assert row(killed(lost), "bytes lost").endswith(holds)
