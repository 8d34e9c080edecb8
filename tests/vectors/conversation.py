"""What two ends of a channel must make of a conversation, by the rules of docs/protocol.md."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any

from tests.vectors.decoder import Frame, Refused, decode, unrun

ACCEPTED, STALE_EPOCH = 0, 3
REFUSED = 2
OPENER = {"connection_point": "p", "instance": "i"}
Event = dict[str, Any]


@dataclass
class Stream:
    """One end's two halves of a stream."""

    tx_max: int
    rx_max: int
    tx: str = "Open"
    rx: str = "Open"
    tx_off: int = 0
    rx_off: int = 0
    used: int = 0
    """Charge that the application has used."""
    is_open: bool = False
    """OPEN has been encoded, or has arrived."""


@dataclass
class End:
    """One end of the channel."""

    initiator: str
    window: int
    """Credit that the other end's halves start with."""
    max_streams: int
    peer_window: int
    max_opens: int
    """Streams that this end may open."""
    granted: int
    """Streams that the other end may open."""
    opened: list[str] = field(default_factory=list)
    """Streams of this end that it has sent an OPEN for, in order."""
    accepted: int = 0
    drained_after: int | None = None
    """Streams of the other end that had arrived when this one began to drain."""
    taken: int | None = None
    """Streams of this end that the other one has taken, once it drains."""
    streams: dict[str, Stream] = field(default_factory=dict)
    next_generation: dict[str, int] = field(default_factory=dict)
    written: list[bytes] = field(default_factory=list)
    """Every tracked frame that this end has encoded."""
    starts: list[int] = field(default_factory=list)
    encoded: int = 0
    on_link: int = 0
    """Position that was written to the present link."""
    named: int = 0
    """Position that the peer has acknowledged."""
    arriving: int = 0
    """Position of the next tracked frame on the present link."""
    rx_pos: int = 0
    pings: list[Any] = field(default_factory=list)

    def retire(self, name: str) -> None:
        """Forget a stream that is over."""
        stream = self.streams[name]
        if stream.tx == "Sent" and stream.rx in ("Ended", "Failed"):
            del self.streams[name]

    def is_past(self, name: str) -> bool:
        """Tell a stream that is over from one that never was."""
        index, _, generation = name.partition(".")
        behind = (self.next_generation.get(index, 0) - int(generation)) % 256
        return index in self.next_generation and 1 <= behind <= 128

    def occupy(self, name: str) -> Stream:
        """Take the index of a new stream."""
        index, _, generation = name.partition(".")
        self.next_generation[index] = (int(generation) + 1) % 256
        stream = self.streams.setdefault(name, Stream(self.peer_window, self.window))
        stream.is_open = True
        return stream

    # What this end writes.

    def write(self, frame: Frame, data: bytes, *, is_foreign: bool) -> None:
        """Account for a frame that goes out."""
        if frame.is_tracked and self.on_link < self.encoded:
            again = self.written[self.starts.index(self.on_link)]
            assert data == again, "what is sent again has the bytes of the first time"
            self.on_link += frame.size
            return
        if not is_foreign:
            self.check_written(frame)
        if frame.is_tracked:
            self.starts.append(self.encoded)
            self.written.append(data)
            self.encoded += frame.size
            self.on_link = self.encoded

    def check_written(self, frame: Frame) -> None:
        """Check a new frame by the rules for its sender."""
        fields: dict[str, Any] = frame.fields
        if frame.type == "OPEN":
            self.opened.append(frame.stream)
            assert len(self.opened) <= self.max_opens, "no ticket"
            assert self.taken is None, "the other end drains"
            self.occupy(frame.stream)
        elif frame.type in ("ACK", "PONG"):
            assert fields["rx_pos"] == self.rx_pos, "it names the end of the last frame applied"
        if frame.type == "PONG":
            assert fields["id"] == self.pings.pop()
        if frame.type == "GOAWAY":
            assert fields["opens_accepted"] == self.drained_after
        if frame.type == "TICKETS":
            self.granted = fields["max_opens"]
        if frame.stream == "0":
            return
        stream = self.streams[frame.stream]
        if frame.type in ("OPEN", "DATA"):
            stream.tx_off += frame.charge
            assert stream.tx_off <= stream.tx_max, "beyond the credit"
            if "FIN" in frame.flags:
                assert stream.tx == "Finishing"
                stream.tx = "Sent"
        elif frame.type == "CREDIT":
            assert stream.rx == "Open"
            assert stream.rx_max <= fields["max"] <= stream.used + self.window
            stream.rx_max = fields["max"]
        elif frame.type == "RESET":
            assert (stream.tx, fields["offset"]) == ("Resetting", stream.tx_off)
            stream.tx = "Sent"
        elif frame.type == "STOP":
            assert stream.rx == "Stopped"
        self.retire(frame.stream)

    # What arrives at this end.

    def arrive(self, frame: Frame) -> list[Event]:
        """Apply a frame, unless it came over an earlier link already."""
        if not frame.is_tracked:
            return self.apply(frame)
        if self.arriving < self.rx_pos:
            self.arriving += frame.size
            if self.arriving > self.rx_pos:
                raise Refused("RESUME_RANGE")
            return []
        events = self.apply(frame)
        self.arriving += frame.size
        self.rx_pos = self.arriving
        return events

    def apply(self, frame: Frame) -> list[Event]:
        """Apply a frame and say what the application sees."""
        fields: dict[str, Any] = frame.fields
        match frame.type:
            case "OPEN":
                return self.apply_open(frame)
            case "DATA" | "RESET":
                return self.apply_to_rx(frame)
            case "CREDIT" | "STOP":
                return self.apply_to_tx(frame)
            case "TICKETS" if fields["max_opens"] > self.max_opens:
                self.max_opens = fields["max_opens"]
                return [{"event": "tickets"}]
            case "GOAWAY":
                possible = len(self.opened) if self.taken is None else self.taken
                self.taken = fields["opens_accepted"]
                if self.taken > possible:
                    raise Refused("ACK_RANGE")
                draining = {"code": fields["code"], "grace_ms": fields["grace_ms"]}
                return [{"event": "draining", **draining}, *self.refuse_unseen(self.taken)]
            case "CLOSE":
                return [{"event": "closed", **fields}]
            case "PING":
                self.pings.append(fields["id"])
        if frame.type in ("ACK", "PONG"):
            if not self.named <= fields["rx_pos"] <= self.encoded:
                raise Refused("ACK_RANGE")
            self.named = fields["rx_pos"]
        return []

    def refuse_unseen(self, taken: int) -> list[Event]:
        """Give up the streams behind the first `taken`, which the other end has not seen."""
        events: list[Event] = []
        for name in self.opened[taken:]:
            stream = self.streams.get(name)
            if stream is None:
                continue
            refused = {"stream": name, "code": REFUSED}
            if stream.rx == "Open":
                stream.rx = "Stopped"
                events.append({"event": "reset", **refused})
            if stream.tx in ("Open", "Finishing"):
                stream.tx = "Resetting"
                events.append({"event": "stopped", **refused})
        return events

    def apply_open(self, frame: Frame) -> list[Event]:
        """Accept a stream."""
        name = frame.stream
        index, _, generation = name.partition(".")
        if name[0] == self.initiator:
            raise Refused("STREAM_STATE")
        if self.accepted >= self.granted:
            raise Refused("OPEN_LIMIT")
        if frame.charge > self.window:
            raise Refused("FLOW")
        live = {live.partition(".")[0] for live in self.streams}
        is_next = int(generation) == self.next_generation.get(index, 0)
        if int(index[1:]) > self.max_streams or index in live or not is_next:
            raise Refused("STREAM_STATE")
        stream = self.occupy(name)
        self.accepted += 1
        is_refused = self.drained_after is not None
        if is_refused:
            stream.tx, stream.rx = "Resetting", "Stopped"
        events = [{"event": "opened", "stream": name, "kind": frame.fields["kind"]}]
        if frame.charge:
            events += self.apply_to_rx(frame)
        return [] if is_refused else events

    def apply_to_rx(self, frame: Frame) -> list[Event]:
        """Apply a frame to the receiving half."""
        name, fields = frame.stream, frame.fields
        stream = self.streams.get(name)
        if stream is None or not stream.is_open or stream.rx not in ("Open", "Stopped"):
            raise Refused("STREAM_STATE")
        is_wanted = stream.rx == "Open"
        event: Event
        if frame.type == "RESET":
            if fields["offset"] != stream.rx_off:
                raise Refused("STREAM_STATE")
            stream.rx = "Failed"
            event = {"event": "reset", "stream": name, "code": fields["code"]}
        else:
            if stream.rx_off + frame.charge > stream.rx_max:
                raise Refused("FLOW")
            stream.rx_off += frame.charge
            end = "stream" if "FIN" in frame.flags else "part" if "EOM" in frame.flags else "none"
            if end == "stream":
                stream.rx = "Ended"
            event = {"event": "data", "stream": name, "data": fields["data"], "end": end}
        self.retire(name)
        return [event] if is_wanted else []

    def apply_to_tx(self, frame: Frame) -> list[Event]:
        """Apply a frame to the sending half."""
        name, fields = frame.stream, frame.fields
        stream = self.streams.get(name)
        if stream is None and self.is_past(name):
            return []
        if stream is None or not stream.is_open:
            raise Refused("STREAM_STATE")
        if frame.type == "CREDIT":
            limit = fields["max"]
            assert isinstance(limit, int)
            if limit < stream.tx_max:
                raise Refused("STREAM_STATE")
            stream.tx_max = limit
        elif stream.tx in ("Open", "Finishing"):
            stream.tx = "Resetting"
            return [{"event": "stopped", "stream": name, "code": fields["code"]}]
        return []


class Conversation:
    """Both ends, and what is agreed between them."""

    def __init__(self) -> None:
        self.hello: dict[str, Any] = {}
        self.ok: dict[str, Any] = {}
        self.ends: dict[str, End] = {}
        self.agreed: set[int] = set()
        """Links that carry the channel, or did."""
        self.claim: dict[str, Any] = {"epoch": 0}
        self.accepted_epoch = 0
        self.answer: dict[str, Any] = {}

    def take(self, step: dict[str, Any], context: str) -> None:
        """Check one step."""
        if "call" in step:
            self.call(step["call"])
        elif "live" in step:
            live = {name: len(end.streams) for name, end in self.ends.items()}
            assert live == step["live"], context
        elif "frame" in step:
            assert self.outcome(step) == as_written(step), context

    def call(self, call: dict[str, Any]) -> None:
        """Carry out what an application asks for."""
        end, do = self.ends[call["at"]], call["do"]
        stream = end.streams.get(call.get("stream", ""))
        if do == "open":
            end.streams[call["stream"]] = Stream(end.peer_window, end.window)
        elif do == "go_away":
            if end.drained_after is None:
                end.drained_after = end.accepted
        elif do == "claim":
            epoch = self.claim["epoch"] + 1
            self.claim = {"epoch": epoch, "rx_pos": end.rx_pos, "tx_first": end.named}
        elif stream is None:
            assert do in ("complete", "close")
        elif do == "send" and call["end"] == "stream":
            stream.tx = "Finishing"
        elif do == "reset" and stream.tx in ("Open", "Finishing"):
            stream.tx = "Resetting"
        elif do == "stop" and stream.rx == "Open":
            stream.rx = "Stopped"
        elif do == "consume":
            stream.used += call["bytes"] + 32

    def outcome(self, step: dict[str, Any]) -> Event:
        """Say what becomes of a frame."""
        try:
            return {"events": self.take_frame(step)}
        except Refused as refused:
            return {"error": refused.code}

    def take_frame(self, step: dict[str, Any]) -> list[Event]:
        """Check a frame at its sender and apply it at its receiver."""
        data, link = unrun(step["frame"]), step["link"]
        frame = decode(data, in_handshake=link not in self.agreed)
        assert frame is not None
        assert frame.size == len(data)
        if link not in self.agreed:
            self.shake_hands(frame, step)
            return []
        sender = self.ends[step["from"]]
        (receiver,) = (end for end in self.ends.values() if end is not sender)
        sender.write(frame, data, is_foreign="foreign" in step)
        return [] if "lost" in step else receiver.arrive(frame)

    def shake_hands(self, frame: Frame, step: dict[str, Any]) -> None:
        """Apply a frame of the handshake."""
        match frame.type:
            case "HELLO":
                self.hello = dict(frame.fields)
            case "HELLO_OK":
                self.ok = dict(frame.fields)
                self.agreed.add(step["link"])
                for name, mine, its in (
                    ("connection_point", self.hello, self.ok),
                    ("instance", self.ok, self.hello),
                ):
                    opens, granted = its["max_streams"], mine["max_streams"]
                    window = mine["window"]
                    self.ends[name] = End(
                        OPENER[name], window, granted, its["window"], opens, granted
                    )
            case "RESUME":
                self.take_resume(dict(frame.fields), step)
            case "RESUMED":
                assert dict(frame.fields) == self.answer
                if self.answer["code"] == ACCEPTED:
                    self.take_resumed(self.answer, step["link"])

    def take_resume(self, asked: dict[str, Any], step: dict[str, Any]) -> None:
        """Check a claim as the instance does, and say what it answers."""
        assert asked["channel_id"] == self.ok["channel_id"]
        assert proof(self.ok["secret"], asked, unrun(step["exporter"])) == asked["proof"]
        claim = {name: asked[name] for name in ("epoch", "rx_pos", "tx_first")}
        assert claim == self.claim or "foreign" in step
        instance = self.ends["instance"]
        answer = {"code": STALE_EPOCH, "epoch": claim["epoch"], "rx_pos": 0, "tx_start": 0}
        if claim["epoch"] > self.accepted_epoch:
            if claim["rx_pos"] > instance.encoded or claim["tx_first"] > instance.rx_pos:
                raise Refused("RESUME_RANGE")
            self.accepted_epoch = claim["epoch"]
            tx_start = max(claim["rx_pos"], instance.named)
            instance.named = instance.on_link = tx_start
            instance.arriving = instance.rx_pos
            answer |= {"code": ACCEPTED, "rx_pos": instance.rx_pos, "tx_start": tx_start}
        self.answer = answer

    def take_resumed(self, answer: dict[str, Any], link: int) -> None:
        """Go on over the new link as the connection point does."""
        point = self.ends["connection_point"]
        assert answer["epoch"] == self.claim["epoch"]
        assert point.named <= answer["rx_pos"] <= point.encoded
        assert self.claim["rx_pos"] <= answer["tx_start"] <= point.rx_pos
        point.on_link = point.named = answer["rx_pos"]
        point.arriving = answer["tx_start"]
        self.agreed.add(link)


def as_written(step: dict[str, Any]) -> Event:
    """Read what a step says becomes of its frame."""
    if "error" in step:
        return {"error": step["error"]}
    events = [dict(event) for event in step.get("events", [])]
    for event in events:
        if "data" in event:
            event["data"] = unrun(event["data"])
    return {"events": events}


def proof(secret: bytes, asked: dict[str, Any], exporter: bytes) -> bytes:
    """Compute the proof of a RESUME."""
    message = b"cmgmux resume v1" + asked["channel_id"]
    message += asked["epoch"].to_bytes(4, "little")
    message += asked["rx_pos"].to_bytes(8, "little")
    message += asked["tx_first"].to_bytes(8, "little")
    message += asked["nonce"] + exporter
    return hmac.new(secret, message, hashlib.sha256).digest()
