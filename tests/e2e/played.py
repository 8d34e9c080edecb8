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

    def last_word(self) -> tuple[int, str]:
        """Read to the end of the link, which is a CLOSE: its code and text."""
        data = read_all(self.link)
        last: Frame | None = None
        while data:
            last = decode(data)
            assert last is not None, data
            data = data[last.size :]
        assert last is not None
        assert last.type == "CLOSE"
        code, text = last.fields["code"], last.fields["text"]
        assert isinstance(code, int)
        assert isinstance(text, str)
        return code, text
