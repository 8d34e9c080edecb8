"""Who may connect to the channel port: everybody else is told, counted, and harms nothing."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import struct
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from cmgmux.pki import DevelopmentPki
from tests.e2e.path import GatedPath, mapping, read_all
from tests.e2e.played import dialled, hello, next_frame, tls_to_channel_port
from tests.e2e.processes import DEADLINE_S, split
from tests.e2e.refusals import check_unharmed
from tests.vectors.decoder import decode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.roles import Nginx

SHUTDOWN, FRAME_SIZE, UNKNOWN_FRAME, MALFORMED, VERSION = 0, 1, 2, 3, 8
WRONG_INSTANCE, WRONG_ORDINAL, REPLACED, DRAINING = 9, 10, 12, 13
"""Codes of CLOSE."""
UNKNOWN_CHANNEL, OF_ANOTHER_INSTANCE = 1, 2
"""Codes of RESUMED."""
PING, RESUME, CLOSE = 0x11, 0x15, 0x17
"""Types of frames."""


@pytest.fixture
def path(tmp_path: Path, pki: Path, curl: str, nginx: Nginx) -> Iterator[GatedPath]:
    """A path of which only the gateway runs yet."""
    with GatedPath(tmp_path, pki, curl, [mapping("/files", nginx.address)]) as path:
        path.start_gateway()
        yield path


def certificate_of(pki: Path) -> dict[str, str]:
    """The settings for a connection point with another certificate."""
    point = pki / "connection-point"
    return {"certificate": f"{point}.pem", "key": f"{point}.key"}


def check_refused_on_both_sides(
    path: GatedPath, reason: str, gateway_says: str, point_says: str
) -> None:
    """Check that a connection point is refused, and that both logs say why."""
    path.start_point()
    record = path.gateway.wait_for_record("link refused", gateway_says)
    assert (record["reason"], record["level"]) == (reason, "warning")
    record = path.point.wait_for_record("not connected", point_says)
    assert (record["instance"], record["level"]) == (0, "warning")
    path.gateway.wait_for("it is counted", lambda status: status["links"]["refused"].get(reason))
    (instance,) = path.point.status()["instances"]
    assert (instance["state"], instance["channels_up"]) == ("connecting", 0)
    path.point.wait_for(
        "its status says why",
        lambda status: point_says in str(status["instances"][0]["channels"][0]["last_error"]),
    )
    check_gateway_goes_on(path)


def check_gateway_goes_on(path: GatedPath) -> None:
    """Check that the gateway accepts a proper connection point now."""
    assert path.gateway.status()["channels"] == []
    settings = path.point_settings
    path.point_settings = {
        **settings,
        **certificate_of(path.pki),
        "site": "NYC",
        "gateway_ca": str(path.pki / "gateway-ca.pem"),
        "instances": [{"index": 0, "address": path.channels, "server_name": "localhost"}],
        "admin_socket": "good.sock",
    }
    path.start_point()
    path.wait_connected()
    check_unharmed(path)


def test_a_connection_point_of_a_foreign_authority_is_refused_in_words(
    path: GatedPath, foreign_pki: Path
) -> None:
    path.point_settings |= certificate_of(foreign_pki)
    check_refused_on_both_sides(
        path,
        "tls",
        "perhaps another CA of the same name issued the certificate",
        "perhaps it trusts another CA of the same name",
    )


# R-LINK-5
def test_an_authority_that_may_not_vouch_for_the_site_is_refused_in_words(
    path: GatedPath, tmp_path: Path
) -> None:
    other = tmp_path / "par"
    DevelopmentPki(site="PAR").write(other)
    path.gateway_settings["trusted"] += [{"ca": str(other / "site-ca.pem"), "sites": ["SEA"]}]
    path.gateway.kill()
    path.start_gateway()
    path.point_settings |= {"site": "PAR", **certificate_of(other)}
    words = "may vouch for SEA only"
    check_refused_on_both_sides(path, "not_vouched", words, words)


def test_a_wrong_index_is_refused_in_words(path: GatedPath) -> None:
    path.point_settings["instances"][0]["index"] = 3
    path.start_point()
    words = "this is instance 0, and instance 3 was meant"
    record = path.gateway.wait_for_record("link refused", words)
    assert (record["reason"], record["peer"]) == ("wrong_instance", "NYC/cp1")
    path.point.wait_for_record("not connected", words)
    check_gateway_goes_on(path)


def test_a_gateway_of_a_foreign_authority_is_refused_in_words(
    path: GatedPath, foreign_pki: Path
) -> None:
    path.point_settings["gateway_ca"] = str(foreign_pki / "gateway-ca.pem")
    path.start_point()
    words = "perhaps another CA of the same name issued the certificate"
    path.point.wait_for_record("not connected", words)
    record = path.gateway.wait_for_record("link refused", "our certificate")
    assert record["reason"] == "tls"
    check_gateway_goes_on(path)


# R-LINK-4
def test_a_gateway_with_another_name_is_refused_in_words(path: GatedPath) -> None:
    path.point_settings["instances"][0]["server_name"] = "gateway.example"
    path.start_point()
    words = "not valid for gateway.example"
    record = path.point.wait_for_record("not connected", words)
    assert "localhost" in record["cause"], "the names that it is valid for"
    check_gateway_goes_on(path)


def refused(path: GatedPath, reason: str) -> int:
    """How many links were refused for a reason."""
    count: int = path.gateway.status()["links"]["refused"].get(reason, 0)
    return count


def check_counted(path: GatedPath, reason: str, before: int) -> None:
    """Check that one more link was refused for that reason, and that the gateway goes on."""
    path.gateway.wait_for("it is counted", lambda _: refused(path, reason) == before + 1)
    assert path.gateway.status()["panics_total"] == 0
    check_gateway_goes_on(path)


# R-LINK-6
@pytest.mark.parametrize(
    "foreign",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        os.urandom(4_096),
        b"\x00" * 4_096,
        b"\x16\x03\x01\x00\x05hello",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=["http", "noise", "zeros", "half-tls", "ssh"],
)
def test_foreign_bytes_on_the_channel_port_are_closed_and_counted(
    path: GatedPath, foreign: bytes
) -> None:
    before = refused(path, "tls")
    with socket.create_connection(split(path.channels), timeout=DEADLINE_S) as connection:
        connection.sendall(foreign)
        connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            read_all(connection)
    check_counted(path, "tls", before)


# R-LINK-2
def test_tls_of_another_protocol_on_the_channel_port_is_closed_and_counted(
    path: GatedPath,
) -> None:
    before = refused(path, "tls")
    tls = tls_to_channel_port("http/1.1", path.pki)
    with (
        socket.create_connection(split(path.channels), timeout=DEADLINE_S) as connection,
        pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"),
    ):
        tls.wrap_socket(connection).close()
    check_counted(path, "tls", before)


# R-LINK-1
def test_tls_1_2_on_the_channel_port_is_closed_and_counted(path: GatedPath) -> None:
    before = refused(path, "tls")
    tls = tls_to_channel_port(pki=path.pki)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(split(path.channels), timeout=DEADLINE_S) as connection,
        pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"),
    ):
        tls.wrap_socket(connection).close()
    check_counted(path, "tls", before)


# R-LINK-1
def test_a_stranger_without_a_certificate_is_closed_and_counted(path: GatedPath) -> None:
    before = refused(path, "tls")
    with (
        socket.create_connection(split(path.channels), timeout=DEADLINE_S) as connection,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
        tls_to_channel_port().wrap_socket(connection) as stranger,
    ):
        read_all(stranger)
    check_counted(path, "tls", before)


def test_strangers_who_say_nothing_keep_nobody_out(path: GatedPath) -> None:
    with ExitStack() as crowd:
        silent = [
            crowd.enter_context(socket.create_connection(split(path.channels), timeout=DEADLINE_S))
            for _ in range(600)
        ]
        path.start_point()
        path.wait_connected()
        assert read_all(silent[0]) == b"", "the oldest had to go"
        record = path.gateway.wait_for_record("link refused", "512 links are being checked")
        assert (record["reason"], record["level"]) == ("crowded", "warning")
        path.gateway.wait_for(
            "one for each that is too many",
            lambda status: status["links"]["refused"].get("crowded", 0) >= 600 - 512,
        )
        check_unharmed(path)


def greeting(path: GatedPath, text: bytes) -> bytes:
    """Say `text` on a fresh link, and give the answer."""
    with dialled(path.channels, path.pki) as link:
        link.sendall(text)
        return read_all(link)


def close_code(answer: bytes) -> int:
    """Why the gateway closes the link, which it says in words as well."""
    header, stream, code = struct.unpack_from("<III", answer)
    assert ((header >> 24) & 0xFF, stream) == (0x17, 0), "it is told why, in a CLOSE"
    assert len(answer) == 8 + (header & 0xFFFFFF) > 12
    return int(code)


# R-HELLO-1, R-HELLO-2, R-HELLO-3, R-HELLO-5, R-FRAME-8
@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", FRAME_SIZE, "protocol_frame_size"),
        (struct.pack("<II", 4 | 0x13 << 24, 0) + b"\xff" * 4, MALFORMED, "protocol_malformed"),
        (struct.pack("<II", 0xFFFFFF | 0x13 << 24, 0), FRAME_SIZE, "protocol_frame_size"),
        (struct.pack("<II", 1_017 | 0x13 << 24, 0), FRAME_SIZE, "protocol_frame_size"),
        (struct.pack("<II", 5 | 0x02 << 24, 2) + b"early", UNKNOWN_FRAME, "protocol_unknown_frame"),
        (struct.pack("<II", 0 | 0x13 << 24, 1), UNKNOWN_FRAME, "protocol_unknown_frame"),
        (struct.pack("<II", 4 | 0x14 << 24, 0) + bytes(4), UNKNOWN_FRAME, "protocol_unknown_frame"),
        (hello({1: b"\2\0"}), VERSION, "protocol_version"),
        (hello({4: b"\x10"}), MALFORMED, "protocol_malformed"),
        (hello({5: bytes(2)}), MALFORMED, "protocol_malformed"),
    ],
    ids=[
        "http",
        "broken-hello",
        "huge-hello",
        "long-hello",
        "data-before-hello",
        "hello-on-a-stream",
        "hello-ok-from-the-wrong-end",
        "another-version",
        "no-such-instance",
        "wrong-length",
    ],
)
def test_a_proper_certificate_does_not_excuse_a_broken_protocol(
    path: GatedPath, text: bytes, code: int, reason: str
) -> None:
    before = refused(path, reason)
    assert close_code(greeting(path, text)) == code
    check_counted(path, reason, before)


# R-HELLO-6
@pytest.mark.parametrize(
    ("values", "reason", "code"),
    [
        ({4: b"\1"}, "wrong_instance", WRONG_INSTANCE),
        ({5: b"\x0f"}, "wrong_ordinal", WRONG_ORDINAL),
    ],
    ids=["instance", "ordinal"],
)
def test_a_hello_for_somebody_else_is_refused_with_its_code(
    path: GatedPath, values: dict[int, bytes], reason: str, code: int
) -> None:
    before = refused(path, reason)
    assert close_code(greeting(path, hello(values))) == code
    check_counted(path, reason, before)


# R-HELLO-6
def test_a_gateway_that_is_stopping_takes_no_new_channel(path: GatedPath) -> None:
    path.have_long_grace()
    with dialled(path.channels, path.pki) as link:
        path.gateway.signal(signal.SIGTERM)
        path.gateway.wait_for("it is draining", lambda status: status["state"] == "draining")
        link.sendall(hello({}))
        answer = read_all(link)
    assert close_code(answer) == DRAINING
    assert b"stopping" in answer
    record = path.gateway.wait_for_record("link refused", "stopping")
    assert record["reason"] == "draining"


# R-HELLO-8, R-LIVE-1
def test_the_document_is_enough_to_open_a_channel(path: GatedPath) -> None:
    with dialled(path.channels, path.pki) as link:
        link.sendall(hello({}))
        agreed = next_frame(link, in_handshake=True)
        assert (agreed.type, agreed.fields["max_streams"]) == ("HELLO_OK", 16)
        channel_id = agreed.fields["channel_id"]
        assert isinstance(channel_id, bytes)
        assert channel_id[0] == 0, "it names the instance"
        link.sendall(struct.pack("<IIQ", 8 | PING << 24, 0, 77))
        pong = next_frame(link)
        assert (pong.type, pong.fields) == ("PONG", {"id": 77, "rx_pos": 0})
        link.sendall(struct.pack("<III", 4 | CLOSE << 24, 0, SHUTDOWN))
        assert read_all(link) == b""


# R-HELLO-9, R-HELLO-10
@pytest.mark.parametrize(
    ("boot_id", "words"),
    [(b"the present run.", b"started anew"), (b"the former run..", b"a newer channel")],
    ids=["another-run", "the-same-run"],
)
def test_a_new_channel_to_a_shard_ends_the_one_before(
    path: GatedPath, boot_id: bytes, words: bytes
) -> None:
    with dialled(path.channels, path.pki) as former, dialled(path.channels, path.pki) as present:
        former.sendall(hello({6: b"the former run.."}))
        assert next_frame(former, in_handshake=True).type == "HELLO_OK"
        path.gateway.wait_for("it is up", lambda status: len(status["channels"]) == 1)
        present.sendall(hello({6: boot_id}))
        assert next_frame(present, in_handshake=True).type == "HELLO_OK"
        answer = read_all(former)
        assert close_code(answer) == REPLACED
        assert words in answer
        present.sendall(struct.pack("<III", 4 | CLOSE << 24, 0, SHUTDOWN))


# R-RESUME-15, R-RESUME-16
@pytest.mark.parametrize(
    ("index", "code", "reason"),
    [(0, UNKNOWN_CHANNEL, "unknown_channel"), (1, OF_ANOTHER_INSTANCE, "wrong_instance")],
    ids=["unknown", "another-instance"],
)
def test_a_channel_that_is_not_there_is_not_resumed(
    path: GatedPath, index: int, code: int, reason: str
) -> None:
    before = refused(path, reason)
    body = bytes([index]) + os.urandom(15) + struct.pack("<IQQ", 5, 0, 0) + os.urandom(40)
    answer = greeting(path, struct.pack("<II", len(body) | RESUME << 24, 0) + body)
    resumed = decode(answer, in_handshake=True)
    assert resumed is not None
    assert resumed.fields == {"code": code, "epoch": 5, "rx_pos": 0, "tx_start": 0}
    check_counted(path, reason, before)


def test_a_publication_that_contradicts_the_current_one_is_refused_in_words(
    path: GatedPath, nginx: Nginx
) -> None:
    path.point_settings["serial"] = 7
    path.start_point()
    path.wait_connected()
    settings: dict[str, Any] = path.point_settings
    path.point_settings = {
        **settings,
        "admin_socket": "other.sock",
        "mappings": [mapping("/other", nginx.address)],
    }
    path.start_point()
    words = "serial: 7 is held by other settings of the site"
    path.gateway.wait_for_record("publication refused", words)
    record = path.point.wait_for_record("publication refused", words)
    assert record["level"] == "error"
    path.point.wait_for(
        "its status says why",
        lambda status: words in str(status["instances"][0]["publication"]["reasons"]),
    )
    assert path.curl("/other/small").status == 404
