"""Links that are cut: what is under way goes on over the next one, and nobody takes it over."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from typing import TYPE_CHECKING, Any, Final

import pytest

from cmgmux.demo.push import push_to_each
from tests.e2e.path import GatedPath, links_up, mapping, read_past
from tests.e2e.played import dialled, next_frame, resume
from tests.e2e.processes import free_address, wait_until
from tests.e2e.refusals import check_refusal, check_unharmed
from tests.e2e.relay import Relay
from tests.e2e.roles import MEBIBYTE, SampleRole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.roles import Files, Nginx

CLIENTS: Final = 200
SHARDS: Final = 2
LAST_EPOCH: Final = 0xFFFFFFFF
UNKNOWN_CHANNEL: Final = 1
WRONG_INSTANCE: Final = 2


@pytest.fixture
def role(tmp_path: Path) -> Iterator[SampleRole]:
    """A sample role of its own."""
    with SampleRole(tmp_path) as role:
        yield role


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A way to the gateway that can be cut; it leads nowhere until a path uses it."""
    with Relay() as relay:
        yield relay


@pytest.fixture
def path(
    tmp_path: Path, pki: Path, curl: str, nginx: Nginx, role: SampleRole, relay: Relay
) -> Iterator[GatedPath]:
    """A path whose channels lead through the relay."""
    mappings = [
        mapping("/files", nginx.address),
        mapping("/role", role.address),
        mapping("/notifications", f"{role.address}/notifications", hold=True),
    ]
    path = GatedPath(tmp_path, pki, curl, mappings)
    relay.target = path.channels
    path.point_settings["instances"][0]["address"] = relay.address
    with path.running():
        yield path


def channels(path: GatedPath) -> list[dict[str, Any]]:
    """The gateway's channels."""
    found: list[dict[str, Any]] = path.gateway.status()["channels"]
    return found


def wait_resumed(path: GatedPath, resumes: int) -> None:
    """Wait until every channel has a link again, after that many moves."""
    path.gateway.wait_for(
        "all channels to have moved",
        lambda status: (
            links_up(status) == SHARDS
            and all(channel["resumes"] >= resumes for channel in status["channels"])
        ),
    )


def test_held_polls_outlive_their_links_and_are_told(
    path: GatedPath, relay: Relay, role: SampleRole
) -> None:
    swarm = path.swarm("/notifications", f"--clients={CLIENTS}")
    swarm.wait_holding(CLIENTS)
    before = {channel["channel_id"] for channel in channels(path)}
    for resumes in range(1, 6):
        relay.cut()
        wait_resumed(path, resumes)
    assert {channel["channel_id"] for channel in channels(path)} == before
    role.wait_for("still held", lambda status: status["held"] == CLIENTS)
    assert push_to_each(role.address, range(CLIENTS)) == CLIENTS
    assert swarm.wait() == 0
    report = json.loads(swarm.output().splitlines()[-1])
    assert (report["answered"], report["failed"], report["wrong"]) == (CLIENTS, 0, 0)
    assert path.gateway.status()["refusals"] == {}


def test_a_file_and_an_upload_arrive_whole_over_links_that_are_cut(
    path: GatedPath, relay: Relay, files: Files, tmp_path: Path
) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(os.urandom(32 * MEBIBYTE))
    down = path.start_curl("/files/big", "--limit-rate", "16M")
    up = path.start_curl(
        "/role/echo", "--limit-rate", "16M", "--header", "Expect:", "--data-binary", f"@{upload}"
    )
    wait_until("some of the file", lambda: down.body.stat().st_size > MEBIBYTE or None)
    for resumes in range(1, 9):
        relay.cut()
        wait_resumed(path, resumes)
    assert down.finish().exit_status == 0
    assert digest(down.body) == digest(files.folder / "big")
    answer = up.finish()
    assert (answer.exit_status, answer.status) == (0, 200)
    echoed = json.loads(answer.text)
    assert (echoed["length"], echoed["sha256"]) == (32 * MEBIBYTE, digest(upload))
    check_unharmed(path)


def test_a_gateway_that_stood_still_for_too_long_goes_on_where_it_was(
    path: GatedPath, files: Files
) -> None:
    down = path.start_curl("/files/big", "--limit-rate", "16M")
    wait_until("some of the file", lambda: down.body.stat().st_size > MEBIBYTE or None)
    before = {channel["channel_id"] for channel in channels(path)}
    os.kill(path.gateway.pid, signal.SIGSTOP)
    try:
        path.point.wait_for("the link to be given up", lambda status: status["links_lost"])
    finally:
        os.kill(path.gateway.pid, signal.SIGCONT)
    assert down.finish().exit_status == 0
    assert digest(down.body) == digest(files.folder / "big")
    assert {channel["channel_id"] for channel in channels(path)} == before
    assert sum(channel["resumes"] for channel in channels(path)) > 0
    check_unharmed(path)


# R-HELLO-12
def test_the_first_channel_to_a_new_run_of_an_instance_ends_those_to_the_run_before(
    path: GatedPath, relay: Relay
) -> None:
    path.gateway_settings |= {
        "listen": free_address(),
        "channel_listen": free_address(),
        "admin_socket": "new.sock",
    }
    new = path.start_gateway("new-gateway")
    run = new.status()["boot_id"]
    relay.target = path.gateway_settings["channel_listen"]
    # The former run lives, and the other link to it as well.
    relay.cut(oldest=1)

    def is_new(status: dict[str, Any]) -> bool:
        shown = status["instances"][0]["channels"]
        return [channel.get("instance_boot_id") for channel in shown] == [run] * SHARDS

    path.point.wait_for("all channels to lead to the new run", is_new)
    path.gateway.wait_for(
        "the former run to be told",
        lambda status: status["channel_ends"] == {"closed_by_peer_replaced": 1},
    )


def digest(file: Path) -> str:
    """Hash a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def test_what_cannot_wait_for_a_link_fails_with_the_reason_and_what_is_held_waits_on(
    path: GatedPath, relay: Relay, role: SampleRole
) -> None:
    swarm = path.swarm("/notifications", "--clients=1")
    swarm.wait_holding(1)
    with path.connected() as client:
        client.sendall(
            b"POST /role/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhe"
        )
        role.wait_for("the request", lambda status: status["requests"]["echo"] == 1)
        with relay.closed():
            path.gateway.wait_for("no links", lambda status: links_up(status) == 0)
            assert path.gateway.status()["state"] == "waiting for links"
            path.point.wait_for(
                "the cause to be shown",
                lambda status: is_resuming(status["instances"][0]["channels"][0]),
            )
            head = read_past(client, b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 502 ")
            assert b"its link was lost" in head
            refused = path.curl("/files/small")
            check_refusal(
                refused,
                503,
                "no-connection-point",
                "lost its link",
                error="destination_unavailable",
            )
        wait_resumed(path, 1)
    assert push_to_each(role.address, [0]) == 1
    assert swarm.wait() == 0
    check_unharmed(path)


def is_resuming(channel: dict[str, Any]) -> bool:
    """Whether a connection point's channel waits for a link and says why it has none."""
    cause = str(channel["last_error"])
    return channel["state"] == "resuming" and "the connection" in cause


def test_j3_a_channel_is_not_resumed_without_its_secret(path: GatedPath) -> None:
    before = channels(path)
    known = bytes.fromhex(before[0]["channel_id"])
    with dialled(path.channels, path.pki) as first:
        first.sendall(resume(known, LAST_EPOCH, os.urandom(32)))
        assert next_frame(first, in_handshake=True).fields["code"] == UNKNOWN_CHANNEL
    with dialled(path.channels, path.pki) as second:
        second.sendall(resume(b"\x00" + os.urandom(15), LAST_EPOCH, os.urandom(32)))
        assert next_frame(second, in_handshake=True).fields["code"] == UNKNOWN_CHANNEL
    path.gateway.wait_for(
        "both are counted", lambda status: status["links"]["refused"].get("unknown_channel") == 2
    )
    assert [channel["resumes"] for channel in channels(path)] == [0] * SHARDS
    check_unharmed(path)


def test_j9_a_channel_of_another_instance_is_told_so(path: GatedPath) -> None:
    with dialled(path.channels, path.pki) as stranger:
        stranger.sendall(resume(b"\x03" + os.urandom(15), LAST_EPOCH, os.urandom(32)))
        assert next_frame(stranger, in_handshake=True).fields["code"] == WRONG_INSTANCE
    record = path.gateway.wait_for_record("link refused", "the channel belongs to instance 3")
    assert record["reason"] == "wrong_instance"
    check_unharmed(path)


def test_j11_a_flood_of_resumes_is_an_alarm_and_keeps_no_proper_one_out(
    path: GatedPath, relay: Relay
) -> None:
    for _ in range(12):
        with dialled(path.channels, path.pki) as stranger:
            stranger.sendall(resume(b"\x00" + os.urandom(15), LAST_EPOCH, os.urandom(32)))
            assert next_frame(stranger, in_handshake=True).fields["code"] == UNKNOWN_CHANNEL
    message = "a connection point keeps asking for channels that are not its own"
    record = path.gateway.wait_for_record(message)
    assert record["level"] == "error"
    relay.cut()
    wait_resumed(path, 1)
    check_unharmed(path)


def test_j14_a_process_that_has_started_anew_ends_the_channels_of_its_former_run(
    path: GatedPath, relay: Relay
) -> None:
    del relay
    before = {channel["channel_id"] for channel in channels(path)}
    path.gateway.kill()
    path.start_gateway()
    path.wait_connected()
    path.point.wait_for_record("channel has ended", "no such channel")
    between = {channel["channel_id"] for channel in channels(path)}
    assert not before & between
    path.point.kill()
    path.start_point()
    path.wait_connected()
    path.gateway.wait_for_record("channel has ended", "the connection point has started anew")
    assert not between & {channel["channel_id"] for channel in channels(path)}
    check_unharmed(path)
