"""Measures the multiplexer side by side with its rivals.

Run by ``make bench-mux``; README.md says how to read what it prints.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from bench import bars, goals, machine, multiplexers
from bench.multiplexers import CORE, OURS, RIVALS, PeerError
from bench.report import Spread, ratio, table
from bench.scenarios import SCENARIOS, Failure, measured, trouble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.scenarios import Figure, Figures, Outcome, Rounds, Scenario

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and return the exit status: 0 done, 1 something failed, 2 wrong call.

    A rival that fails is no failure of the run.
    """
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
        return _run(options.scenario or list(SCENARIOS), options, arguments)
    except PeerError as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return 130


def _run(names: Sequence[str], options: argparse.Namespace, arguments: Sequence[str]) -> int:
    built = multiplexers.build()
    facts = machine.gather(arguments, built.tools, git=shutil.which("git"), module="bench.mux")
    print("\n".join(facts.lines()), flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Rounds] = {}
    plots: list[bars.Chart] = []
    with options.output.open("w") as output:
        journal = Journal(output, facts.to_json())
        for name in names:
            scenario = SCENARIOS[name]
            results[name] = measure(name, options, built.missing, journal)
            text = lines(scenario, results[name])
            print(f"\n{name}: {scenario.title}\n" + "\n".join(text), flush=True)
            plots += charts(scenario, results[name])
    verdict = goals.verdict(results)
    print("\n" + "\n".join(verdict))
    page = options.output.with_suffix(".html")
    page.write_text(bars.page("cmgmux and other multiplexers", facts.lines(), plots, verdict))
    print(f"\nraw rounds: {options.output}\nplots: {page}")
    has_failed = any(
        trouble(outcomes)
        for rounds in results.values()
        for peer, outcomes in rounds.items()
        if peer not in RIVALS
    )
    return EXIT_FAILURE if has_failed else 0


class Journal:
    """The rounds as JSON lines, each with the facts of the machine."""

    def __init__(self, output: TextIO, facts: Mapping[str, Any]) -> None:
        self._output = output
        self._facts = facts

    def add(self, scenario: str, peer: str, number: int, outcome: Outcome) -> None:
        """Write down one round: its figures, or its ``failure``."""
        result = {"failure": outcome.reason} if isinstance(outcome, Failure) else outcome
        record = {"scenario": scenario, "peer": peer, "round": number, **result}
        self._output.write(json.dumps({**record, "facts": self._facts}) + "\n")
        self._output.flush()


def measure(
    name: str, options: argparse.Namespace, missing: Mapping[str, str], journal: Journal
) -> Rounds:
    """Measure everybody in turn. Who fails in a round is asked again in the next."""
    scenario = SCENARIOS[name]
    rounds: dict[str, list[Outcome]] = {peer: [] for peer in scenario.peers}
    for number in range(1, options.rounds + 1):
        for peer, outcomes in rounds.items():
            if peer in missing:
                outcome: Outcome = Failure(missing[peer])
            else:
                outcome = attempt(peer, scenario, options.seconds)
            outcomes.append(outcome)
            journal.add(name, peer, number, outcome)
    return rounds


def attempt(peer: str, scenario: Scenario, seconds: float) -> Outcome:
    """Measure one multiplexer once."""
    job = {"seconds": seconds, **scenario.job}
    try:
        answer = multiplexers.measure(peer, job, counts_heap=scenario.counts_heap)
    except PeerError as error:
        return Failure(str(error))
    return scenario.outcome(answer)


def lines(scenario: Scenario, rounds: Rounds) -> list[str]:
    """Give the table of one scenario: each peer's figures, and ours as a ratio of theirs."""
    rows = [["", *(figure.unit for figure in scenario.figures)]]
    for peer, outcomes in rounds.items():
        spreads = (spread(measured(outcomes), figure) for figure in scenario.figures)
        texts = (
            each.text(figure.form) if each else "-"
            for each, figure in zip(spreads, scenario.figures, strict=True)
        )
        rows.append([peer, *texts])
    for peer, outcomes in rounds.items():
        if peer in (OURS, CORE) or OURS not in rounds:
            continue
        pairs = [
            (ours, theirs)
            for ours, theirs in zip(rounds[OURS], outcomes, strict=True)
            if not isinstance(ours, Failure) and not isinstance(theirs, Failure)
        ]
        if pairs:
            ratios = (
                Spread.of(ratio(ours[figure.key], theirs[figure.key]) for ours, theirs in pairs)
                for figure in scenario.figures
            )
            rows.append([f"{OURS}/{peer}", *(each.text(".2f") for each in ratios)])
    notes = ["", *map(trouble, rounds.values())]
    noted = zip_longest(table(rows), notes, fillvalue="")
    return [*(f"{row}  {note}".rstrip() for row, note in noted), *filter(None, [scenario.note])]


def spread(rounds: Sequence[Figures], figure: Figure) -> Spread | None:
    """Sum up one figure over the rounds, in its unit, if there are any."""
    return Spread.of(each[figure.key] / figure.scale for each in rounds) if rounds else None


def charts(scenario: Scenario, rounds: Rounds) -> list[bars.Chart]:
    """Give each figure of a scenario as bars."""
    return [
        bars.Chart(
            f"{scenario.title}: {figure.label()}",
            [_bar(peer, outcomes, figure) for peer, outcomes in rounds.items()],
        )
        for figure in scenario.figures
    ]


def _bar(peer: str, outcomes: Sequence[Outcome], figure: Figure) -> bars.Bar:
    figures = measured(outcomes)
    values = spread(figures, figure)
    if values is None:
        return bars.Bar(peer, None, trouble(outcomes))
    text = values.text(figure.form)
    if len(figures) < len(outcomes):
        text += f", in {len(figures)} of {len(outcomes)} rounds"
    return bars.Bar(peer, values, text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
