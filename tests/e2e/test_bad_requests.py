"""Requests that the gateway refuses: each clearly, counted, and without harm to the next one."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tests.e2e.path import GatedPath, mapping, read_all, read_past
from tests.e2e.processes import DEADLINE_S, split
from tests.e2e.refusals import check_raw_refusal, check_refusal, check_unharmed, counted

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.roles import Nginx, OddRoles

HOST_LINE = b"Host: localhost\r\n"


def test_an_unmapped_path_gets_404(path: GatedPath) -> None:
    with counted(path, "no-mapping"):
        answer = path.curl("/unmapped/x?q=1")
        check_refusal(answer, 404, "no-mapping", "/unmapped/x", error="destination_not_found")


def test_a_prefix_matches_whole_segments_only(path: GatedPath) -> None:
    with counted(path, "no-mapping"):
        assert path.curl("/filesystem").status == 404


def test_a_path_that_climbs_out_of_its_mapping_gets_404(path: GatedPath) -> None:
    with counted(path, "no-mapping"):
        assert path.curl("/files/../unmapped", "--path-as-is").status == 404


def test_a_wrong_method_gets_405_and_the_right_ones(path: GatedPath) -> None:
    with counted(path, "method-not-allowed"):
        answer = path.curl("/files/small", "-X", "DELETE")
        check_refusal(answer, 405, "method-not-allowed", error="http_request_error")
        allowed = "GET, HEAD, POST, PROPFIND, CCM_POST, BITS_POST, OPTIONS"
        assert answer.fields["allow"] == allowed


def test_a_declared_body_over_the_limit_gets_413(path: GatedPath) -> None:
    with counted(path, "body-too-large"):
        answer = path.curl("/limited", "--data", "x" * 1_001)
        check_refusal(answer, 413, "body-too-large", "1000 bytes", error="http_request_error")


def test_a_chunked_body_over_the_limit_gets_413(path: GatedPath, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(b"x" * 1_001)
    with counted(path, "body-too-large"):
        options = ["-X", "POST", "--header", "Transfer-Encoding: chunked"]
        answer = path.curl("/limited", *options, "--upload-file", str(upload))
        check_refusal(answer, 413, "body-too-large", error="http_request_error")


def test_a_client_that_reads_only_when_it_has_sent_all_gets_its_refusal(path: GatedPath) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    head = b"POST /limited HTTP/1.1\r\n" + HOST_LINE + b"Transfer-Encoding: chunked\r\n\r\n"
    with counted(path, "body-too-large"):
        answer = path.say(head + chunk * 256 + b"0\r\n\r\n")
        check_raw_refusal(answer, 413, "body-too-large", error="http_request_error")


@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
def test_a_body_at_the_limit_passes(path: GatedPath, tmp_path: Path, framing: str) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(b"x" * 1_000)
    options = ["--header", "Transfer-Encoding: chunked"] if framing == "chunked" else []
    answer = path.curl("/limited", "-X", "POST", *options, "--upload-file", str(upload))
    assert (answer.status, '"length":1000' in answer.text) == (200, True)


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET /files/small HTTP/1.1\r\n\r\n",
        b"GET /files/small HTTP/1.1\r\n" + HOST_LINE * 2 + b"\r\n",
        b"GET /files/small HTTP/1.1\r\n" + HOST_LINE + b"a b: c\r\n\r\n",
        b"GET /files/small HTTP/1.1\r\n" + HOST_LINE + b"a: b\r\n folded\r\n\r\n",
        b"GET /files/small HTTP/1.1\r\n" + HOST_LINE + b"a : b\r\n\r\n",
        b"GET /files/small HTTP/1.1\r\n" + HOST_LINE + b"a: \x00\r\n\r\n",
        b"GET /files/small HTTP/1.1\nHost: localhost\n\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=[
        "no-request-line",
        "no-host",
        "two-hosts",
        "space-in-name",
        "folded-line",
        "space-before-colon",
        "control-character",
        "bare-line-feeds",
        "tls-in-tls",
    ],
)
def test_a_malformed_head_gets_400(path: GatedPath, head: bytes) -> None:
    with counted(path, "bad-head"):
        check_raw_refusal(path.say(head), 400, "bad-head", error="http_request_error")


@pytest.mark.parametrize(
    "target",
    ["/files/../../small", "/files/%00", "/files/%2e%2e%2fsmall", "/files/\\small", "/files/%zz"],
)
def test_a_target_with_two_meanings_gets_400(path: GatedPath, target: str) -> None:
    with counted(path, "bad-target"):
        head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        check_raw_refusal(path.say(head), 400, "bad-target", error="http_request_error")


@pytest.mark.parametrize(
    "fields",
    [b"a: " + b"b" * 20_000 + b"\r\n", b"a: b\r\n" * 200],
    ids=["one-long-field", "many-fields"],
)
def test_an_oversized_head_gets_431(path: GatedPath, fields: bytes) -> None:
    with counted(path, "head-too-large"):
        head = b"GET /files/small HTTP/1.1\r\n" + HOST_LINE + fields + b"\r\n"
        check_raw_refusal(path.say(head), 431, "head-too-large", error="http_request_error")


def test_an_oversized_target_gets_414(path: GatedPath) -> None:
    with counted(path, "target-too-long"):
        head = b"GET /files/" + b"x" * 15_000 + b" HTTP/1.1\r\n" + HOST_LINE + b"\r\n"
        check_raw_refusal(path.say(head), 414, "target-too-long", error="http_request_error")


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: +5\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
    ],
)
def test_ambiguous_framing_gets_400_and_never_reaches_the_role(
    path: GatedPath, odd: OddRoles, fields: bytes
) -> None:
    smuggled = b"GET /open/smuggled HTTP/1.1\r\n" + HOST_LINE + b"\r\n"
    with counted(path, "ambiguous-framing"):
        head = b"POST /open HTTP/1.1\r\n" + HOST_LINE + fields + b"\r\n"
        answer = path.say(head + b"0\r\n\r\n" + smuggled)
        check_raw_refusal(answer, 400, "ambiguous-framing", error="http_request_error")
    assert odd.showing.heads.empty()


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0"])
def test_another_version_of_http_gets_505(path: GatedPath, version: str) -> None:
    with counted(path, "version-not-supported"):
        head = f"GET /files/small {version}\r\nHost: localhost\r\n\r\n".encode()
        answer = path.say(head)
        check_raw_refusal(answer, 505, "version-not-supported", error="http_request_error")


def test_a_malformed_chunk_gets_400(path: GatedPath) -> None:
    with counted(path, "bad-body"):
        head = b"POST /role/echo HTTP/1.1\r\n" + HOST_LINE + b"Transfer-Encoding: chunked\r\n\r\n"
        answer = path.say(head + b"5\r\nhello\r\nnonsense\r\n")
        check_raw_refusal(answer, 400, "bad-body", error="http_request_error")


def test_an_impossible_expectation_gets_417(path: GatedPath) -> None:
    with counted(path, "expectation-failed"):
        head = b"GET /files/small HTTP/1.1\r\n" + HOST_LINE + b"Expect: miracles\r\n\r\n"
        check_raw_refusal(path.say(head), 417, "expectation-failed", error="http_request_error")


def test_a_client_that_speaks_no_tls_is_counted_and_harms_nothing(path: GatedPath) -> None:
    def failures() -> int:
        shards = path.gateway.status()["shards"]
        return sum(shard["tls_failures_total"] for shard in shards)

    before = failures()
    with socket.create_connection(split(path.clients), timeout=DEADLINE_S) as connection:
        connection.sendall(b"GET /files/small HTTP/1.1\r\n" + HOST_LINE + b"\r\n")
        read_all(connection)
    path.gateway.wait_for("a failed handshake", lambda _: failures() > before)
    check_unharmed(path)


def test_a_refused_request_leaves_its_connection_usable(path: GatedPath) -> None:
    with path.connected() as connection:
        for _ in range(2):
            connection.sendall(b"GET /unmapped HTTP/1.1\r\n" + HOST_LINE + b"\r\n")
            assert read_past(connection, b"mapping.\n").startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"GET /files/small HTTP/1.1\r\n" + HOST_LINE + b"\r\n")
        read_past(connection, b"a small file\n")


def test_slow_heads_and_bodies_get_408(
    tmp_path: Path, pki: Path, curl: str, nginx: Nginx, odd: OddRoles
) -> None:
    mappings = [mapping("/files", nginx.address), mapping("/silent", odd.silent.address)]
    settings = {"head_timeout_s": 2.0, "stall_timeout_s": 2.0}
    with GatedPath(tmp_path, pki, curl, mappings, gateway=settings).running() as path:
        with counted(path, "head-timeout"):
            answer = path.say(b"GET /files/small HTTP/1.1\r\n")
            check_raw_refusal(answer, 408, "head-timeout", error="http_request_error")
        with counted(path, "body-timeout"):
            head = b"POST /silent HTTP/1.1\r\n" + HOST_LINE + b"Content-Length: 9\r\n\r\n"
            answer = path.say(head + b"some")
            check_raw_refusal(answer, 408, "body-timeout", error="http_request_error")


def test_without_a_connection_point_a_known_site_gets_503_and_a_time(
    tmp_path: Path, pki: Path, curl: str, nginx: Nginx
) -> None:
    mappings = [mapping("/files", nginx.address)]
    settings = {"admission_timeout_s": 0.2}
    with GatedPath(tmp_path, pki, curl, mappings, gateway=settings).running() as path:
        path.point.signal(signal.SIGTERM)
        path.gateway.wait_for("no channels", lambda status: not status["channels"])
        answer = path.curl("/files/small")
        check_refusal(
            answer,
            503,
            "no-connection-point",
            "site NYC: no connection point of the site is connected",
            error="destination_unavailable",
        )
        assert int(answer.fields["retry-after"]) > 0
        assert path.gateway.status()["refusals"] == {"no-connection-point": 1}
        assert path.gateway.status()["state"] == "waiting for a connection point"
        path.start_point()
        path.wait_connected()
        check_unharmed(path)
