"""Where each key of a TOML document is written.

`tomllib` gives values without positions. This is a second, lenient walk over a document that
`tomllib` has accepted: it knows where strings, comments and brackets begin and end, and nothing
about what values mean.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

Path = tuple[str | int, ...]
"""Keys and array indexes from the root, such as ``("mappings", 2, "internal")``."""

_BLANK: Final = re.compile(r"[ \t]*")
_SPACE: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'  # longest match for quotes right before the end is in {3,5}
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR: Final = re.compile(r"[^,\]}#\r\n]+")


def key_lines(text: str) -> dict[Path, int]:
    """Give the line, counted from 1, of each key, table and array item of a valid document."""
    return _Walk(text).lines


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """Give the line of `path`, or of the nearest thing around it that is written anywhere."""
    for length in range(len(path), 0, -1):
        if (line := lines.get(path[:length])) is not None:
            return line
    return None


class _Walk:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}  # items so far of each array of tables
        self._document()

    def _document(self) -> None:
        table: Path = ()
        self._skip(_SPACE)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._key_value(table)
            self._skip(_SPACE)

    def _header(self) -> Path:
        line = self._line()
        of_array = self.text.startswith("[[", self.at)
        self.at += 2 if of_array else 1
        keys = self._keys()
        self.at += 2 if of_array else 1
        table: Path = ()
        for position, key in enumerate(keys):
            table = (*table, key)
            self.lines.setdefault(table, line)
            if of_array and position == len(keys) - 1:
                self._counts[table] = self._counts.get(table, 0) + 1
            if table in self._counts:
                # A name that is an array of tables means its last item.
                table = (*table, self._counts[table] - 1)
                self.lines.setdefault(table, line)
        return table

    def _key_value(self, table: Path) -> None:
        line = self._line()
        path = table
        for key in self._keys():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self.at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_BLANK)
            if match := _BARE_KEY.match(self.text, self.at):
                keys.append(match[0])
                self.at = match.end()
            else:
                quoted = self._skip(_STRING)
                keys.append(next(iter(tomllib.loads(f"{quoted} = 0"))))
            self._skip(_BLANK)
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def _value(self, path: Path) -> None:
        match self.text[self.at]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._skip(_STRING)
            case _:
                self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while True:
            self._skip(_SPACE)
            if self.text[self.at] == "]":
                break
            item = (*path, index)
            self.lines[item] = self._line()
            self._value(item)
            index += 1
            self._skip(_SPACE)
            if self.text[self.at] == ",":
                self.at += 1
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while True:
            self._skip(_SPACE)
            if self.text[self.at] == "}":
                break
            self._key_value(path)
            self._skip(_SPACE)
            if self.text[self.at] == ",":
                self.at += 1
        self.at += 1

    def _skip(self, what: re.Pattern[str]) -> str:
        """Step over `what` and return it."""
        match = what.match(self.text, self.at)
        if match is None:
            raise AssertionError(f"no valid TOML at character {self.at}")
        self.at = match.end()
        return match[0]

    def _line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1
