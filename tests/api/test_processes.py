"""The long-running commands as processes: readiness, signals, the end of their supervisor."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

from cmgmux._supervisor import Child, Supervisor
from cmgmux.admin import fetch_status
from cmgmux.demo.push import push_to_each
from cmgmux.exceptions import ServiceError, StatusError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_S = 30.0


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """Ends what the test has started."""
    with Supervisor() as supervisor:
        yield supervisor


def start_role(supervisor: Supervisor, folder: Path, *options: str) -> Child:
    """Start a sample role and wait until it serves its status, or has ended."""
    admin = folder / "role.sock"
    child = supervisor.start(
        "role",
        ["sample-role", f"--admin-socket={admin}", "--stop-at-eof", *options],
        log=folder / "role.log",
        output=folder / "role.out",
        admin_socket=admin,
    )
    supervisor.wait_for("start", child.status, timeout_s=DEADLINE_S)
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_cleanly(
    supervisor: Supervisor, tmp_path: Path, number: signal.Signals
) -> None:
    child = start_role(supervisor, tmp_path)
    child.process.send_signal(number)
    assert child.process.wait(DEADLINE_S) == 0
    assert not child.admin_socket.exists()
    log = child.log.read_text()
    assert f"stopping reason={number.name}" in log
    assert log.rstrip().endswith("stopped")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_a_command_at_once(
    supervisor: Supervisor, tmp_path: Path, number: signal.Signals
) -> None:
    child = start_role(supervisor, tmp_path, "--grace-s=3600")
    address = supervisor.wait_for("status", child.status, timeout_s=DEADLINE_S)["address"]
    poll = poll_in_background(address)
    supervisor.wait_for(
        "a held poll",
        lambda: (child.status() or {}).get("held") or None,
        timeout_s=DEADLINE_S,
    )
    child.process.send_signal(number)
    supervisor.wait_for(
        "the first signal",
        lambda: "stopping" in child.log.read_text() or None,
        timeout_s=DEADLINE_S,
    )
    assert child.process.poll() is None
    child.process.send_signal(number)
    assert child.process.wait(DEADLINE_S) == -number
    poll.wait(DEADLINE_S)


def poll_in_background(address: str) -> subprocess.Popen[bytes]:
    """Hold a poll at the role from another process."""
    code = f"""
        import http.client
        connection = http.client.HTTPConnection({address!r}, timeout={DEADLINE_S})
        connection.request("GET", "/notifications?client=0")
        try:
            connection.getresponse()
        except OSError:
            pass
        """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])


def test_a_wrong_setting_ends_a_command_with_status_2_and_one_line(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    with pytest.raises(ServiceError, match="exit status 2") as caught:
        start_role(supervisor, tmp_path, "--listen=nonsense")
    assert "cmgmux: listen: " in str(caught.value), "the tail of its log"
    assert (tmp_path / "role.log").read_text().count("\n") == 1


def test_an_orphan_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    code = f"""
        import sys, time
        from pathlib import Path
        from cmgmux._supervisor import Supervisor
        folder = Path({str(tmp_path)!r})
        with Supervisor() as supervisor:
            admin = folder / "role.sock"
            child = supervisor.start(
                "role", ["sample-role", f"--admin-socket={{admin}}", "--stop-at-eof"],
                log=folder / "role.log", output=folder / "role.out", admin_socket=admin,
            )
            supervisor.wait_for("start", child.status, timeout_s={DEADLINE_S})
            print("ready", flush=True)
            sys.stdin.read()
        """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    assert parent.stdout.readline() == b"ready\n"
    assert fetch_status(tmp_path / "role.sock")["held"] == 0
    parent.kill()
    parent.wait(DEADLINE_S)
    parent.stdout.close()
    parent.stdin.close()
    wait_until_gone(tmp_path / "role.sock")
    assert 'reason="end of standard input"' in (tmp_path / "role.log").read_text()


def wait_until_gone(socket: Path) -> None:
    """Wait until nobody serves `socket` any more."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            fetch_status(socket)
        except StatusError:
            return
    pytest.fail(f"{socket} is still served")


def test_leaving_the_supervisor_ends_everything(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        child = start_role(supervisor, tmp_path)
    assert child.process.returncode == 0


def test_a_process_that_dies_is_reported_with_its_signal(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    child = start_role(supervisor, tmp_path)
    supervisor.check()
    child.process.kill()
    child.process.wait(DEADLINE_S)
    with pytest.raises(ServiceError, match="the role process ended with signal 9"):
        supervisor.check(may_end=("role",))


def test_waiting_too_long_shows_what_the_processes_wrote(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    start_role(supervisor, tmp_path)
    with pytest.raises(
        ServiceError, match=r"the impossible: not within 0 s(.|\n)*started address="
    ):
        supervisor.wait_for("the impossible", lambda: None, timeout_s=0.0)


def test_pushes_count_only_what_the_role_handed_on(supervisor: Supervisor, tmp_path: Path) -> None:
    child = start_role(supervisor, tmp_path)
    address = supervisor.wait_for("status", child.status, timeout_s=DEADLINE_S)["address"]
    poll = poll_in_background(address)
    supervisor.wait_for(
        "a held poll",
        lambda: (child.status() or {}).get("held") or None,
        timeout_s=DEADLINE_S,
    )
    assert push_to_each(address, range(9)) == 1
    assert poll.wait(DEADLINE_S) == 0


def test_a_status_command_reads_the_socket(supervisor: Supervisor, tmp_path: Path) -> None:
    child = start_role(supervisor, tmp_path)
    shown = subprocess.run(
        [sys.executable, "-m", "cmgmux", "status", str(child.admin_socket), "--json"],
        check=True,
        capture_output=True,
        timeout=DEADLINE_S,
    )
    assert b'"held": 0' in shown.stdout
    table = subprocess.run(
        [sys.executable, "-m", "cmgmux", "status", str(child.admin_socket)],
        check=True,
        capture_output=True,
        timeout=DEADLINE_S,
    )
    assert "held" in table.stdout.decode()


def test_a_reader_that_leaves_is_no_error() -> None:
    command = [sys.executable, "-m", "cmgmux", "--version"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(DEADLINE_S) != 0
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
