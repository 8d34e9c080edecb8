"""Measures the whole path side by side with nginx as a plain TLS proxy.

Run by ``make bench``; README.md says how to read what it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Protocol

import cmgmux
from bench import bulk, handshakes, machine, memory, report, sides, throughput
from bench.peers import haproxy as haproxy_peer
from bench.peers import nginx as nginx_peer
from bench.processes import BenchError, free_addresses, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2

PROGRAMS: Final = {"nginx": "nginx", "h2load": "nghttp2-client", "curl": "curl"}
"""The programs that this needs, and the Debian packages that have them."""

OPTIONAL_PROGRAMS: Final = {"haproxy": "haproxy"}
"""Programs that add a row if they are there."""

_BULK_BYTES: Final = 1_000_000_000

_DESCRIPTORS_BESIDE_CLIENTS: Final = 1_000

_MOST_EXTRA_ROUNDS: Final = 3


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    http: str
    rounds: int
    duration_s: int
    memory_rounds: int
    clients: int
    output: Path


class Measurement(Protocol):
    """What one round gives."""

    def to_json(self) -> dict[str, Any]:
        """Give it as an object."""

    def line(self) -> str:
        """Give it as text."""


class Journal:
    """Writes each measurement as it comes: a line of JSON to a file, a line of text to us."""

    def __init__(self, path: Path, facts: machine.Facts) -> None:
        """Begin a new file at `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w")
        self._facts = facts.to_json()

    def add(self, measurement: Measurement) -> None:
        """Write one measurement."""
        record = {**measurement.to_json(), "facts": self._facts}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        print(measurement.line(), flush=True)

    def close(self) -> None:
        """End the file."""
        self._file.close()


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and return the exit status: 0 done, 1 not measurable, 2 wrong call."""
    options = _parse(arguments)
    if (problem := _problem(options)) is not None:
        print(f"bench: {problem}", file=sys.stderr)
        return EXIT_USAGE
    programs = _programs()
    facts = machine.gather(arguments, programs, git=shutil.which("git"))
    try:
        with _terminated_like_interrupted():
            _run(options, facts, programs)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _run(options: Options, facts: machine.Facts, programs: Mapping[str, str]) -> None:
    print("\n".join(facts.lines()), flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="cmgmux-bench-")))
        journal = Journal(options.output, facts)
        stack.callback(journal.close)
        bench = _Bench(stack, folder, options, journal, programs)
        requests, transfers, admitted = bench.compare_speed()
        held = bench.compare_memory()
    usable = report.undisturbed(requests)
    rounds = {result.round for result in usable}
    disturbed = len(rounds) < options.rounds
    shown = requests if disturbed else usable
    if "haproxy" not in programs:
        print("\nhaproxy: not found, so it has no row; apt-get install haproxy")
    print(f"\nthroughput over {len({result.round for result in shown})} rounds, ", end="")
    print("median (lowest..highest)")
    print("\n".join(report.throughput_lines(shown)))
    print("\nbulk through one connection, and TLS handshakes with client certificates")
    print("\n".join(report.speed_lines(transfers, admitted)))
    if disturbed:
        print(f"too few rounds left other processes at most {report.MAX_OTHERS:.0%}")
    print(f"\nmemory over {options.memory_rounds} rounds, {options.clients:,} clients")
    print("\n".join(report.memory_lines(held)))
    verdict = report.verdict(shown, held, disturbed=disturbed)
    print(f"\nraw rounds: {options.output}\n{verdict}")


class _Bench:
    """The roles, and what is measured in front of them."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        options: Options,
        journal: Journal,
        programs: Mapping[str, str],
    ) -> None:
        self._options = options
        self._journal = journal
        self._programs = programs
        self._nginx = programs["nginx"]
        fast_role, holding_role = free_addresses(2)
        self._setting = sides.Setting(folder, fast_role, holding_role)
        sides.make_certificates(self._setting)
        self._fast_role = stack.enter_context(nginx_peer.role(self._nginx, folder, fast_role))
        self._role_socket = stack.enter_context(
            sides.holding_role(folder, holding_role, max_held=2 * options.clients + 1_000)
        )

    def compare_speed(
        self,
    ) -> tuple[list[throughput.Throughput], list[bulk.Bulk], list[handshakes.Handshakes]]:
        """Measure all sides in turn. All run all the time; those not measured are idle."""
        with ExitStack() as stack:
            running = [
                stack.enter_context(nginx_peer.proxy(self._nginx, self._setting)),
                stack.enter_context(sides.path(self._setting)),
            ]
            both = tuple(running)
            if haproxy := self._programs.get("haproxy"):
                running.append(stack.enter_context(haproxy_peer.proxy(haproxy, self._setting)))
            return (
                self._compare_throughput(running),
                self._compare_bulk(both),
                self._compare_handshakes(both),
            )

    def _compare_throughput(self, running: Sequence[sides.Side]) -> list[throughput.Throughput]:
        """Rounds that were disturbed are made up for, up to `_MOST_EXTRA_ROUNDS` of them."""
        results: list[throughput.Throughput] = []
        for number in range(1, self._options.rounds + _MOST_EXTRA_ROUNDS + 1):
            for side in running:
                result = throughput.measure(
                    self._programs["h2load"],
                    side,
                    self._fast_role,
                    http=self._options.http,
                    number=number,
                    duration_s=self._options.duration_s,
                    folder=self._setting.folder,
                )
                self._journal.add(result)
                results.append(result)
            if len(report.undisturbed(results)) == len(running) * self._options.rounds:
                break
        return results

    def _compare_bulk(self, both: Sequence[sides.Side]) -> list[bulk.Bulk]:
        results = []
        for number in range(1, self._options.rounds + 1):
            for direction in bulk.DIRECTIONS:
                for side in both:
                    result = bulk.measure(
                        self._programs["curl"],
                        side,
                        self._setting,
                        direction=direction,
                        size_bytes=_BULK_BYTES,
                        number=number,
                    )
                    self._journal.add(result)
                    results.append(result)
        return results

    def _compare_handshakes(self, both: Sequence[sides.Side]) -> list[handshakes.Handshakes]:
        results = []
        for number in range(1, self._options.rounds + 1):
            for side in both:
                self._wait_for_no_held()
                result = handshakes.measure(
                    side,
                    self._setting,
                    self._role_socket,
                    clients=self._options.clients,
                    number=number,
                )
                self._journal.add(result)
                results.append(result)
        self._wait_for_no_held()
        return results

    def _wait_for_no_held(self) -> None:
        wait_until(
            "no stream is held",
            lambda: sides.status_of(self._role_socket).get("held") == 0 or None,
            [],
            timeout_s=sides.START_TIMEOUT_S,
        )

    def compare_memory(self) -> list[memory.Memory]:
        """Measure both sides in turn, each time with new processes, whose heaps are fresh."""
        results = []
        for number in range(1, self._options.memory_rounds + 1):
            for state in memory.STATES:
                for starting in (
                    nginx_peer.proxy(self._nginx, self._setting),
                    sides.path(self._setting),
                ):
                    with starting as side:
                        result = memory.measure(
                            side,
                            self._setting,
                            self._role_socket,
                            state=state,
                            clients=self._options.clients,
                            number=number,
                        )
                    self._journal.add(result)
                    results.append(result)
        return results


def _parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="bench.path",
        description="Measure the whole path side by side with nginx as a plain TLS proxy.",
    )
    parser.add_argument("--quick", action="store_true", help="few, short rounds, for a first look")
    parser.add_argument(
        "--http", choices=("h1", "h2"), default="h1", help="of throughput; default %(default)s"
    )
    parser.add_argument("--rounds", type=_positive, help="of throughput on each side; default 5")
    parser.add_argument(
        "--duration-s", type=_positive, help="of each throughput measurement; default 4"
    )
    parser.add_argument("--memory-rounds", type=_positive, help="default 3")
    parser.add_argument(
        "--clients", type=_positive, help="that hold a stream or are idle; default 2000"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("build/bench/path.jsonl"),
        help="file for the raw rounds as JSON lines, overwritten; default %(default)s",
    )
    given = parser.parse_args(arguments)
    rounds, duration_s, memory_rounds, clients = (2, 2, 1, 400) if given.quick else (5, 4, 3, 2_000)
    return Options(
        http=given.http,
        rounds=given.rounds or rounds,
        duration_s=given.duration_s or duration_s,
        memory_rounds=given.memory_rounds or memory_rounds,
        clients=given.clients or clients,
        output=given.output,
    )


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _problem(options: Options) -> str | None:
    """Say in one line what stands in the way of measuring."""
    found = _programs()
    if missing := {name: package for name, package in PROGRAMS.items() if name not in found}:
        return (
            f"{' and '.join(missing)} not found; install the Debian packages "
            f"{' '.join(missing.values())}: apt-get install {' '.join(missing.values())}"
        )
    if not Path(cmgmux.__file__).is_relative_to(sys.prefix):
        return f"{cmgmux.__file__} is not an installed release build; run this by `make bench`"
    if options.clients < 2:
        return "--clients must be at least 2: memory is what more clients take than fewer"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < (fits := 2 * options.clients + _DESCRIPTORS_BESIDE_CLIENTS):
        return f"{options.clients} clients need {fits} open files: `ulimit -Hn` says {hard}"
    return None


def _programs() -> dict[str, str]:
    """Find those of the programs that are there."""
    # Debian has nginx where only root looks.
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    found = {name: shutil.which(name, path=path) for name in (*PROGRAMS, *OPTIONAL_PROGRAMS)}
    return {name: program for name, program in found.items() if program is not None}


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Have SIGTERM unwind as Ctrl-C does, so that it leaves nothing behind either."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
