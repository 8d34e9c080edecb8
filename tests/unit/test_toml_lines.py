"""Where the keys of a TOML document are written."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmgmux._toml_lines import Path, key_lines, line_of

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = '''\
# comment with [brackets] and "quotes"
site = "NYC" # trailing
"quoted key" = 'it''s = [not] a table'
dotted.inner . deep = 1

text = """
fake = 1
[not.a.table]
quotes \\""" and ""two"" """ # end
literal = \'\'\'
also_fake = 2\'\'\'\'
list = [
  1, # one ]
  [ "a,b]", 'c' ], { x = 1, y.z = [ 2 ] },
]
when = 1979-05-27 07:32:00Z
inline = { a = 1, "b.c" = { d = "}" } }

[table]
key = true
[[mappings]]
external = "/a"
[mappings.limits]
size = 1
[[mappings]] # second
external = "/b"
[[mappings.rules]]
name = "x"
[[mappings.rules]]
name = "y"
["odd.name".sub]
quoted = """ends in quotes"""""
last = 0
'''.replace("it''s", "its")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("site",), 2),
        (("quoted key",), 3),
        (("dotted", "inner", "deep"), 4),
        (("text",), 6),
        (("literal",), 10),
        (("list",), 12),
        (("list", 0), 13),
        (("list", 1), 14),
        (("list", 1, 1), 14),
        (("list", 2, "y", "z", 0), 14),
        (("when",), 16),
        (("inline", "b.c", "d"), 17),
        (("table",), 19),
        (("table", "key"), 20),
        (("mappings",), 21),
        (("mappings", 0), 21),
        (("mappings", 0, "external"), 22),
        (("mappings", 0, "limits", "size"), 24),
        (("mappings", 1), 25),
        (("mappings", 1, "external"), 26),
        (("mappings", 1, "rules", 0, "name"), 28),
        (("mappings", 1, "rules", 1, "name"), 30),
        (("odd.name", "sub", "last"), 33),
    ],
)
def test_each_way_to_write_a_key_is_found(path: Path, line: int) -> None:
    tomllib.loads(DOCUMENT)
    assert key_lines(DOCUMENT)[path] == line


def test_what_only_looks_like_a_key_is_none() -> None:
    lines = key_lines(DOCUMENT)
    assert not [path for path in lines if {"fake", "also_fake", "not"} & set(path)]


def test_carriage_returns_do_not_shift_lines() -> None:
    lines = key_lines(DOCUMENT.replace("\n", "\r\n"))
    assert lines == key_lines(DOCUMENT)


def test_a_missing_key_is_looked_for_around_it() -> None:
    lines = key_lines(DOCUMENT)
    assert line_of(lines, ("mappings", 1, "internal", 7)) == 25
    assert line_of(lines, ("nowhere",)) is None
    assert line_of(lines, ()) is None


KEYS = st.text("ab_-1.\"'é ]=#", min_size=1, max_size=4)
SCALARS = st.one_of(st.booleans(), st.integers(-9, 9), st.text("a\"'#]}=,\n\\", max_size=6))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def written(value: Any) -> str:
    """Write a value as TOML, tables inline."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {written(item)}" for key, item in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return "[ " + ", # ]\n ".join(map(written, value)) + " ]"
    return json.dumps(value)


def paths(value: Any, prefix: Path = ()) -> Iterator[Path]:
    """Give the path of everything in a document."""
    items = enumerate(value) if isinstance(value, list) else value.items()
    for key, item in items:
        path = (*prefix, key)
        yield path
        if isinstance(item, (list, dict)):
            yield from paths(item, path)


@given(st.lists(st.tuples(KEYS, VALUES), max_size=6, unique_by=lambda pair: pair[0]))
def test_everything_in_any_document_has_its_line(entries: list[tuple[str, Any]]) -> None:
    text, starts = "", {}
    for key, value in entries:
        starts[key] = text.count("\n") + 1
        text += f"{json.dumps(key)} = {written(value)}\n"
    lines = key_lines(text)
    assert set(lines) == set(paths(tomllib.loads(text)))
    assert {key: lines[(key,)] for key in starts} == starts
