"""Asking the programs that have the multiplexers, with programs that answer oddly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench import multiplexers
from bench.multiplexers import PeerError, measure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program of the multiplexers in Rust is expected; nothing is there yet."""
    path = tmp_path / "bench-mux"
    monkeypatch.setattr(multiplexers, "_BENCH_MUX", path)
    return path


def write(program: Path, script: str) -> None:
    """Have the program do what a shell script does."""
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)


def test_figures_are_the_object_that_was_printed(program: Path) -> None:
    write(program, """echo '{"jain": 0.5, "samples": 3}'""")
    assert measure("h2", {"seconds": 1}, counts_heap=False) == {"jain": 0.5, "samples": 3}


@pytest.mark.parametrize(
    "script", ["echo panic: nothing", "true", "echo '[1]'", "echo 3", r"printf '{\377'"]
)
def test_a_line_that_is_no_object_is_a_failure_of_the_peer(program: Path, script: str) -> None:
    write(program, script)
    with pytest.raises(PeerError, match="printed no figures but"):
        measure("h2", {"seconds": 1}, counts_heap=False)


def test_what_a_program_that_failed_said_is_the_reason(program: Path) -> None:
    write(program, "echo no route >&2; exit 1")
    with pytest.raises(PeerError, match=r"^no route$"):
        measure("h2", {"seconds": 1}, counts_heap=False)


def test_a_program_that_died_without_a_word_is_told_by_its_status(program: Path) -> None:
    write(program, "exit 7")
    with pytest.raises(PeerError, match=r"^exit status 7$"):
        measure("h2", {"seconds": 1}, counts_heap=False)


def test_a_program_that_is_not_there_is_a_failure_of_the_peer(program: Path) -> None:
    with pytest.raises(PeerError, match="cannot be started"):
        measure("h2", {"seconds": 1}, counts_heap=False)
