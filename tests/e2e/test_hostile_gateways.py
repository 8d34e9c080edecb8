"""A gateway instance that breaks the protocol: the channels to another one go on.

The names begin with the rows of the abuse cases that they carry out.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from tests.e2e.path import GatedPath, mapping, read_all
from tests.e2e.played import (
    ACCEPTED,
    COUNTED,
    EXCHANGE,
    OPEN_LIMIT,
    RESUME_RANGE,
    UNKNOWN_CHANNEL,
    UNKNOWN_FRAME,
    Channel,
    accepted,
    broken_rules,
    frame,
    hello_ok,
    last_word,
    next_frame,
    taken,
)
from tests.e2e.processes import free_address
from tests.e2e.roles import SampleRole
from tests.e2e.unharmed import unharmed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.unharmed import Watch

FIRST: Final = 1 << 31 | 1
"""The first stream of an instance."""
MAX_STREAMS: Final = 65_536
"""Exchanges that a connection point serves on one channel."""


@pytest.fixture(scope="module")
def role(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleRole]:
    """The canary's role."""
    with SampleRole(tmp_path_factory.mktemp("role")) as role:
        yield role


@pytest.fixture(scope="module")
def enemy() -> str:
    """The address at which the connection point expects its second instance."""
    return free_address()


@pytest.fixture(scope="module")
def path(
    tmp_path_factory: pytest.TempPathFactory, pki: Path, curl: str, role: SampleRole, enemy: str
) -> Iterator[GatedPath]:
    """A path whose connection point has another instance, which nobody runs."""
    path = GatedPath(tmp_path_factory.mktemp("path"), pki, curl, [mapping("/role", role.address)])
    other = {"index": 1, "address": enemy, "server_name": "localhost"}
    path.point_settings["instances"] += [other]
    path.point_settings["connect_timeout_s"] = 4.0
    with path:
        path.start_gateway()
        path.start_point().wait_for(
            "the channels to its gateway",
            lambda status: status["instances"][0]["publication"]["state"] == "accepted",
        )
        yield path


@pytest.fixture(autouse=True)
def _nobody_there(path: GatedPath) -> None:
    """Begin with a failure of another kind: one that comes again is no news for the log."""
    path.point.wait_for(
        "nobody to be there",
        lambda status: (
            "cannot connect" in str(status["instances"][1]["channels"][0]["last_error"])
            and status["links_failed"].get("unreachable")
        ),
    )


NO_ANSWERS: Final = {
    "i1-noise": (b"\xff" * 4_096, "protocol_frame_size"),
    "i1-http": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol_frame_size"),
    "i2-long": (hello_ok({77: bytes(1_000)}), "protocol_frame_size"),
    "i3-type": (frame("PING", bytes(8)), "protocol_unknown_frame"),
    "i3-version": (hello_ok({1: b"\2\0"}), "protocol_version"),
    "i3-window": (hello_ok({3: bytes(4)}), "protocol_malformed"),
    "i3-no-shard": (hello_ok({8: b"\0"}), "protocol_malformed"),
    "i3-cut-off": (frame("HELLO_OK", hello_ok({})[8:-1]), "protocol_malformed"),
    "i3-resumed": (frame("RESUMED", bytes(24)), "protocol_unknown_frame"),
    "refusal": (frame("CLOSE", struct.pack("<I", 13) + b"not now"), "refused"),
    "nothing": (b"", "connection"),
}
"""What answers a HELLO, and how the connection point counts that."""


@pytest.mark.parametrize("case", NO_ANSWERS)
def test_an_answer_that_is_none(path: GatedPath, role: SampleRole, enemy: str, case: str) -> None:
    answer, reason = NO_ANSWERS[case]
    with unharmed(path, role, victim=path.point) as watch:
        with accepted(enemy, path.pki) as link:
            assert next_frame(link, in_handshake=True).type == "HELLO"
            link.sendall(answer)
        watch.expect("not connected", reason)


def test_i1_no_tls(path: GatedPath, role: SampleRole, enemy: str) -> None:
    with unharmed(path, role, victim=path.point) as watch:
        with taken(enemy) as connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            read_all(connection)
        watch.expect("not connected", "tls")


def test_i1_silence(path: GatedPath, role: SampleRole, enemy: str) -> None:
    with unharmed(path, role, victim=path.point) as watch:
        with accepted(enemy, path.pki) as link:
            assert next_frame(link, in_handshake=True).type == "HELLO"
            assert read_all(link) == b""
        watch.expect("not connected", "timeout")


BROKEN: Final = {
    **broken_rules(FIRST, EXCHANGE, 1),
    "i3-late": (hello_ok({}), UNKNOWN_FRAME),
    "i8-opens": (
        b"".join(frame("OPEN", EXCHANGE, stream=FIRST + index) for index in range(MAX_STREAMS + 1)),
        OPEN_LIMIT,
    ),
}
"""What is sent, and with which code the connection point closes the channel."""


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule(path: GatedPath, role: SampleRole, enemy: str, case: str) -> None:
    data, code = BROKEN[case]
    with unharmed(path, role, victim=path.point) as watch:
        with Channel.accept(enemy, path.pki) as channel:
            channel.link.sendall(data)
            assert last_word(channel.link) == code
            watch.secrets.append(channel.secret)
        watch.expect("channel has ended", COUNTED[code])


@contextmanager
def resumed(
    path: GatedPath, enemy: str, watch: Watch, code: int, rx_pos: int
) -> Iterator[ssl.SSLSocket]:
    """The second link of a channel that has lost its first, with this answer to RESUME."""
    with Channel.accept(enemy, path.pki) as channel:
        watch.secrets.append(channel.secret)
    with accepted(enemy, path.pki) as link:
        epoch = next_frame(link, in_handshake=True).fields["epoch"]
        link.sendall(frame("RESUMED", struct.pack("<IIQQ", code, epoch, rx_pos, 0)))
        yield link


def test_j6_a_position_that_never_was(path: GatedPath, role: SampleRole, enemy: str) -> None:
    with unharmed(path, role, victim=path.point) as watch:
        with resumed(path, enemy, watch, ACCEPTED, 1 << 40) as link:
            assert last_word(link) == RESUME_RANGE
        watch.expect("channel has ended", COUNTED[RESUME_RANGE])


def test_a_channel_that_the_instance_has_forgotten(
    path: GatedPath, role: SampleRole, enemy: str
) -> None:
    before = path.point.status()["links_failed"].get("not_resumed", 0)
    with unharmed(path, role, victim=path.point) as watch:
        with resumed(path, enemy, watch, UNKNOWN_CHANNEL, 0) as link:
            assert read_all(link) == b""
        watch.expect("channel has ended", "not_resumed")
    path.point.wait_for(
        "it is counted", lambda status: status["links_failed"].get("not_resumed") == before + 1
    )
