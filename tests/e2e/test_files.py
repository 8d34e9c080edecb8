"""Files and uploads of every size travel the whole path unchanged."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.e2e.path import read_past
from tests.e2e.roles import MEBIBYTE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.path import GatedPath
    from tests.e2e.roles import Files


def sha256_of(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_file_of_nginx_arrives_as_it_is(path: GatedPath) -> None:
    answer = path.curl("/files/small")
    assert (answer.exit_status, answer.status) == (0, 200)
    assert answer.text == "a small file\n"
    assert answer.fields["server"].startswith("nginx")
    assert answer.fields["content-length"] == "13"


def test_the_prefix_is_matched_whatever_its_letter_case(path: GatedPath) -> None:
    assert path.curl("/FILES/small").text == "a small file\n"


def test_a_head_request_gets_the_head_alone(path: GatedPath) -> None:
    answer = path.curl("/files/big", "--head")
    assert (answer.exit_status, answer.status) == (0, 200)
    assert answer.fields["content-length"] == str(32 * MEBIBYTE)


def test_a_range_is_answered_206(path: GatedPath, files: Files) -> None:
    answer = path.curl("/files/big", "--range", "1000000-1000999")
    assert (answer.exit_status, answer.status) == (0, 206)
    assert answer.fields["content-range"] == f"bytes 1000000-1000999/{32 * MEBIBYTE}"
    whole = (files.folder / "big").read_bytes()
    assert answer.body.read_bytes() == whole[1_000_000:1_001_000]


def test_a_conditional_request_is_answered_304(path: GatedPath) -> None:
    tag = path.curl("/files/small").fields["etag"]
    answer = path.curl("/files/small", "--header", f"If-None-Match: {tag}")
    assert (answer.exit_status, answer.status) == (0, 304)
    assert answer.text == ""


def test_an_error_of_the_role_passes_untouched(path: GatedPath) -> None:
    answer = path.curl("/files/missing")
    assert (answer.exit_status, answer.status) == (0, 404)
    assert "nginx" in answer.text
    assert "proxy-status" not in answer.fields


def test_one_client_connection_carries_request_after_request(path: GatedPath) -> None:
    with path.connected() as connection:
        for _ in range(3):
            connection.sendall(b"GET /files/small HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"\r\n\r\na small file\n" in read_past(connection, b"a small file\n")


def test_32_mib_arrive_as_they_are(path: GatedPath, files: Files) -> None:
    answer = path.curl("/files/big")
    assert (answer.exit_status, answer.status) == (0, 200)
    assert sha256_of(answer.body) == files.sha256


@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
def test_100_mib_of_upload_arrive_as_they_are(
    path: GatedPath, tmp_path: Path, framing: str
) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(os.urandom(100 * MEBIBYTE))
    options = ["--header", "Transfer-Encoding: chunked"] if framing == "chunked" else []
    answer = path.curl("/role/echo", "-X", "POST", "--upload-file", str(upload), *options)
    assert (answer.exit_status, answer.status) == (0, 200), answer.complaint
    assert answer.interim == (100,), "curl asks before it sends that much"
    assert json.loads(answer.text) == {
        "method": "POST",
        "length": 100 * MEBIBYTE,
        "sha256": sha256_of(upload),
    }


def test_a_client_that_waits_for_100_continue_gets_it(path: GatedPath) -> None:
    with path.connected() as connection:
        connection.sendall(
            b"POST /role/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert read_past(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert b'"length":5' in read_past(connection, b"}")


def test_no_body_is_asked_for_that_would_be_refused(path: GatedPath) -> None:
    with path.connected() as connection:
        connection.sendall(
            b"POST /limited HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert read_past(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 413 ")


def test_methods_of_the_original_pass(path: GatedPath) -> None:
    for method in ("CCM_POST", "BITS_POST", "PROPFIND", "OPTIONS"):
        answer = path.curl("/role/echo", "-X", method, "--data", "five!")
        assert json.loads(answer.text)["method"] == method
        assert json.loads(answer.text)["length"] == 5
