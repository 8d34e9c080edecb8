"""What is held against counts of instructions."""

from __future__ import annotations

import re
from pathlib import Path

from bench.instructions import ALONE, against_alone, against_baseline

ROOT = Path(__file__).parents[2]


def test_a_path_may_take_two_per_cent_more_than_before_and_no_more() -> None:
    compared = against_baseline({"bulk": 101.9, "codec": 102.1}, {"bulk": 100.0, "codec": 100.0})
    assert [each.is_too_much for each in compared] == [False, True]


def test_a_gain_is_told_and_fails_nothing() -> None:
    (compared,) = against_baseline({"bulk": 90.0}, {"bulk": 100.0})
    assert not compared.is_too_much
    assert "update the baseline" in compared.line


def test_a_path_that_the_baseline_does_not_have_is_told_and_fails_nothing() -> None:
    (compared,) = against_baseline({"reset": 90.0}, {})
    assert not compared.is_too_much
    assert "not in the baseline" in compared.line


def test_opening_closing_and_resetting_are_held_against_the_same_without_silent_streams() -> None:
    counts = {"small": 100.0, "crowd": 104.9, "churn": 100.0, "crowd-churn": 105.1}
    counts |= {"reset": 1.0, "crowd-reset": 20_000.0}
    too_much = {each.name: each.is_too_much for each in against_alone(counts)}
    assert too_much == {"crowd": False, "crowd-churn": True, "crowd-reset": True}


def test_the_program_has_every_path_that_is_compared() -> None:
    source = (ROOT / "rust/mux/benches/paths.rs").read_text()
    block = source.split("const PATHS")[1].split("];")[0]
    paths = set(re.findall(r'"([a-z-]+)"', block))
    assert paths >= set(ALONE) | set(ALONE.values())
