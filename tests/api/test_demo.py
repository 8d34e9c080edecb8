"""The demo as its users run it, with few clients."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cmgmux.admin import fetch_status

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 120.0


def demo(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    """Start a demo that keeps its files in `tmp_path`."""
    return subprocess.Popen(
        [sys.executable, "-m", "cmgmux", "demo", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"TMPDIR": str(tmp_path)},
    )


def test_every_client_is_notified_and_nothing_stays_behind(tmp_path: Path) -> None:
    process = demo(tmp_path, "--clients=20", "--seconds=0", "--json")
    output, progress = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, progress
    summary = json.loads(output.splitlines()[-1])
    assert summary["ok"] is True
    assert summary["answered"] == summary["pushed"] == 20
    assert {"role-NYC", "gateway-0", "gateway-1", "nyc1", "nyc2"} < set(summary["memory"])
    assert "holding" in progress
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_kept_runs_until_a_signal_and_cleans_up(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = demo(tmp_path, "--clients=5", "--seconds=0", "--keep")
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if " status " in line:
            break
    socket = next(tmp_path.glob("*/gateway-0.sock"))
    assert fetch_status(socket)["state"] == "ready"
    assert any("curl --cacert" in line for line in lines)
    process.send_signal(number)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert not list(tmp_path.iterdir())


def test_more_clients_than_descriptors_are_refused_before_anything_starts(tmp_path: Path) -> None:
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500)); "
    run = "from cmgmux.cli.app import run; sys.exit(run(['demo', '--clients=400']))"
    result = subprocess.run(
        [sys.executable, "-c", limited + run],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env={"TMPDIR": str(tmp_path)},
        check=False,
    )
    assert result.returncode == 2
    assert "--clients: 400 clients need more open files" in result.stderr
