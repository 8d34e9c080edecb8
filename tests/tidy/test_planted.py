"""Faults can be planted: what they replace stands where they say, once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = tomllib.loads((ROOT / "rust/sim/planted.toml").read_text())["fault"]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault["name"])
def test_what_a_fault_replaces_stands_in_the_core_once(fault: dict[str, str]) -> None:
    source = (ROOT / "rust/mux/src" / fault["file"]).read_text()
    assert source.count(fault["find"]) == 1
