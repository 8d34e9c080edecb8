"""A connection point's end of a link, played byte by byte with the second decoder."""

from __future__ import annotations

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
    "RESUME": 0x15,
    "CLOSE": 0x17,
}


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


def frame(kind: str, body: bytes = b"", *, stream: int = 0, flags: int = 0) -> bytes:
    """A frame; `flags` are the bits of the header's fourth byte."""
    return struct.pack("<II", len(body) | (TYPES[kind] | flags) << 24, stream) + body


def hello(values: dict[int, bytes]) -> bytes:
    """A HELLO of these values instead of the usual ones."""
    usual = {1: b"\1\0", 2: bytes(4), 3: bytes((0, 64, 0, 0)), 4: b"\0", 5: b"\0", 6: bytes(16)}
    body = b"".join(
        struct.pack("<BH", tag, len(value)) + value for tag, value in (usual | values).items()
    )
    return frame("HELLO", body)


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
        assert received, "the gateway has closed the link"
        data += received


class Channel:
    """A channel that nobody but the test keeps up."""

    def __init__(self, link: ssl.SSLSocket) -> None:
        """Agree on it over a link."""
        self.link = link
        link.sendall(hello({}))
        agreed = next_frame(link, in_handshake=True)
        assert agreed.type == "HELLO_OK"
        channel_id, secret = agreed.fields["channel_id"], agreed.fields["secret"]
        assert isinstance(channel_id, bytes)
        assert isinstance(secret, bytes)
        self.channel_id, self.secret = channel_id, secret

    @classmethod
    @contextmanager
    def open(cls, address: str, pki: Path) -> Iterator[Self]:
        """Dial, and agree on a channel."""
        with dialled(address, pki) as link:
            yield cls(link)

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
