"""How processes and links end, and what becomes of the streams and of the other end."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from tests.e2e.curl import PARTIAL_FILE, RECEIVE_ERROR
from tests.e2e.path import GatedPath, links_up, mapping, read_past, read_to_broken_end
from tests.e2e.processes import Service, wait_until
from tests.e2e.refusals import check_unharmed
from tests.e2e.roles import SampleRole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.path import Swarm
    from tests.e2e.roles import Nginx

SIGNALS: Final = [signal.SIGTERM, signal.SIGINT]
HELD: Final = 20


@pytest.fixture
def role(tmp_path: Path) -> Iterator[SampleRole]:
    """A sample role of its own."""
    with SampleRole(tmp_path) as role:
        yield role


@pytest.fixture
def path(
    tmp_path: Path, pki: Path, curl: str, nginx: Nginx, role: SampleRole
) -> Iterator[GatedPath]:
    """A path of its own."""
    mappings = [mapping("/files", nginx.address), mapping("/role", role.address, hold=True)]
    with GatedPath(tmp_path, pki, curl, mappings).running() as path:
        yield path


@contextmanager
def holding(path: GatedPath, role: SampleRole, *options: str) -> Iterator[Swarm]:
    """Have clients hold polls."""
    swarm = path.swarm("/role/notifications", f"--clients={HELD}", *options)
    swarm.wait_holding(HELD)
    role.wait_for("all held", lambda status: status["held"] == HELD)
    yield swarm


def check_clean_end(service: Service, number: signal.Signals) -> None:
    """Check that a signal ends a process cleanly."""
    service.signal(number)
    assert service.wait() == 0
    assert json.loads(service.log().splitlines()[-1])["msg"] == "stopped"
    assert "panic" not in service.log()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_gateway_while_polls_are_held(
    path: GatedPath, role: SampleRole, number: signal.Signals
) -> None:
    with holding(path, role) as swarm:
        check_clean_end(path.gateway, number)
        assert swarm.wait() == 1
        report = json.loads(swarm.output().splitlines()[-1])
        assert (report["failed"] + report["wrong"], report["answered"]) == (HELD, 0)
    role.wait_for("nothing held", lambda status: status["held"] == 0)
    assert path.point.is_running()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_connection_point_while_polls_are_held(
    path: GatedPath, role: SampleRole, number: signal.Signals
) -> None:
    with holding(path, role) as swarm:
        check_clean_end(path.point, number)
        assert swarm.wait() == 1
    path.gateway.wait_for("no channels", lambda status: not status["channels"])
    role.wait_for("nothing held", lambda status: status["held"] == 0)
    path.start_point()
    path.wait_connected()
    check_unharmed(path)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_role_and_the_clients_while_polls_are_held(
    path: GatedPath, role: SampleRole, number: signal.Signals
) -> None:
    with holding(path, role, "--messages-per-client=0", "--grace-s=0.2") as swarm:
        check_clean_end(swarm, number)
        report = json.loads(swarm.output().splitlines()[-1])
        assert report["stopped"] == HELD
    with holding(path, role) as swarm:
        check_clean_end(role, number)
        assert swarm.wait() == 1
    check_unharmed(path)


def test_a_gateway_with_nothing_under_way_does_not_use_up_its_grace(path: GatedPath) -> None:
    path.have_long_grace()
    path.wait_connected()
    check_clean_end(path.gateway, signal.SIGTERM)


def test_an_answer_that_can_end_within_the_grace_does(path: GatedPath, role: SampleRole) -> None:
    path.have_long_grace()
    path.wait_connected()
    with path.connected() as connection:
        connection.sendall(
            b"POST /role/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhe"
        )
        role.wait_for("the request", lambda status: status["requests"]["echo"] == 1)
        path.gateway.signal(signal.SIGTERM)
        path.gateway.wait_for("the stop", lambda status: status["state"] == "draining")
        connection.sendall(b"llo")
        answer = read_past(connection, b"}")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"length":5' in answer
    assert path.gateway.wait() == 0


def test_the_connection_point_reconnects_to_a_gateway_that_was_killed(path: GatedPath) -> None:
    pid = path.point.pid
    for _ in range(3):
        path.gateway.kill()
        path.point.wait_for("it notices", lambda status: status["instances"][0]["channels_up"] == 0)
        path.start_gateway()
        path.wait_connected()
        check_unharmed(path)
    assert path.point.pid == pid
    assert path.point.is_running()


def test_requests_wait_for_a_connection_point_that_comes_back(path: GatedPath) -> None:
    path.point.kill()
    path.gateway.wait_for("no links", lambda status: links_up(status) == 0)
    fetch = path.start_curl("/files/small")
    path.gateway.wait_for(
        "a waiting request",
        lambda status: sum(shard["exchanges_open"] for shard in status["shards"]) == 1,
    )
    path.start_point()
    answer = fetch.finish()
    assert (answer.status, answer.text) == (200, "a small file\n")


def test_a_gateway_that_is_killed_breaks_answers(path: GatedPath) -> None:
    fetch = path.start_curl("/files/sparse", "--no-buffer", "--limit-rate", "10M")
    wait_until("some of the answer", lambda: fetch.body.stat().st_size > 0 or None)
    path.gateway.kill()
    assert fetch.finish().exit_status in (PARTIAL_FILE, RECEIVE_ERROR)
    # The next process does not know the channels of the first, which ends them.
    path.start_gateway()
    path.point.wait_for("nothing open", lambda status: status["exchanges"]["open"] == 0)


def test_a_connection_point_that_is_killed_breaks_answers(path: GatedPath) -> None:
    with path.connected(receive_bytes=65_536) as connection:
        connection.sendall(b"GET /files/sparse HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = len(read_past(connection, b"\r\n\r\n"))
        path.point.kill()
        path.start_point()
        received += len(read_to_broken_end(connection))
    assert received < 256 << 20
    path.gateway.wait_for("a broken answer", lambda status: status["broken_answers_total"] == 1)
