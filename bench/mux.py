"""Measures the multiplexer side by side with its rivals.

Run by ``make bench-mux``; README.md says how to read what it prints.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench import bars, machine
from bench.report import Spread, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2

OURS: Final = "cmgmux"
CEILING: Final = "rustls"
PEERS: Final = (CEILING, OURS, "rust-yamux", "h2", "quinn")

_CRATE: Final = Path(__file__).parent / "peers" / "mux"
_TARGET: Final = Path(__file__).parent.parent / "target" / "peers"
_TIMEOUT_S: Final = 180.0
_KIB: Final = 1024


@dataclass(frozen=True)
class Figure:
    """One figure that a scenario gives, and its goal as a ratio."""

    key: str
    unit: str
    scale: float
    """What a unit is in the unit that was measured."""
    form: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class Scenario:
    """What the peers do, and which figures come of it."""

    title: str
    job: Mapping[str, Any]
    figures: Sequence[Figure]
    of_ceiling: bool = False
    """Whether the bare TLS connection can do it as well."""
    counts_heap: bool = False


_BULK: Final = (Figure("bytes_per_s", "GB/s", 1e9, ".2f"), Figure("jain", "Jain", 1.0, ".4f"))
_MESSAGES: Final = (Figure("messages_per_s", "M messages/s", 1e6, ".3f"),)
_ECHO: Final = (
    Figure("p99_ms", "p99 ms", 1.0, ".3f", higher_is_better=False),
    Figure("p50_ms", "p50 ms", 1.0, ".3f", higher_is_better=False),
    Figure("bulk_bytes_per_s", "bulk MB/s", 1e6, ".2f"),
)


def _shaped(buffer_bytes: int) -> Scenario:
    shape = {"bits_per_s": 1e8, "delay_ms": 10, "buffer_bytes": buffer_bytes}
    return Scenario(
        f"echo under bulk, 100 Mbit/s, 20 ms, queue of {buffer_bytes // _KIB} KiB",
        {"scenario": "echo", "path": {"shaped": shape}},
        _ECHO,
    )


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "bulk-1": Scenario("bulk, 1 stream", {"scenario": "bulk"}, _BULK, of_ceiling=True),
    "bulk-100": Scenario(
        "bulk, 100 streams", {"scenario": "bulk", "streams": 100}, _BULK, of_ceiling=True
    ),
    "small": Scenario(
        "messages of 300 B on 10,000 streams",
        {"scenario": "small", "streams": 10_000},
        _MESSAGES,
        of_ceiling=True,
    ),
    "churn": Scenario(
        "open, 1 B each way, close; 100 at a time",
        {"scenario": "churn"},
        (Figure("streams_per_s", "k streams/s", 1e3, ".1f"),),
    ),
    "idle": Scenario(
        "heap of an idle stream with its handles, both ends",
        {"scenario": "idle", "streams": 10_000},
        (Figure("bytes_per_stream", "bytes", 1.0, ".0f", higher_is_better=False),),
        counts_heap=True,
    ),
    "echo": Scenario("echo of 300 B under bulk, loopback", {"scenario": "echo"}, _ECHO),
    "shaped-256k": _shaped(256 * _KIB),
    "shaped-2m": _shaped(2048 * _KIB),
}

Results = dict[str, list[dict[str, float]]]
"""The figures of each round, by peer."""


class BenchMuxError(Exception):
    """A peer could not be measured."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and return the exit status: 0 done, 1 not measurable, 2 wrong call."""
    parser = argparse.ArgumentParser(prog="make bench-mux ARGS=...", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of each")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only these")
    parser.add_argument("--output", type=Path, default=Path("build/bench/mux.jsonl"))
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0:
        print("bench: --rounds and --seconds must be positive", file=sys.stderr)
        return EXIT_USAGE
    try:
        _run(options.scenario or list(SCENARIOS), options, arguments)
    except BenchMuxError as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return 130
    return 0


def _run(names: Sequence[str], options: argparse.Namespace, arguments: Sequence[str]) -> None:
    facts = machine.gather(
        arguments, {"cargo": _cargo()}, git=shutil.which("git"), module="bench.mux"
    )
    print("\n".join(facts.lines()), flush=True)
    build()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    charts = []
    with options.output.open("w") as journal:
        for name in names:
            scenario = SCENARIOS[name]
            results: Results = {}
            for number in range(1, options.rounds + 1):
                for peer in PEERS:
                    if peer == CEILING and not scenario.of_ceiling:
                        continue
                    figures = measure(peer, scenario, seconds=options.seconds)
                    results.setdefault(peer, []).append(figures)
                    record = {"scenario": name, "peer": peer, "round": number, **figures}
                    journal.write(json.dumps({**record, "facts": facts.to_json()}) + "\n")
                    journal.flush()
            print(f"\n{name}: {scenario.title}\n" + "\n".join(lines(scenario, results)), flush=True)
            charts.append(chart(scenario, results))
    page = options.output.with_suffix(".html")
    page.write_text(bars.page("cmgmux and other multiplexers", facts.lines(), charts))
    print(f"\nraw rounds: {options.output}\nplots: {page}")


def build() -> None:
    """Build the peers.

    Raises:
        BenchMuxError: They cannot be built.
    """
    manifest = f"--manifest-path={_CRATE / 'Cargo.toml'}"
    command = [_cargo(), "build", "--release", "--quiet", "--locked", manifest]
    built = subprocess.run([*command, f"--target-dir={_TARGET}"], check=False)
    if built.returncode != 0:
        raise BenchMuxError("the peers cannot be built; cargo says why above")


def measure(peer: str, scenario: Scenario, *, seconds: float) -> dict[str, float]:
    """Measure one peer once.

    Raises:
        BenchMuxError: It failed, or gave nothing in time.
    """
    program = "bench-mux-heap" if scenario.counts_heap else "bench-mux"
    job = json.dumps({"peer": peer, "seconds": seconds, **scenario.job})
    command = [str(_TARGET / "release" / program), job]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S + seconds, check=True
        )
    except subprocess.TimeoutExpired:
        raise BenchMuxError(f"{peer}, {scenario.title}: nothing measured in time") from None
    except subprocess.CalledProcessError as error:
        words = error.stderr.strip() or f"exit status {error.returncode}"
        raise BenchMuxError(f"{peer}, {scenario.title}: {words}") from None
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def lines(scenario: Scenario, results: Results) -> list[str]:
    """Give the table of one scenario: each peer's figures, and ours as a ratio of theirs."""
    rows = [["", *(figure.unit for figure in scenario.figures)]]
    for peer, rounds in results.items():
        spreads = [spread(rounds, figure).text(figure.form) for figure in scenario.figures]
        rows.append([peer, *spreads])
    for peer, rounds in results.items():
        if peer == OURS:
            continue
        ratios = [
            Spread.of(
                ours[figure.key] / theirs[figure.key]
                for ours, theirs in zip(results[OURS], rounds, strict=True)
            ).text(".2f")
            for figure in scenario.figures
        ]
        rows.append([f"{OURS}/{peer}", *ratios])
    return table(rows)


def spread(rounds: Sequence[Mapping[str, float]], figure: Figure) -> Spread:
    """Sum up one figure over the rounds, in its unit."""
    return Spread.of(each[figure.key] / figure.scale for each in rounds)


def chart(scenario: Scenario, results: Results) -> bars.Chart:
    """Give the first figure of a scenario as bars."""
    figure = scenario.figures[0]
    better = "higher" if figure.higher_is_better else "lower"
    return bars.Chart(
        f"{scenario.title}: {figure.unit}, {better} is better",
        [
            bars.Bar(peer, spread(rounds, figure), f"{spread(rounds, figure).text(figure.form)}")
            for peer, rounds in results.items()
        ],
    )


def _cargo() -> str:
    found = shutil.which("cargo")
    if found is None:
        raise BenchMuxError("cargo not found: install a current stable Rust (rustup.rs)")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
