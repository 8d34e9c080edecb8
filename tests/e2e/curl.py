"""Running curl, and what it got."""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.e2e.processes import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PARTIAL_FILE: Final = 18
"""Curl's exit status for an answer that ended before its length."""

RECEIVE_ERROR: Final = 56
"""Curl's exit status for a connection that broke while receiving."""

_numbers: Final = itertools.count()


@dataclass(frozen=True)
class Answer:
    """What curl got for one request."""

    exit_status: int
    """Curl's own; 0 if the answer was complete."""
    interim: tuple[int, ...]
    """The status codes that came before the final one."""
    status: int
    """The HTTP status, 0 if there was no answer."""
    fields: Mapping[str, str] = field(repr=False)
    """The header fields by their names in lower case."""
    body: Path
    """The file with the body."""
    complaint: str
    """What curl wrote to standard error."""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.read_text()


class Fetch:
    """A curl under way."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        """Start `command`; what it gets goes to files in `folder`."""
        number = next(_numbers)
        self._head = folder / f"curl-{number}.head"
        self.body = folder / f"curl-{number}.body"
        """Grows with what arrives, if curl does not buffer."""
        self.body.touch()
        files = ["--dump-header", str(self._head), "--output", str(self.body)]
        self._popen = subprocess.Popen(
            [*command, *files], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def is_under_way(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def finish(self) -> Answer:
        """Wait for the end, which curl itself brings about in time."""
        _, complaint = self._popen.communicate(timeout=2 * DEADLINE_S)
        text = self._head.read_bytes().decode("latin-1") if self._head.exists() else ""
        heads = [block.split("\r\n") for block in text.split("\r\n\r\n") if block]
        statuses = [int(lines[0].split()[1]) for lines in heads]
        fields = [line.partition(": ") for line in (heads[-1][1:] if heads else [])]
        return Answer(
            exit_status=self._popen.returncode,
            interim=tuple(statuses[:-1]),
            status=statuses[-1] if statuses else 0,
            fields={name.lower(): value for name, _, value in fields},
            body=self.body,
            complaint=complaint,
        )


class Curl:
    """Curl as a client that trusts one authority."""

    def __init__(self, program: str, folder: Path, ca: Path) -> None:
        """Keep bodies in `folder`."""
        self._command = [program, "-q", "-sS", "--http1.1", "--cacert", str(ca)]
        self._command += ["--max-time", str(int(DEADLINE_S))]
        self._folder = folder

    def start(self, url: str, *options: str) -> Fetch:
        """Begin to fetch `url`."""
        return Fetch([*self._command, *options, url], self._folder)
