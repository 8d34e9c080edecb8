"""Roles that fail: the client learns who is at fault, and never takes a broken answer for whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.curl import PARTIAL_FILE, RECEIVE_ERROR
from tests.e2e.path import read_past, read_to_broken_end
from tests.e2e.processes import DEADLINE_S, wait_until
from tests.e2e.refusals import check_refusal, check_unharmed, counted

if TYPE_CHECKING:
    from tests.e2e.path import GatedPath
    from tests.e2e.roles import OddRole, OddRoles, SampleRole


def test_a_role_that_is_down_gets_502(path: GatedPath) -> None:
    with counted(path, "role-refused", at="connection-point"):
        answer = path.curl("/nobody/x")
        check_refusal(
            answer, 502, "role-refused", error="connection_refused", origin="connection-point"
        )


def test_a_silent_role_gets_504_and_is_left(path: GatedPath, odd: OddRoles) -> None:
    with counted(path, "role-silent", at="connection-point"):
        answer = path.curl("/silent/x")
        check_refusal(
            answer,
            504,
            "role-silent",
            "within 1 s",
            error="http_response_timeout",
            origin="connection-point",
        )
    odd.silent.ends.get(timeout=DEADLINE_S)


def test_a_role_that_closes_before_its_answer_gets_502(path: GatedPath) -> None:
    with counted(path, "role-broke-off", at="connection-point"):
        answer = path.curl("/closing/x")
        check_refusal(
            answer,
            502,
            "role-broke-off",
            error="http_response_incomplete",
            origin="connection-point",
        )


def test_a_role_that_does_not_speak_http_gets_502(path: GatedPath) -> None:
    with counted(path, "role-bad-answer", at="connection-point"):
        answer = path.curl("/nonsense/x")
        check_refusal(
            answer, 502, "role-bad-answer", error="http_protocol_error", origin="connection-point"
        )


@pytest.mark.parametrize("name", ["half", "chunks"])
def test_a_role_that_dies_in_mid_body_gives_a_broken_answer(
    path: GatedPath, odd: OddRoles, name: str
) -> None:
    role: OddRole = getattr(odd, name)
    broken = path.gateway.status()["broken_answers_total"]
    with counted(path, "role-broke-off"):
        fetch = path.start_curl(f"/{name}/x", "--no-buffer")
        wait_until("the first half", lambda: fetch.body.read_bytes() == b"hello" or None)
        role.release.release()
        answer = fetch.finish()
    assert answer.exit_status in (PARTIAL_FILE, RECEIVE_ERROR)
    assert answer.status == 200
    path.gateway.wait_for(
        "a broken answer", lambda status: status["broken_answers_total"] == broken + 1
    )
    path.point.wait_for("it is counted there, too", lambda status: status["exchanges"]["broken"])


@pytest.mark.parametrize("name", ["half", "chunks"])
def test_a_broken_answer_has_no_end_that_looks_clean(
    path: GatedPath, odd: OddRoles, name: str
) -> None:
    role: OddRole = getattr(odd, name)
    with path.connected() as connection:
        connection.sendall(f"GET /{name}/x HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = read_past(connection, b"hello")
        role.release.release()
        received += read_to_broken_end(connection)
    assert not received.endswith(b"0\r\n\r\n")


def test_a_role_that_dies_at_once_is_reported_or_seen(path: GatedPath, odd: OddRoles) -> None:
    for role in (odd.half, odd.chunks):
        role.release.release()
    for name in ("half", "chunks"):
        answer = path.curl(f"/{name}/x")
        # What the role said last may or may not have left the connection point when it dies.
        if answer.exit_status == 0:
            check_refusal(answer, 502, "role-broke-off", error="http_response_incomplete")
        else:
            assert answer.exit_status in (PARTIAL_FILE, RECEIVE_ERROR)


def abandoned(path: GatedPath) -> int:
    """How many exchanges the connection point saw abandoned."""
    count: int = path.point.status()["exchanges"]["abandoned"]
    return count


@pytest.mark.parametrize(
    "request_", [b"GET /held/x HTTP/1.1\r\n", b"POST /held/x HTTP/1.1\r\nContent-Length: 9\r\n"]
)
def test_a_client_that_leaves_a_held_request_or_an_upload_is_gone_for_its_role_too(
    path: GatedPath, odd: OddRoles, request_: bytes
) -> None:
    before = abandoned(path)
    with path.connected() as connection:
        connection.sendall(request_ + b"Host: localhost\r\n\r\nsome")
        assert odd.silent.heads.get(timeout=DEADLINE_S).startswith(request_.split()[0] + b" /x ")
        assert odd.silent.ends.empty()
    odd.silent.ends.get(timeout=DEADLINE_S)
    path.point.wait_for("one more abandoned", lambda _: abandoned(path) == before + 1)
    check_unharmed(path)


def test_a_client_that_leaves_a_poll_frees_its_place_at_the_role(
    path: GatedPath, role: SampleRole
) -> None:
    with path.connected() as connection:
        connection.sendall(
            b"GET /role/notifications?client=leaver HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        role.wait_for("a held poll", lambda status: status["held"] == 1)
    role.wait_for("no held poll", lambda status: status["held"] == 0)


def test_a_client_that_leaves_while_an_answer_pauses_is_gone_for_its_role_too(
    path: GatedPath, odd: OddRoles
) -> None:
    before = abandoned(path)
    with path.connected() as connection:
        connection.sendall(b"GET /pausing-held/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_past(connection, b"hello")
        assert odd.pausing.ends.empty()
    odd.pausing.ends.get(timeout=DEADLINE_S)
    path.point.wait_for("one more abandoned", lambda _: abandoned(path) == before + 1)


def test_a_role_that_stops_in_mid_answer_gives_a_broken_answer(
    path: GatedPath, odd: OddRoles
) -> None:
    with counted(path, "role-silent"), path.connected() as connection:
        connection.sendall(b"GET /pausing/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_to_broken_end(connection).endswith(b"\r\n\r\nhello")
    odd.pausing.ends.get(timeout=DEADLINE_S)


def test_a_client_that_leaves_in_mid_answer_ends_the_answer(path: GatedPath) -> None:
    before = abandoned(path)
    with path.connected(receive_bytes=65_536) as connection:
        connection.sendall(b"GET /files/sparse HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_past(connection, b"\r\n\r\n")
    path.point.wait_for("one more abandoned", lambda _: abandoned(path) == before + 1)
    check_unharmed(path)
