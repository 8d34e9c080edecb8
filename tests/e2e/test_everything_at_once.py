"""Held streams, clients that never read, and bulk both ways, at the same time."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from cmgmux.demo.push import push_to_each
from tests.e2e.path import GatedPath, mapping, read_past
from tests.e2e.processes import DEADLINE_S, wait_until
from tests.e2e.roles import MEBIBYTE, SampleRole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLIENTS: Final = 5_000
SLEEPERS: Final = 2_000
DOWNLOAD_BYTES: Final = 32 * MEBIBYTE
UPLOAD_BYTES: Final = 100 * MEBIBYTE
SLEEPERS_REQUEST: Final = b"GET /role/bytes?n=4194304 HTTP/1.1\r\nHost: localhost\r\n\r\n"
MAX_BYTES_PER_SLEEPER: Final = 256 * 1024
"""At either end: what waits on the stream (36 or 64 KiB), a gathered piece of 64 KiB in a buffer of
up to twice that, as much again encrypted by TLS, and the connection."""


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Allow this process a descriptor for each sleeper."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
def test_nobody_waits_for_sleepers_or_for_bulk(tmp_path: Path, pki: Path, curl: str) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(os.urandom(UPLOAD_BYTES))
    with ExitStack() as stack:
        role = stack.enter_context(SampleRole(tmp_path, "--max-held=10000"))
        mappings = [mapping("/role", role.address, hold=True)]
        sizes = {"shards": 2}
        path = GatedPath(tmp_path, pki, curl, mappings, gateway=sizes, point=sizes)
        stack.enter_context(path.running())
        swarm = path.swarm(
            "/role/notifications",
            f"--clients={CLIENTS}",
            "--connect-rate-per-s=1000",
            "--kind=long-poll",
            "--kind=sse",
            "--kind=websocket",
            # The deadline of every stream, from its beginning.
            f"--response-timeout-s={4 * DEADLINE_S}",
        )
        swarm.wait_holding(CLIENTS)
        role.wait_for("all held", lambda status: status["held"] == CLIENTS)
        ends = (path.gateway, path.point)
        before = [end.memory_bytes() for end in ends]
        for _ in range(SLEEPERS):
            sleeper = stack.enter_context(path.connected(receive_bytes=65_536))
            sleeper.sendall(SLEEPERS_REQUEST)
            read_past(sleeper, b"\r\n\r\n")

        chunked = ("-X", "POST", "-H", "Transfer-Encoding: chunked")
        # So slow that both are still under way when all have been notified.
        patient = ("--max-time", str(int(2 * DEADLINE_S)))
        slow = ("--limit-rate", "7M", "--upload-file", str(upload))
        uploading = path.start_curl("/role/echo", *chunked, *patient, *slow)
        path.point.wait_for(
            "an upload under way",
            lambda status: status["exchanges"]["request_bytes"] > 4 * MEBIBYTE,
        )
        downloading = path.start_curl(
            f"/role/bytes?n={DOWNLOAD_BYTES}", *patient, "--no-buffer", "--limit-rate", "2M"
        )
        wait_until(
            "a download under way", lambda: downloading.body.stat().st_size > MEBIBYTE or None
        )

        assert push_to_each(role.status()["address"], range(CLIENTS)) == CLIENTS
        assert swarm.wait() == 0
        report = json.loads(swarm.output().splitlines()[-1])
        assert (report["answered"], report["wrong"], report["failed"]) == (CLIENTS, 0, 0)
        assert set(report["kinds"]) == {"long-poll", "sse", "websocket"}

        assert uploading.is_under_way(), "the held streams did not wait for the upload"
        assert downloading.is_under_way(), "nor for the download"
        path.point.wait_for(
            "none but sleepers and bulk",
            lambda status: status["exchanges"]["open"] == SLEEPERS + 2,
        )
        growth = [
            end.memory_bytes("VmHWM") - start for end, start in zip(ends, before, strict=True)
        ]
        assert max(growth) < SLEEPERS * MAX_BYTES_PER_SLEEPER, growth

        downloaded = downloading.finish()
        assert (downloaded.exit_status, downloaded.body.stat().st_size) == (0, DOWNLOAD_BYTES)
        uploaded = uploading.finish()
        assert uploaded.exit_status == 0, uploaded.complaint
        digest = hashlib.sha256(upload.read_bytes()).hexdigest()
        assert json.loads(uploaded.text) == {
            "method": "POST",
            "length": UPLOAD_BYTES,
            "sha256": digest,
        }
