"""When the memory of a burst is given back."""

from __future__ import annotations

from typing import Final

import pytest

from cmgmux.cli.memory import Trimmer

MIB: Final = 1 << 20


class Heap:
    """A process whose memory is what it is told to be, and less after a trim."""

    def __init__(self, resident: int) -> None:
        """Begin with so many MiB."""
        self.resident: int | None = resident * MIB
        self.used = resident * MIB
        self.trims = 0

    def trim(self) -> None:
        """Give back what is not used."""
        self.trims += 1
        self.resident = self.used


def watched(heap: Heap) -> Trimmer:
    """A trimmer for it."""
    return Trimmer(heap.trim, lambda: heap.resident)


def test_a_burst_between_two_looks_is_given_back() -> None:
    heap = Heap(44)
    trimmer = watched(heap)
    heap.resident = 135 * MIB
    trimmer.look(7)
    assert (heap.trims, heap.resident) == (1, 44 * MIB)


def test_many_tasks_that_have_ended_leave_nothing() -> None:
    heap = Heap(44)
    trimmer = watched(heap)
    heap.used = heap.resident = 60 * MIB
    trimmer.look(5_000)
    trimmer.look(905)
    assert heap.trims == 0
    heap.used = 44 * MIB
    trimmer.look(904)
    assert (heap.trims, heap.resident) == (1, 44 * MIB)
    trimmer.look(0)
    assert heap.trims == 1, "what was given back counts no more"


def test_a_process_that_needs_its_memory_is_asked_seldom() -> None:
    heap = Heap(44)
    trimmer = watched(heap)
    for mib in range(44, 1_000):
        heap.used = heap.resident = mib * MIB
        trimmer.look(mib * 70)
    assert heap.trims < 25
    trims = heap.trims
    for _ in range(100):
        trimmer.look(70_000)
    assert heap.trims == trims


def test_without_a_figure_only_tasks_count() -> None:
    heap = Heap(44)
    heap.resident = None
    trimmer = watched(heap)
    trimmer.look(5_000)
    trimmer.look(0)
    assert heap.trims == 1


@pytest.mark.parametrize("tasks", [0, 10, 4_095])
def test_a_small_process_is_left_alone(tasks: int) -> None:
    heap = Heap(44)
    trimmer = watched(heap)
    trimmer.look(tasks)
    heap.resident = 60 * MIB
    trimmer.look(0)
    assert heap.trims == 0
