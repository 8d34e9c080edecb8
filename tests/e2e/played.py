"""Either end of a link, played byte by byte with the second decoder."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from tests.e2e.path import read_all
from tests.e2e.processes import DEADLINE_S, split
from tests.vectors.decoder import Frame, decode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHANNEL_ALPN: Final = "cmgmux/1"
FRAME_SIZE: Final = 1
UNKNOWN_FRAME: Final = 2
MALFORMED: Final = 3
FLOW: Final = 4
OPEN_LIMIT: Final = 5
STREAM_STATE: Final = 6
ACK_RANGE: Final = 7
RESUME_RANGE: Final = 15
CHURN: Final = 16
"""Codes of CLOSE."""
ACCEPTED: Final = 0
UNKNOWN_CHANNEL: Final = 1
"""Codes of RESUMED."""
FIN: Final = 0x20
IGNORABLE: Final = 0x80
"""Flags of a frame."""
BURST: Final = 65_536
"""Frames that take their sender nothing and may come at once."""
EXCHANGE: Final = b"\1\0\0\0"
"""The body of an OPEN for an exchange without data."""
TYPES: Final = {
    "OPEN": 0x01,
    "DATA": 0x02,
    "CREDIT": 0x03,
    "RESET": 0x04,
    "STOP": 0x05,
    "TICKETS": 0x06,
    "GOAWAY": 0x07,
    "ACK": 0x10,
    "PING": 0x11,
    "HELLO": 0x13,
    "HELLO_OK": 0x14,
    "RESUME": 0x15,
    "RESUMED": 0x16,
    "CLOSE": 0x17,
}


USUAL: Final = {1: b"\1\0", 2: bytes(4), 3: bytes((0, 64, 0, 0))}
"""What both HELLO and HELLO_OK have: version, streams and window."""


def tls_to_channel_port(alpn: str = CHANNEL_ALPN, pki: Path | None = None) -> ssl.SSLContext:
    """TLS of somebody who looks at nobody's certificate, and shows the one of `pki` if given."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    tls.set_alpn_protocols([alpn])
    if pki is not None:
        tls.load_cert_chain(pki / "connection-point.pem", pki / "connection-point.key")
    return tls


@contextmanager
def dialled(address: str, pki: Path) -> Iterator[ssl.SSLSocket]:
    """A link of the connection point whose certificate is in `pki`."""
    with (
        socket.create_connection(split(address), timeout=DEADLINE_S) as connection,
        tls_to_channel_port(pki=pki).wrap_socket(connection) as link,
    ):
        yield link


@contextmanager
def taken(address: str) -> Iterator[socket.socket]:
    """The next connection to `address`, where nobody listens before and after."""
    with socket.create_server(split(address)) as listener:
        listener.settimeout(DEADLINE_S)
        connection, _ = listener.accept()
    with connection:
        connection.settimeout(DEADLINE_S)
        yield connection


@contextmanager
def accepted(address: str, pki: Path) -> Iterator[ssl.SSLSocket]:
    """A link of a connection point, taken by an instance whose certificate is in `pki`."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pki / "gateway.pem", pki / "gateway.key")
    tls.set_alpn_protocols([CHANNEL_ALPN])
    with taken(address) as connection, tls.wrap_socket(connection, server_side=True) as link:
        yield link


def frame(kind: str, body: bytes = b"", *, stream: int = 0, flags: int = 0) -> bytes:
    """A frame; `flags` are the bits of the header's fourth byte."""
    return struct.pack("<II", len(body) | (TYPES[kind] | flags) << 24, stream) + body


def hello(values: dict[int, bytes]) -> bytes:
    """A HELLO of these values instead of the usual ones."""
    return frame("HELLO", tagged(USUAL | {4: b"\0", 5: b"\0", 6: bytes(16)} | values))


def hello_ok(values: dict[int, bytes]) -> bytes:
    """A HELLO_OK of instance 1 with one shard, with these values instead of the usual ones."""
    own = {6: os.urandom(16), 7: b"\1" + os.urandom(15), 8: b"\1", 9: os.urandom(32)}
    return frame("HELLO_OK", tagged(USUAL | own | values))


def tagged(values: dict[int, bytes]) -> bytes:
    """Values with their tags and lengths."""
    return b"".join(struct.pack("<BH", tag, len(value)) + value for tag, value in values.items())


def resume(channel_id: bytes, epoch: int, proof: bytes) -> bytes:
    """A RESUME that has applied and kept nothing."""
    return frame("RESUME", channel_id + struct.pack("<IQQ8s", epoch, 0, 0, b"nonce678") + proof)


def next_frame(link: ssl.SSLSocket, *, in_handshake: bool = False) -> Frame:
    """Read one frame."""
    data = b""
    while True:
        if found := decode(data, in_handshake=in_handshake):
            return found
        wanted = 8 if len(data) < 8 else 8 + int.from_bytes(data[:3], "little")
        received = link.recv(wanted - len(data))
        assert received, "the other end has closed the link"
        data += received


class Channel:
    """A channel that nobody but the test keeps up."""

    def __init__(self, link: ssl.SSLSocket, agreed: Frame) -> None:
        """Take what a HELLO_OK on a link has agreed on."""
        assert agreed.type == "HELLO_OK"
        channel_id, secret = agreed.fields["channel_id"], agreed.fields["secret"]
        assert isinstance(channel_id, bytes)
        assert isinstance(secret, bytes)
        self.link, self.channel_id, self.secret = link, channel_id, secret

    @classmethod
    @contextmanager
    def open(cls, address: str, pki: Path) -> Iterator[Self]:
        """Dial, and agree on a channel."""
        with dialled(address, pki) as link:
            link.sendall(hello({}))
            yield cls(link, next_frame(link, in_handshake=True))

    @classmethod
    @contextmanager
    def accept(cls, address: str, pki: Path) -> Iterator[Self]:
        """Take the link that a connection point dials, and agree on a channel."""
        with accepted(address, pki) as link:
            assert next_frame(link, in_handshake=True).type == "HELLO"
            answer = hello_ok({})
            link.sendall(answer)
            agreed = decode(answer, in_handshake=True)
            assert agreed is not None
            yield cls(link, agreed)

    def close(self) -> None:
        """Say CLOSE and read what is still to come: unread bytes would reset the link at once."""
        self.link.sendall(frame("CLOSE", struct.pack("<I", 0)))
        read_all(self.link)


def last_word(link: ssl.SSLSocket) -> int:
    """Read to the end of the link, which is a CLOSE: its code."""
    data = read_all(link)
    last: Frame | None = None
    while data:
        last = decode(data)
        assert last is not None, data
        data = data[last.size :]
    assert last is not None
    assert last.type == "CLOSE"
    code = last.fields["code"]
    assert isinstance(code, int)
    return code


def broken_rules(first: int, open_body: bytes, others_first: int) -> dict[str, tuple[bytes, int]]:
    """What breaks a rule in either direction, and the code with which the channel is closed.

    `first` is the first stream of the sender, which opens it with `open_body`; `others_first` is
    the first of the other end.
    """
    opened, exchange = frame("OPEN", open_body, stream=first), frame("OPEN", EXCHANGE, stream=first)
    return {
        "i2-length": (struct.pack("<II", 0xFFFFFF | TYPES["DATA"] << 24, first), FRAME_SIZE),
        "i3-body": (frame("PING", b"short"), MALFORMED),
        "i3-reserved": (frame("OPEN", b"\0\0\1\0", stream=first), MALFORMED),
        "i3-flag": (frame("PING", bytes(8), flags=FIN), MALFORMED),
        "i3-type": (struct.pack("<II", 0x1E << 24, 0), UNKNOWN_FRAME),
        "i5-unknown": (frame("CREDIT", bytes(8), stream=first + 6), STREAM_STATE),
        "i5-lowered": (opened + frame("CREDIT", bytes(8), stream=first), STREAM_STATE),
        "i6-bulk": (exchange + frame("DATA", bytes(12_000), stream=first) * 40, FLOW),
        "i6-crumbs": (exchange + frame("DATA", b"x", stream=first) * 1_200, FLOW),
        "i10-initiator": (frame("OPEN", open_body, stream=others_first), STREAM_STATE),
        "i10-never-opened": (frame("DATA", b"x", stream=first + 4), STREAM_STATE),
        "i12-empty": (opened + frame("DATA", stream=first), MALFORMED),
        "i17-count": (frame("GOAWAY", struct.pack("<QII", 1, 0, 0)), ACK_RANGE),
        "j6-ack": (frame("ACK", struct.pack("<QI", 1 << 40, 0)), ACK_RANGE),
        "i7-pings": (frame("PING", bytes(8)) * (2 * BURST), CHURN),
        "i18-offset": (
            opened + frame("RESET", struct.pack("<IQ", 1, 5), stream=first),
            STREAM_STATE,
        ),
    }


COUNTED: Final = {
    FRAME_SIZE: "protocol_frame_size",
    UNKNOWN_FRAME: "protocol_unknown_frame",
    MALFORMED: "protocol_malformed",
    FLOW: "protocol_flow",
    OPEN_LIMIT: "protocol_open_limit",
    STREAM_STATE: "protocol_stream_state",
    ACK_RANGE: "protocol_ack_range",
    RESUME_RANGE: "protocol_resume_range",
    CHURN: "protocol_churn",
}
"""How the end that closes a channel counts that, by the code of its CLOSE."""
