"""Facts that a figure means nothing without: the machine, and the versions of what ran."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.sides import cores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_VERSION_OPTIONS: Final = {"nginx": "-v", "haproxy": "-v", "go": "version"}


@dataclass(frozen=True)
class Facts:
    """Where and with what a run was made."""

    at: str
    """Local time of its start."""
    command: str
    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    load_average: float
    """Over the minute before the start: what else the machine was doing."""
    cmgmux: str
    commit: str
    """Of the sources, with ``+`` if they had changes; empty outside a checkout."""
    python: str
    programs: Mapping[str, str]
    """The versions of the other programs."""

    def to_json(self) -> dict[str, Any]:
        """Give the facts as an object."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Give the facts as text."""
        return [
            f"$ {self.command}",
            f"{self.at}, {self.cores} cores of {self.cpu}, {self.memory_bytes / (1 << 30):.1f} GiB,"
            f" Linux {self.kernel}, load average {self.load_average:.2f}",
            f"cmgmux {self.cmgmux} {self.commit}, Python {self.python}, "
            + ", ".join(f"{name} {version}" for name, version in self.programs.items()),
        ]


def gather(
    arguments: Sequence[str],
    programs: Mapping[str, str],
    *,
    git: str | None,
    module: str = "bench.path",
) -> Facts:
    """Ask the machine, and each of `programs`, names and paths, for its version."""
    return Facts(
        at=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        command=shlex.join(["python", "-m", module, *arguments]),
        cpu=_cpu(),
        cores=cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        load_average=os.getloadavg()[0],
        cmgmux=version("cmgmux"),
        commit=_commit(git) if git else "",
        python=platform.python_version(),
        programs={
            name: _version([path, _VERSION_OPTIONS.get(name, "--version")])
            for name, path in programs.items()
        },
    )


def _cpu() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()


def _version(command: list[str]) -> str:
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    match = re.search(
        r"(?:/|version |curl |cargo |version go)(\d[\w.]*)", output.stdout + output.stderr
    )
    return match[1] if match else "unknown"


def _commit(git: str) -> str:
    command = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
