"""A client that does not read costs a bounded amount, and others nothing."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tests.e2e.path import GatedPath, mapping, read_count, read_past, read_to_broken_end
from tests.e2e.processes import wait_until
from tests.e2e.roles import MEBIBYTE, OddRole
from tests.e2e.sockets import unread_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.roles import Files, Nginx, SampleRole, Visit

MAX_GROWTH_BYTES: Final = 32 * MEBIBYTE
FAST_BYTES: Final = 64 * MEBIBYTE
KIBIBYTE: Final = 1 << 10
SEGMENT_BYTES: Final = 64 * KIBIBYTE
"""What the kernel takes at a time on loopback, beyond twice the limit that a connection has."""
READER_BYTES_PER_S: Final = 250_000
BIG_REQUEST: Final = b"GET /files/sparse HTTP/1.1\r\nHost: localhost\r\n\r\n"


def settled(look: Callable[[], int]) -> int:
    """Wait until `look` gives the same number twice, which is not 0."""
    seen = 0

    def look_again() -> int | None:
        nonlocal seen
        before, seen = seen, look()
        return seen if seen == before != 0 else None

    return wait_until("nothing moves any more", look_again)


def test_memory_stays_flat_while_a_reader_sleeps_and_others_go_on(
    tmp_path: Path, pki: Path, curl: str, nginx: Nginx, role: SampleRole, files: Files
) -> None:
    mappings = [mapping("/files", nginx.address), mapping("/role", role.address)]
    upload = tmp_path / "upload"
    upload.write_bytes(os.urandom(100 * MEBIBYTE))
    # One shard each, so that the sleeper shares channel and threads with the others.
    one = {"shards": 1}
    with GatedPath(tmp_path, pki, curl, mappings, gateway=one, point=one).running() as path:
        ends = (path.gateway, path.point)
        before = [end.memory_bytes() for end in ends]
        with path.connected(receive_bytes=65_536) as sleeper:
            sleeper.sendall(BIG_REQUEST)
            read_past(sleeper, b"\r\n\r\n")

            answer = path.curl("/files/big")
            assert (answer.exit_status, answer.status) == (0, 200)
            assert hashlib.sha256(answer.body.read_bytes()).hexdigest() == files.sha256
            answer = path.curl("/role/echo", "-X", "POST", "--upload-file", str(upload))
            assert answer.exit_status == 0, answer.complaint
            digest = hashlib.sha256(upload.read_bytes()).hexdigest()
            assert json.loads(answer.text)["sha256"] == digest

            growth = [
                end.memory_bytes("VmHWM") - start for end, start in zip(ends, before, strict=True)
            ]
            assert max(growth) < MAX_GROWTH_BYTES, growth
            exchanges = path.point.wait_for(
                "the sleeper's alone", lambda status: status["exchanges"]["open"] == 1
            )["exchanges"]
            asleep = exchanges["response_bytes"] - 32 * MEBIBYTE
            assert 0 < asleep < MAX_GROWTH_BYTES, "the role's answer waits at the role"
        path.point.wait_for("nothing open", lambda status: status["exchanges"]["open"] == 0)
        (channel,) = path.gateway.wait_for(
            "nothing buffered",
            lambda status: all(
                (channel["ring_bytes"], channel["queued_bytes"], channel["handles"]) == (0, 0, 1)
                for channel in status["channels"]
            ),
        )["channels"]
        assert channel["streams"] == 1, "the control stream"


def test_the_kernel_holds_little_of_an_answer_that_a_fast_reader_takes_no_more(
    tmp_path: Path, pki: Path, curl: str, nginx: Nginx
) -> None:
    mappings = [mapping("/files", nginx.address)]
    with GatedPath(tmp_path, pki, curl, mappings).running() as path, path.connected() as reader:
        reader.sendall(BIG_REQUEST)
        read_count(reader, FAST_BYTES)
        unread = settled(lambda: max(unread_bytes(remote=nginx.address)))
        assert unread < 2 * 64 * KIBIBYTE + SEGMENT_BYTES


def test_the_kernel_holds_little_of_a_request_that_a_fast_role_takes_no_more(
    tmp_path: Path, pki: Path, curl: str
) -> None:
    def stop_in_mid_request(visit: Visit) -> None:
        visit.hear(FAST_BYTES)
        visit.wait_until_released()

    with OddRole(stop_in_mid_request) as role:
        mappings = [mapping("/role", role.address)]
        with GatedPath(tmp_path, pki, curl, mappings).running() as path, path.connected() as writer:
            length = b"Content-Length: 100000000"
            writer.sendall(b"POST /role HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % length)
            writer.setblocking(False)

            def send_and_look() -> int:
                with suppress(ssl.SSLWantWriteError):
                    while writer.send(bytes(16_384)):
                        pass
                return max(unread_bytes(local=path.clients))

            assert settled(send_and_look) < 2 * 128 * KIBIBYTE + SEGMENT_BYTES
            role.release.release()


def test_a_reader_that_sleeps_too_long_is_dropped(
    tmp_path: Path, pki: Path, curl: str, nginx: Nginx
) -> None:
    mappings = [mapping("/files", nginx.address)]
    settings = {"stall_timeout_s": 0.5}
    with (
        GatedPath(tmp_path, pki, curl, mappings, gateway=settings).running() as path,
        path.connected(receive_bytes=65_536) as sleeper,
    ):
        sleeper.sendall(BIG_REQUEST)
        read_past(sleeper, b"\r\n\r\n")
        path.gateway.wait_for(
            "the exchange is over",
            lambda status: sum(shard["exchanges_open"] for shard in status["shards"]) == 0,
        )
        path.point.wait_for("nothing open", lambda status: status["exchanges"]["open"] == 0)
        read_to_broken_end(sleeper)


def test_a_slow_reader_that_does_read_is_kept(
    tmp_path: Path, pki: Path, curl: str, nginx: Nginx
) -> None:
    mappings = [mapping("/files", nginx.address)]
    settings = {"stall_timeout_s": 3.0}
    with (
        GatedPath(tmp_path, pki, curl, mappings, gateway=settings).running() as path,
        path.connected(receive_bytes=65_536) as reader,
    ):
        wanted = 2_500_000
        reader.sendall(BIG_REQUEST.replace(b"\r\n\r\n", b"\r\nRange: bytes=0-2499999\r\n\r\n"))
        answer = read_past(reader, b"\r\n\r\n")
        missing = wanted - len(answer.partition(b"\r\n\r\n")[2])
        while missing > 0:
            piece = reader.recv(16_384)
            assert piece, f"the connection ended with {missing} bytes missing"
            missing -= len(piece)
            # The pace of the client, which is what is tested: several times the timeout in all.
            time.sleep(len(piece) / READER_BYTES_PER_S)
        assert missing == 0
