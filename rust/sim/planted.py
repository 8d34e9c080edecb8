"""Look whether the simulator finds each of the faults that are planted into the core.

A simulator that finds nothing says little unless it finds what is there. Each fault of
`planted.toml` is put into a copy of the core, the simulator is built with it, and seeds are run
until one fails.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).parents[2]
FAULTS: Final = Path(__file__).with_name("planted.toml")
CRATES: Final = ("rust/mux", "rust/sim")
TIMEOUT_S: Final = 600
FAILURE: Final = re.compile(r"seed (\d+) fails: (.*)")


class PlantingError(Exception):
    """A fault cannot be planted, or the simulator not be built or run with it."""


@dataclass(frozen=True)
class Fault:
    """A replacement in one file of the core."""

    name: str
    file: str
    find: str
    replace: str

    def plant(self, sources: Path) -> None:
        """Replace the text, which stands in the file once."""
        path = sources / self.file
        text = path.read_text()
        if text.count(self.find) != 1:
            raise PlantingError(
                f"`{self.find}` stands {text.count(self.find)} times in {self.file}"
            )
        path.write_text(text.replace(self.find, self.replace))


def main(arguments: Sequence[str]) -> int:
    """Plant every fault and return the exit status: 0 all found, 1 not all."""
    parser = argparse.ArgumentParser(prog="make prove-planted ARGS=...", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="seeds to run for each fault")
    parser.add_argument("--name", default="", help="only faults with this in their name")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    faults = [Fault(**fault) for fault in tomllib.loads(FAULTS.read_text())["fault"]]
    faults = [fault for fault in faults if options.name in fault.name]
    places: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for job in range(options.jobs):
        places.put(ROOT / "build" / "planted" / str(job))

    def look(fault: Fault) -> str | None:
        place = places.get()
        try:
            found = _search(fault, place, options.seeds)
        except PlantingError as error:
            print(f"{fault.name}: {error}", file=sys.stderr, flush=True)
            return None
        finally:
            places.put(place)
        print(f"{fault.name}: {found or 'NOT FOUND'}", flush=True)
        return found

    with ThreadPoolExecutor(options.jobs) as pool:
        found = [result for result in pool.map(look, faults) if result]
    print(f"{len(found)} of {len(faults)} faults found")
    return 0 if len(found) == len(faults) else 1


def _search(fault: Fault, place: Path, seeds: int) -> str | None:
    """The first seed that fails with the fault, and why; `None` if all pass."""
    _copy(place)
    fault.plant(place / "rust/mux/src")
    environment = os.environ | {
        "CARGO_TARGET_DIR": str(place / "target"),
        "CARGO_PROFILE_DEV_OPT_LEVEL": "1",
        "CARGO_PROFILE_DEV_DEBUG": "none",
    }
    build = subprocess.run(
        ["cargo", "build", "--quiet", "--offline", "-p", "cmgmux-sim"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if build.returncode != 0:
        raise PlantingError(f"does not build\n{build.stderr}")
    command = [str(place / "target/debug/cmgmux-sim"), "first", str(seeds)]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise PlantingError(f"still running after {TIMEOUT_S} s") from error
    failure = FAILURE.search(run.stdout)
    if run.returncode != (1 if failure else 0):
        raise PlantingError(f"exit status {run.returncode}: {run.stderr[-500:]}")
    return f"seed {failure[1]}: {failure[2][:80]}" if failure else None


def _copy(place: Path) -> None:
    """Make a workspace of the core and the simulator alone."""
    for crate in CRATES:
        shutil.rmtree(place / crate, ignore_errors=True)
        shutil.copytree(ROOT / crate, place / crate)
    members = ", ".join(f'"{crate}"' for crate in CRATES)
    manifest = (ROOT / "Cargo.toml").read_text()
    manifest = re.sub(r"members = \[.*?\]", f"members = [{members}]", manifest, flags=re.DOTALL)
    (place / "Cargo.toml").write_text(manifest)
    shutil.copy(ROOT / "Cargo.lock", place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
