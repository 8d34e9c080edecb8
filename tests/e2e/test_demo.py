"""The demo as users start it."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import Process, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


PROCESSES = 7
"""A role, two instances, two connection points, clients of either instance."""


@contextmanager
def demo(folder: Path, *options: str) -> Iterator[Process]:
    """Run the demo with its files in `folder`."""
    command = [sys.executable, "-m", "cmgmux", "demo", "--clients=50", "--json", *options]
    with Process("demo", command, folder, environment={"TMPDIR": str(folder)}) as process:
        yield process


def check_nothing_left(folder: Path, children: list[int]) -> None:
    """Check that a demo has ended its processes and removed its files."""
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
    assert not list(folder.glob("cmgmux-demo-*"))


@pytest.mark.parametrize("topology", ["example1", "example2"])
def test_the_demo_notifies_every_client_and_says_so_in_its_last_line(
    tmp_path: Path, topology: str
) -> None:
    with demo(tmp_path, "--seconds=0.5", f"--topology={topology}") as process:
        assert process.wait() == 0
    summary = json.loads(process.output().splitlines()[-1])
    assert summary["ok"] is True
    assert (summary["clients"], summary["answered"], summary["unhappy"]) == (50, 50, 0)
    assert "50 of 50 clients got their own notification" in process.log()
    assert set(summary["kinds"]) == {"long-poll", "sse", "websocket"}
    assert summary["requests"] > 0
    assert len(summary["instances"]) == len(summary["points"]) == 2
    assert summary["channels"] == len(summary["channels_held"])
    assert all(channel["streams_total"] > 0 for channel in summary["channels_held"])
    check_nothing_left(tmp_path, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_demo_that_is_under_way_with_all_its_processes(
    tmp_path: Path, number: signal.Signals
) -> None:
    with demo(tmp_path, "--seconds=3600") as process:
        wait_until("clients hold", lambda: "holding: " in process.log() or None, watched=[process])
        children = process.children()
        assert len(children) == PROCESSES
        process.signal(number)
        assert process.wait() == 128 + signal.SIGINT
    assert "Traceback" not in process.log()
    check_nothing_left(tmp_path, children)


def test_ctrl_c_ends_a_demo_that_was_kept_with_its_verdict(tmp_path: Path) -> None:
    with demo(tmp_path, "--seconds=0.1", "--keep") as process:
        wait_until("it is kept", lambda: "running until Ctrl-C" in process.log() or None)
        children = process.children()
        assert len(children) == PROCESSES
        process.signal(signal.SIGINT)
        assert process.wait() == 0
    assert json.loads(process.output().splitlines()[-1])["answered"] == 50
    check_nothing_left(tmp_path, children)


def test_a_demo_that_is_killed_leaves_no_processes(tmp_path: Path) -> None:
    with demo(tmp_path, "--seconds=3600") as process:
        wait_until("clients hold", lambda: "holding: " in process.log() or None, watched=[process])
        children = process.children()
        assert len(children) == PROCESSES
        process.kill()
        wait_until("their end", lambda: not any(map(is_running, children)) or None)


def is_running(pid: int) -> bool:
    """Whether a process that is not ours to wait for is still there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
