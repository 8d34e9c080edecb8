"""Peers that break the protocol of channels, on real sockets: each is told and counted.

The names begin with the rows of the abuse cases that they carry out.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest

from cmgmux.pki import DevelopmentPki
from tests.e2e.path import GatedPath, mapping, read_all
from tests.e2e.played import (
    COUNTED,
    FRAME_SIZE,
    IGNORABLE,
    OPEN_LIMIT,
    UNKNOWN_CHANNEL,
    Channel,
    broken_rules,
    dialled,
    frame,
    last_word,
    next_frame,
    resume,
)
from tests.e2e.processes import DEADLINE_S, split
from tests.e2e.roles import SampleRole
from tests.e2e.unharmed import unharmed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTROL: Final = b"\0\0\0\0"
"""The body of an OPEN for a control stream without data."""


@pytest.fixture(scope="module")
def role(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleRole]:
    """The canary's role."""
    with SampleRole(tmp_path_factory.mktemp("role")) as role:
        yield role


@pytest.fixture(scope="module")
def enemy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of the hostile connection point, which is another site's."""
    folder = tmp_path_factory.mktemp("enemy")
    DevelopmentPki(site="PAR").write(folder)
    return folder


@pytest.fixture(scope="module")
def path(
    tmp_path_factory: pytest.TempPathFactory, pki: Path, curl: str, role: SampleRole, enemy: Path
) -> Iterator[GatedPath]:
    """A path whose gateway trusts the hostile connection point as well."""
    path = GatedPath(tmp_path_factory.mktemp("path"), pki, curl, [mapping("/role", role.address)])
    path.gateway_settings["trusted"] += [{"ca": str(enemy / "site-ca.pem"), "sites": ["PAR"]}]
    with path.running():
        yield path


@pytest.mark.parametrize(
    "foreign",
    [os.urandom(4_096), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"],
    ids=["noise", "http", "ssh"],
)
def test_i1_foreign_bytes(path: GatedPath, role: SampleRole, foreign: bytes) -> None:
    with unharmed(path, role) as watch:
        with socket.create_connection(split(path.channels), timeout=DEADLINE_S) as connection:
            connection.sendall(foreign)
            with suppress(ConnectionResetError):
                read_all(connection)
        watch.expect("link refused", "tls")


@pytest.mark.parametrize(
    "foreign",
    [b"\xff" * 4_096, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"],
    ids=["ones", "http", "ssh"],
)
def test_i1_foreign_bytes_in_tls(
    path: GatedPath, role: SampleRole, enemy: Path, foreign: bytes
) -> None:
    with unharmed(path, role) as watch:
        with dialled(path.channels, enemy) as link:
            link.sendall(foreign)
            header, _, code = struct.unpack_from("<III", read_all(link))
            assert (header >> 24, code) == (0x17, FRAME_SIZE)
        watch.expect("link refused", "protocol_frame_size")


BROKEN: Final = {
    **broken_rules(1, CONTROL, 1 << 31 | 1),
    "i8-opens": (
        b"".join(frame("OPEN", CONTROL, stream=index) for index in range(1, 18)),
        OPEN_LIMIT,
    ),
}
"""What is sent, and with which code the gateway closes the channel."""


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule(path: GatedPath, role: SampleRole, enemy: Path, case: str) -> None:
    data, code = BROKEN[case]
    with unharmed(path, role) as watch:
        with Channel.open(path.channels, enemy) as channel:
            channel.link.sendall(data)
            assert last_word(channel.link) == code
            watch.secrets.append(channel.secret)
        watch.expect("channel has ended", COUNTED[code])


# I7
def test_i7_a_peer_that_reads_nothing(path: GatedPath, role: SampleRole, enemy: Path) -> None:
    with unharmed(path, role) as watch:
        with Channel.open(path.channels, enemy) as channel:
            before = path.gateway.memory_bytes()
            for _ in range(50):
                channel.link.sendall(frame("PING", bytes(8)) * 1_000)
            assert path.gateway.memory_bytes() < before + (16 << 20)
            watch.secrets.append(channel.secret)
            channel.close()
        watch.expect("channel has ended", "closed_by_peer_shutdown")


def test_i3_an_unknown_frame_that_may_be_ignored(
    path: GatedPath, role: SampleRole, enemy: Path
) -> None:
    with unharmed(path, role) as watch:
        with Channel.open(path.channels, enemy) as channel:
            unknown = struct.pack("<II", 5 | (0x1E | IGNORABLE) << 24, 77) + b"later"
            channel.link.sendall(unknown + frame("PING", b"pingpong"))
            assert next_frame(channel.link).type == "PONG"
            channel.close()
        watch.expect("channel has ended", "closed_by_peer_shutdown")


def test_j3_a_guessed_proof(path: GatedPath, role: SampleRole, enemy: Path) -> None:
    with unharmed(path, role) as watch, Channel.open(path.channels, enemy) as channel:
        for channel_id in (channel.channel_id, b"\0" + os.urandom(15)):
            with dialled(path.channels, enemy) as link:
                link.sendall(resume(channel_id, 1, os.urandom(32)))
                answer = next_frame(link, in_handshake=True)
                assert answer.fields["code"] == UNKNOWN_CHANNEL
        watch.expect("link refused", "unknown_channel", times=2)
        watch.secrets.append(channel.secret)
        channel.link.sendall(frame("PING", b"still up"))
        assert next_frame(channel.link).type == "PONG", "it disturbs nothing"
        channel.close()


def test_j4_the_channel_of_another_site(path: GatedPath, role: SampleRole, enemy: Path) -> None:
    with unharmed(path, role) as watch:
        before = path.gateway.status()["channels"]
        for channel in before:
            with dialled(path.channels, enemy) as link:
                link.sendall(resume(bytes.fromhex(channel["channel_id"]), 1, bytes(32)))
                answer = next_frame(link, in_handshake=True)
                assert answer.fields["code"] == UNKNOWN_CHANNEL
        watch.expect("link refused", "unknown_channel", times=len(before))


def test_j11_a_flood_of_resumes(path: GatedPath, role: SampleRole, enemy: Path) -> None:
    with unharmed(path, role) as watch:
        for _ in range(11):
            with dialled(path.channels, enemy) as link:
                asked = time.monotonic()
                link.sendall(resume(b"\0" + os.urandom(15), 1, os.urandom(32)))
                answer = next_frame(link, in_handshake=True)
                assert answer.fields["code"] == UNKNOWN_CHANNEL
        assert time.monotonic() - asked >= 1, "from the eleventh on the answer is late"
        message = "a connection point keeps asking for channels that are not its own"
        assert path.gateway.wait_for_record(message)["level"] == "error"
        watch.expect("link refused", "unknown_channel", times=11)
