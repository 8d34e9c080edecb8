"""When the memory of a burst is given back."""

from __future__ import annotations

from typing import Final

from cmgmux.cli.memory import MAX_LOOKS_APART, Trimmer

MIB: Final = 1 << 20


class Process:
    """A process that keeps what it has had until it is trimmed."""

    def __init__(self) -> None:
        """Begin with 44 MiB."""
        self.used = self.resident = 44 * MIB
        self.trims = 0
        self.trimmer = Trimmer(self.trim, lambda: self.resident)

    def use(self, mib: int) -> None:
        """Need so many MiB from here on."""
        self.used = mib * MIB
        self.resident = max(self.resident, self.used)

    def trim(self) -> None:
        """Give back what is not used."""
        self.trims += 1
        self.resident = self.used

    def looks_until_trimmed(self) -> int:
        """Look until it is trimmed, and tell how often that was."""
        before = self.trims
        for looks in range(1, 2 * MAX_LOOKS_APART):
            self.trimmer.look()
            if self.trims > before:
                return looks
        raise AssertionError("never trimmed")


def test_a_burst_between_two_looks_is_given_back_at_the_next() -> None:
    process = Process()
    for _ in range(3):
        process.use(135)
        process.use(44)
        assert process.looks_until_trimmed() == 1
        assert process.resident == 44 * MIB


def test_a_burst_that_a_look_sees_is_given_back_soon_after() -> None:
    process = Process()
    process.use(550)
    process.trimmer.look()
    process.use(44)
    assert process.looks_until_trimmed() <= 2
    assert process.resident == 44 * MIB


def test_what_a_large_process_frees_is_given_back_in_the_end() -> None:
    process = Process()
    process.use(1_000)
    for _ in range(1_000):
        process.trimmer.look()
    process.use(500)
    assert process.looks_until_trimmed() <= MAX_LOOKS_APART
    assert process.resident == 500 * MIB
    process.use(44)
    assert process.looks_until_trimmed() == 1, "who gives back much is asked again at once"


def test_a_process_that_needs_its_memory_is_asked_less_and_less() -> None:
    process = Process()
    process.use(1_000)
    apart = [process.looks_until_trimmed() for _ in range(10)]
    assert apart == [1, 2, 4, 8, 16, 32, 64, 128, 128, 128]
    process.use(1_200)
    assert process.looks_until_trimmed() == 1, "it has grown"


def test_a_process_that_grows_is_asked_a_few_times() -> None:
    process = Process()
    for mib in range(44, 1_000):
        process.use(mib)
        process.trimmer.look()
    assert process.trims < 40


def test_a_small_process_and_one_whose_size_is_unknown_are_left_alone() -> None:
    process = Process()
    process.use(64)
    process.use(44)
    unknown = Trimmer(process.trim, lambda: None)
    for _ in range(100):
        process.trimmer.look()
        unknown.look()
    assert process.trims == 0
