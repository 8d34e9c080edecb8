"""A client that does not read costs a bounded amount, and others nothing."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Final

from tests.e2e.path import GatedPath, mapping, read_past, read_to_broken_end
from tests.e2e.roles import MEBIBYTE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.roles import Files, Nginx, SampleRole

MAX_GROWTH_BYTES: Final = 32 * MEBIBYTE
READER_BYTES_PER_S: Final = 500_000
BIG_REQUEST: Final = b"GET /files/sparse HTTP/1.1\r\nHost: localhost\r\n\r\n"


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
            exchanges = path.point.status()["exchanges"]
            assert exchanges["open"] == 1
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
    settings = {"stall_timeout_s": 1.5}
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
