"""Watching a running process."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import Process, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.path import GatedPath


@pytest.mark.usefixtures("ctrl_c")
def test_a_watched_status_is_said_again_and_again_until_interrupted(
    path: GatedPath, tmp_path: Path
) -> None:
    configuration = path.folder / "gateway.toml"
    command = [sys.executable, "-m", "cmgmux", "status", str(configuration)]
    with Process("status", [*command, "--watch=0.1", "--json"], tmp_path) as status:
        lines = wait_until(
            "three looks",
            lambda: said if len(said := status.output().splitlines()) >= 3 else None,
            watched=[status],
        )
        assert all(json.loads(line)["state"] == "ready" for line in lines[:3])
        uptimes = [json.loads(line)["uptime_s"] for line in lines[:3]]
        assert uptimes == sorted(set(uptimes))
        status.signal(signal.SIGINT)
        assert status.wait() == 128 + signal.SIGINT
        assert status.log() == ""


def test_several_processes_are_shown_even_if_one_does_not_answer(
    path: GatedPath, tmp_path: Path
) -> None:
    folder = path.folder
    command = [sys.executable, "-m", "cmgmux", "status", str(folder / "gateway.toml")]
    with Process("status", [*command, str(folder / "point.toml"), "--json"], tmp_path) as status:
        assert status.wait() == 0
        roles = [json.loads(line)["role"] for line in status.output().splitlines()]
        assert roles == ["gateway", "connection-point"]
    gone = tmp_path / "gone.toml"
    gone.write_text((folder / "gateway.toml").read_text().replace("gateway.sock", "gone.sock"))
    with Process("status", [*command, str(gone)], tmp_path) as status:
        assert status.wait() == 1
        assert "ready" in status.output()
        assert "gone.sock" in status.log()
