"""A second decoder of the channel protocol, written from docs/protocol.md alone."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

HEADER_BYTES = 8
MAX_BODY = 16_376
MAX_FIRST_FRAME = 1_024
MAX_CLOSE_TEXT = 256
FRAME_CHARGE = 32

FLAGS = ("FIN", "EOM", "IGNORABLE")
TYPES = {
    0x01: "OPEN",
    0x02: "DATA",
    0x03: "CREDIT",
    0x04: "RESET",
    0x05: "STOP",
    0x06: "TICKETS",
    0x07: "GOAWAY",
    0x10: "ACK",
    0x11: "PING",
    0x12: "PONG",
    0x13: "HELLO",
    0x14: "HELLO_OK",
    0x15: "RESUME",
    0x16: "RESUMED",
    0x17: "CLOSE",
}
HANDSHAKE = {"HELLO", "HELLO_OK", "RESUME", "RESUMED"}
WITH_DATA = {"OPEN", "DATA"}
OF_STREAM = {"OPEN", "DATA", "CREDIT", "RESET", "STOP"}

FIXED = {
    "CREDIT": ("<Q", ("max",)),
    "RESET": ("<IQ", ("code", "offset")),
    "STOP": ("<I", ("code",)),
    "TICKETS": ("<Q", ("max_opens",)),
    "GOAWAY": ("<QII", ("opens_accepted", "code", "grace_ms")),
    "ACK": ("<QI", ("rx_pos", "delay_us")),
    "PING": ("<Q", ("id",)),
    "PONG": ("<QQ", ("id", "rx_pos")),
    "RESUME": ("<16sIQQ8s32s", ("channel_id", "epoch", "rx_pos", "tx_first", "nonce", "proof")),
    "RESUMED": ("<IIQQ", ("code", "epoch", "rx_pos", "tx_start")),
}
"""Layouts and names of the bodies that always have the same length."""

TAGS = {
    1: ("version", 2, 0, 0xFFFF),
    2: ("max_streams", 4, 0, 8_388_607),
    3: ("window", 4, 16_384, 1 << 30),
    4: ("instance", 1, 0, 15),
    5: ("ordinal", 1, 0, 15),
    6: ("boot_id", 16, None, None),
    7: ("channel_id", 16, None, None),
    8: ("shards", 1, 1, 16),
    9: ("secret", 32, None, None),
}
"""Name, bytes, and range of each value of a HELLO and a HELLO_OK."""

REQUIRED = {
    "HELLO": ("max_streams", "window", "instance", "ordinal", "boot_id"),
    "HELLO_OK": ("max_streams", "window", "shards", "boot_id", "channel_id", "secret"),
}

Value = int | str | bytes


class Refused(Exception):
    """The peer broke a rule; `code` goes into CLOSE."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Frame:
    """One whole frame."""

    type: str
    """The name of its type; empty for one that is unknown and to be skipped."""
    flags: tuple[str, ...]
    stream: str
    fields: dict[str, Value]
    size: int
    """Bytes, header included."""
    is_tracked: bool

    @property
    def charge(self) -> int:
        """What the frame costs in credit."""
        data = self.fields.get("data", b"")
        assert isinstance(data, bytes)
        if self.type == "OPEN" and not data and not self.flags:
            return 0
        return len(data) + FRAME_CHARGE


def unrun(text: str) -> bytes:
    """Read bytes as the vectors have them: hexadecimal, or `61*16000` for a run of one byte."""
    pieces = (piece.partition("*") for piece in text.split())
    return b"".join(bytes.fromhex(byte) * int(count or 1) for byte, _, count in pieces)


def name_of(stream: int) -> str:
    """Write a stream's id as initiator, index, generation."""
    if stream == 0:
        return "0"
    return f"{'pi'[stream >> 31]}{stream & 0x7FFFFF}.{stream >> 23 & 0xFF}"


def decode(buffer: bytes, *, in_handshake: bool = False) -> Frame | None:
    """Decode the frame at the front of a buffer; nothing while it is not whole.

    Raises:
        Refused: The frame breaks a rule that needs no knowledge of streams.
    """
    if len(buffer) < HEADER_BYTES:
        return None
    word, stream = struct.unpack_from("<II", buffer)
    length, number, flag_bits = word & 0xFFFFFF, word >> 24 & 0x1F, word >> 29
    size = HEADER_BYTES + length
    if length > MAX_BODY or (in_handshake and size > MAX_FIRST_FRAME):
        raise Refused("FRAME_SIZE")
    if len(buffer) < size:
        return None
    body = buffer[HEADER_BYTES:size]
    flags = tuple(flag for bit, flag in enumerate(FLAGS) if flag_bits >> bit & 1)
    kind = TYPES.get(number, "")
    if kind != "CLOSE" and (kind in HANDSHAKE) != in_handshake:
        kind = ""
    if not kind and (in_handshake or "IGNORABLE" not in flags):
        raise Refused("UNKNOWN_FRAME")
    fields: dict[str, Value] = {}
    if kind:
        fields = fields_of(kind, body)
        check_header(kind, flags, stream)
        if kind == "DATA" and not body and not flags:
            raise Refused("MALFORMED")
    return Frame(kind, flags, name_of(stream), fields, size, is_tracked=number < 0x10)


def check_header(kind: str, flags: tuple[str, ...], stream: int) -> None:
    """Check that flags and stream field belong to the type."""
    if kind in WITH_DATA:
        if "IGNORABLE" in flags:
            raise Refused("MALFORMED")
        if stream & 0x7FFFFF == 0:
            raise Refused("STREAM_STATE")
        return
    has_end = "FIN" in flags or "EOM" in flags
    if (has_end and kind not in HANDSHAKE) or (kind in OF_STREAM) != (stream != 0):
        raise Refused("MALFORMED")


def fields_of(kind: str, body: bytes) -> dict[str, Value]:
    """Decode a body."""
    if kind in FIXED:
        layout, names = FIXED[kind]
        if len(body) != struct.calcsize(layout):
            raise Refused("MALFORMED")
        return dict(zip(names, struct.unpack(layout, body), strict=True))
    if kind in REQUIRED:
        return values_of(kind, body)
    if kind == "DATA":
        return {"data": body}
    if kind == "CLOSE":
        if not 4 <= len(body) <= 4 + MAX_CLOSE_TEXT:
            raise Refused("MALFORMED")
        return {
            "code": struct.unpack_from("<I", body)[0],
            "text": body[4:].decode(errors="replace"),
        }
    if len(body) < 4 or body[0] > 1 or any(body[1:4]):
        raise Refused("MALFORMED")
    return {"kind": ("control", "exchange")[body[0]], "data": body[4:]}


def values_of(kind: str, body: bytes) -> dict[str, Value]:
    """Decode the values of a HELLO or a HELLO_OK."""
    found: dict[str, Value] = {}
    in_range: dict[str, bool] = {}
    while body:
        if len(body) < 3:
            raise Refused("MALFORMED")
        tag, length = struct.unpack_from("<BH", body)
        value, body = body[3 : 3 + length], body[3 + length :]
        if len(value) < length:
            raise Refused("MALFORMED")
        if tag not in TAGS:
            continue
        name, wanted, least, most = TAGS[tag]
        if length != wanted or name in found:
            raise Refused("MALFORMED")
        number = int.from_bytes(value, "little")
        found[name] = value if least is None else number
        in_range[name] = least is None or most is None or least <= number <= most
    if found.get("version", 1) != 1:
        raise Refused("VERSION")
    if not all(in_range.get(name) for name in ("version", *REQUIRED[kind])):
        raise Refused("MALFORMED")
    return {name: found[name] for name in REQUIRED[kind]}


def as_written(frame: Frame) -> dict[str, Any]:
    """Describe a frame as the vectors do, but for runs."""
    fields = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in frame.fields.items()
    }
    flags, stream = list(frame.flags), frame.stream
    return {"type": frame.type, "flags": flags, "stream": stream, "fields": fields}
