"""Rules about what is written in the source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("rust", "python", "tests", "bench")
SOURCES = sorted(
    path
    for folder in FOLDERS
    for suffix in ("rs", "py")
    for path in (ROOT / folder).glob(f"**/*.{suffix}")
    if "target" not in path.parts and path != Path(__file__)
)

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\btodo!|\bunimplemented!")
SUPPRESSION = re.compile(r"#\s*(?:noqa|type:\s*ignore)(?P<rest>.*)")
WITH_RULE_AND_REASON = re.compile(
    r"(?:: [A-Z]+\d+(?:, [A-Z]+\d+)* - |\[[a-z-]+(?:, ?[a-z-]+)*\] # )\S"
)
RULE_SETS = re.compile(r"^\s*#!?\[(?:allow|expect)\(")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_are_finished_and_suppress_no_rule_without_a_reason(path: Path) -> None:
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        where = f"{path.name}:{number}: {line.strip()}"
        assert not UNFINISHED.search(line), where
        if match := SUPPRESSION.search(line):
            assert WITH_RULE_AND_REASON.match(match["rest"]), where
        if RULE_SETS.match(line):
            assert "reason" in " ".join(lines[number - 1 : number + 4]), where


def test_modules_have_no_mod_rs() -> None:
    assert not [path for path in SOURCES if path.name == "mod.rs"]
