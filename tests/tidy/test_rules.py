"""Each rule of docs/protocol.md has one id and a test, and the codes stand there as in the code."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs/protocol.md").read_text()

RULE = re.compile(r"\bR-[A-Z]+-\d+\b")
DEFINITION = re.compile(r"^- \*\*(R-[A-Z]+-\d+)\*\* ", re.MULTILINE)
DEFINED = DEFINITION.findall(PROTOCOL)

TESTS = [
    path
    for pattern in ("rust/*/tests/**/*.rs", "rust/*/src/**/tests/**/*.rs", "tests/**/*.py")
    for path in sorted(ROOT.glob(pattern))
]
CITED = Counter(rule for path in TESTS for rule in RULE.findall(path.read_text()))

CODES = {
    "Of RESET and STOP": "StreamCode",
    "Of CLOSE and GOAWAY": "CloseCode",
    "Of RESUMED": "ResumeCode",
}
"""The tables of codes and their names in Rust."""


def test_rules_have_one_definition_each() -> None:
    assert [rule for rule, count in Counter(DEFINED).items() if count > 1] == []
    assert len(DEFINED) > 70, "the definitions are found"


def test_every_rule_is_cited_by_a_test() -> None:
    assert [rule for rule in DEFINED if rule not in CITED] == []


def test_no_test_cites_a_rule_that_is_not_there() -> None:
    assert sorted(set(CITED) - set(DEFINED)) == []


def test_the_document_itself_names_no_rule_that_is_not_there() -> None:
    assert sorted(set(RULE.findall(PROTOCOL)) - set(DEFINED)) == []


@pytest.mark.parametrize(("heading", "name"), CODES.items())
def test_the_codes_are_those_of_the_code(heading: str, name: str) -> None:
    # R-CODE-1
    section = PROTOCOL.split(f"\n### {heading}\n")[1].split("\n### ")[0]
    documented = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", section, re.MULTILINE)
    source = (ROOT / "rust/mux/src/error.rs").read_text()
    block = source.split(f"\n    {name} {{\n")[1].split("\n    }\n")[0]
    written = [(number, code) for code, number in re.findall(r"([A-Z_]+) = (\d+),", block)]
    assert documented == written
