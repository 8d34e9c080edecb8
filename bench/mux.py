"""Measures the multiplexer side by side with its rivals.

Run by ``make bench-mux``; README.md says how to read what it prints.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from bench import bars, goals, machine, multiplexers
from bench.multiplexers import CORE, OURS, PeerError
from bench.report import Spread, table
from bench.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.scenarios import Figure, Figures, Rounds, Scenario

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2


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
    except PeerError as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return 130
    return 0


def _run(names: Sequence[str], options: argparse.Namespace, arguments: Sequence[str]) -> None:
    built = multiplexers.build()
    facts = machine.gather(arguments, built.tools, git=shutil.which("git"), module="bench.mux")
    print("\n".join(facts.lines()), flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Rounds] = {}
    charts = []
    with options.output.open("w") as output:
        journal = Journal(output, facts.to_json())
        for name in names:
            scenario, missing = SCENARIOS[name], dict(built.missing)
            results[name] = measure(name, options, missing, journal)
            text = lines(scenario, results[name], missing)
            print(f"\n{name}: {scenario.title}\n" + "\n".join(text), flush=True)
            charts.append(chart(scenario, results[name]))
    verdict = goals.verdict(results)
    print("\n" + "\n".join(verdict))
    page = options.output.with_suffix(".html")
    page.write_text(bars.page("cmgmux and other multiplexers", facts.lines(), charts, verdict))
    print(f"\nraw rounds: {options.output}\nplots: {page}")


class Journal:
    """The rounds as JSON lines, each with the facts of the machine."""

    def __init__(self, output: TextIO, facts: Mapping[str, Any]) -> None:
        self._output = output
        self._facts = facts

    def add(self, scenario: str, peer: str, number: int, figures: Figures) -> None:
        """Write down one round."""
        record = {"scenario": scenario, "peer": peer, "round": number, **figures}
        self._output.write(json.dumps({**record, "facts": self._facts}) + "\n")
        self._output.flush()


def measure(
    name: str, options: argparse.Namespace, missing: dict[str, str], journal: Journal
) -> Rounds:
    """Measure everybody in turn. A rival that fails has no rounds and is `missing` from then on.

    Raises:
        PeerError: One of those failed without which nothing is compared.
    """
    scenario = SCENARIOS[name]
    job = {"seconds": options.seconds, **scenario.job}
    rounds: dict[str, list[Figures]] = {peer: [] for peer in scenario.peers if peer not in missing}
    for number in range(1, options.rounds + 1):
        for peer in list(rounds):
            try:
                figures = multiplexers.measure(peer, job, counts_heap=scenario.counts_heap)
            except PeerError as error:
                if peer not in multiplexers.RIVALS:
                    raise PeerError(f"{peer}, {scenario.title}: {error}") from error
                missing[peer] = f"failed: {error}"
                del rounds[peer]
                continue
            rounds[peer].append(figures)
            journal.add(name, peer, number, figures)
    return rounds


def lines(scenario: Scenario, rounds: Rounds, missing: Mapping[str, str]) -> list[str]:
    """Give the table of one scenario: each peer's figures, and ours as a ratio of theirs."""
    rows = [["", *(figure.unit for figure in scenario.figures)]]
    for peer, each in rounds.items():
        spreads = [spread(each, figure).text(figure.form) for figure in scenario.figures]
        rows.append([peer, *spreads])
    for peer, each in rounds.items():
        if peer in (OURS, CORE) or OURS not in rounds:
            continue
        ratios = [
            Spread.of(
                ours[figure.key] / theirs[figure.key]
                for ours, theirs in zip(rounds[OURS], each, strict=True)
            ).text(".2f")
            for figure in scenario.figures
        ]
        rows.append([f"{OURS}/{peer}", *ratios])
    absent = [f"{peer}: {missing[peer]}" for peer in scenario.peers if peer in missing]
    return [*table(rows), *absent, *filter(None, [scenario.note])]


def spread(rounds: Sequence[Figures], figure: Figure) -> Spread:
    """Sum up one figure over the rounds, in its unit."""
    return Spread.of(each[figure.key] / figure.scale for each in rounds)


def chart(scenario: Scenario, rounds: Rounds) -> bars.Chart:
    """Give the first figure of a scenario as bars."""
    figure = scenario.figures[0]
    better = "higher" if figure.higher_is_better else "lower"
    return bars.Chart(
        f"{scenario.title}: {figure.unit}, {better} is better",
        [
            bars.Bar(peer, spread(each, figure), spread(each, figure).text(figure.form))
            for peer, each in rounds.items()
        ],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
