"""Guards the instructions that the core's hot paths take against the counts of the baseline.

Run by ``make guard-instructions``. The counts are those of callgrind and come out the same on
a machine that is busy, but not with another compiler, C library or processor: then there is nothing
to compare with, which is said, and no failure. What silent streams add to a path is held against
the same path without them, and needs no baseline. ``--update`` writes the baseline anew.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

BASELINE: Final = Path(__file__).parent / "baselines" / "instructions.json"
TOLERANCE: Final = 0.02
CROWD_TOLERANCE: Final = 0.05
"""How much more a path may take when 20,000 other streams are silent beside it."""

ALONE: Final = {"crowd": "small", "crowd-churn": "churn", "crowd-reset": "reset"}
"""Paths beside silent streams, and the same without them."""

_UNITS: Final = {
    "codec": 2000,
    "small": 40,
    "crowd": 40,
    "bulk": 400,
    "churn": 400,
    "crowd-churn": 400,
    "reset": 400,
    "crowd-reset": 400,
    "resume": 40,
}
"""How often each path is gone; counted are the instructions of so many more."""


def main() -> int:
    """Count, compare, and return the exit status: 0 as before or nothing to compare, 1 more."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the baseline")
    options = parser.parse_args()
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("skipped: counting instructions needs valgrind, which is not installed")
        return 0
    facts = _facts(valgrind)
    baseline: dict[str, Any] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    is_comparable = baseline.get("with") == facts
    paths = list(_UNITS)
    if not options.update and not is_comparable:
        print(f"skipped: the baseline was counted with {baseline.get('with')}, here is {facts}")
        paths = [name for pair in ALONE.items() for name in pair]
    program = _build()
    counts = {name: _count(valgrind, program, name, _UNITS[name]) for name in paths}
    if options.update:
        BASELINE.write_text(json.dumps({"with": facts, "instructions": counts}, indent=2) + "\n")
        return 0
    compared = against_baseline(counts, baseline["instructions"]) if is_comparable else []
    compared += against_alone(counts)
    print("\n".join(each.line for each in compared))
    too_many = dict.fromkeys(each.name for each in compared if each.is_too_much)
    if too_many:
        print(
            f"too many: {', '.join(too_many)}; if what is above the baseline is worth it, "
            "make guard-instructions ARGS=--update",
            file=sys.stderr,
        )
    return int(bool(too_many))


@dataclass(frozen=True)
class Compared:
    """A path whose count has been held against another."""

    name: str
    line: str
    is_too_much: bool


def against_baseline(counts: Mapping[str, float], baseline: Mapping[str, float]) -> list[Compared]:
    """Hold each path against what it took before, if it is known."""
    compared = []
    for name, count in counts.items():
        line = f"{name:11} {count:10.1f} instructions"
        before = baseline.get(name)
        if before is None:
            compared.append(Compared(name, f"{line}, not in the baseline", is_too_much=False))
            continue
        change = count / before - 1
        verdict = "ok"
        if change > TOLERANCE:
            verdict = f"more than {TOLERANCE:.0%} above"
        elif change < -TOLERANCE:
            verdict = "fewer: update the baseline, or the gain can be lost unseen"
        line += f", {change:+.1%} of {before:.1f}: {verdict}"
        compared.append(Compared(name, line, is_too_much=change > TOLERANCE))
    return compared


def against_alone(counts: Mapping[str, float]) -> list[Compared]:
    """Hold each path beside silent streams against the same without them."""
    compared = []
    for name, alone in ALONE.items():
        change = counts[name] / counts[alone] - 1
        is_too_much = change > CROWD_TOLERANCE
        verdict = f"more than {CROWD_TOLERANCE:.0%} above" if is_too_much else "ok"
        line = f"{name:11} {change:+.1%} of {alone}, beside silent streams: {verdict}"
        compared.append(Compared(name, line, is_too_much=is_too_much))
    return compared


def _facts(valgrind: str) -> dict[str, str]:
    """What the counts depend on beside the sources."""
    cpu = Path("/proc/cpuinfo").read_text()
    return {
        "rustc": _say("rustc", "--version"),
        "valgrind": _say(valgrind, "--version"),
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine() + (" avx2" if re.search(r"\bavx2\b", cpu) else ""),
    }


def _say(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _build() -> str:
    """Build the paths and give the program."""
    command = ["cargo", "build", "--release", "--locked", "-p", "cmgmux-mux", "--bench", "paths"]
    output = _say(*command, "--quiet", "--message-format=json")
    programs = [json.loads(line).get("executable") for line in output.splitlines()]
    return str(next(program for program in programs if program))


def _count(valgrind: str, program: str, path: str, units: int) -> float:
    """Count the instructions of one unit."""
    once, twice = (_collect(valgrind, program, path, times * units) for times in (1, 2))
    return round((twice - once) / units, 1)


def _collect(valgrind: str, program: str, path: str, units: int) -> int:
    command = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    run = subprocess.run(
        [*command, program, path, str(units)], capture_output=True, text=True, check=False
    )
    collected = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or not collected:
        print(run.stderr, file=sys.stderr)
        raise SystemExit(1)
    return int(collected[1])


if __name__ == "__main__":
    sys.exit(main())
