//! An application that holds what it is told against what the other end wrote.

use std::time::Duration;

use bytes::Bytes;
use cmgmux_mux::{
    Application, CloseCode, End, FRAME_CHARGE, Side, StreamCode, StreamId, StreamKind, Token,
};

/// What one end has seen of a stream, and done with it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) id: Option<StreamId>,
    pub(crate) bytes: u64,
    /// Offsets behind which a part ended.
    pub(crate) parts: Vec<u64>,
    /// The peer's half has ended, been abandoned, or is not wanted any more.
    pub(crate) ended: bool,
    pub(crate) reset: bool,
    pub(crate) unwanted: bool,
    /// Own half: its end was sent, or it was reset, or the peer stopped it.
    pub(crate) finished: bool,
    pub(crate) stopped: bool,
    pub(crate) is_over: bool,
    /// Lengths of the pieces that have not been consumed.
    pub(crate) unread: Vec<usize>,
}

/// The streams of one end, by token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Listener {
    pub(crate) streams: Vec<Seen>,
    /// Handlers of accepted streams that have ended without being told so.
    pub(crate) unfinished: u64,
    side: Side,
    /// Whether the peer is an end of ours, so that its data is known.
    trusts: bool,
}

/// The side that a stream's id names as its opener.
fn opener(id: StreamId) -> Side {
    if id.to_wire() >> 31 == 0 { Side::ConnectionPoint } else { Side::Instance }
}

/// What `writer` writes on a stream from `offset` on.
pub(crate) fn text(
    id: StreamId,
    writer: Side,
    offset: u64,
    length: usize,
) -> impl Iterator<Item = u8> {
    let seed = id.to_wire().rotate_left(9) ^ u32::from(writer == Side::Instance);
    (offset..offset + length as u64)
        .map(move |place| ((place as u32 ^ seed).wrapping_mul(0x9e37_79b1) >> 24) as u8)
}

impl Listener {
    pub(crate) fn new(side: Side) -> Self {
        Self { streams: Vec::new(), unfinished: 0, side, trusts: true }
    }

    /// From here on the peer may say anything.
    pub(crate) fn distrust(&mut self) {
        self.trusts = false;
    }

    pub(crate) fn add(&mut self, id: Option<StreamId>) -> Token {
        self.streams.push(Seen { id, ..Seen::default() });
        Token(self.streams.len() as u32 - 1)
    }

    /// Charge of what has not been consumed.
    pub(crate) fn unread_bytes(&self) -> u64 {
        self.streams.iter().map(Seen::unread_bytes).sum()
    }

    fn live(&mut self, token: Token) -> &mut Seen {
        let seen = &mut self.streams[token.0 as usize];
        assert!(!seen.is_over, "told of a stream that is over");
        seen
    }
}

impl Seen {
    fn unread_bytes(&self) -> u64 {
        self.unread.iter().map(|bytes| *bytes as u64 + u64::from(FRAME_CHARGE)).sum()
    }
}

impl Application for Listener {
    fn opened(&mut self, id: StreamId, _kind: StreamKind) -> Token {
        self.add(Some(id))
    }

    fn data(&mut self, stream: Token, data: Bytes, end: End) {
        let writer = match self.side {
            Side::ConnectionPoint => Side::Instance,
            Side::Instance => Side::ConnectionPoint,
        };
        let trusts = self.trusts;
        let seen = self.live(stream);
        assert!(!seen.ended && !seen.reset && !seen.unwanted, "data behind the end");
        let expected = text(seen.id.unwrap(), writer, seen.bytes, data.len());
        assert!(!trusts || expected.eq(data.iter().copied()), "other bytes than were written");
        seen.bytes += data.len() as u64;
        seen.unread.push(data.len());
        if end != End::None {
            seen.parts.push(seen.bytes);
        }
        seen.ended = end == End::Stream;
    }

    fn unread(&self, stream: Token, id: StreamId) -> u64 {
        let seen = &self.streams[stream.0 as usize];
        assert_eq!(seen.id, Some(id), "no token is given twice");
        seen.unread_bytes()
    }

    fn too_slow(&mut self, stream: Token) {
        let seen = &mut self.streams[stream.0 as usize];
        assert!(!seen.reset && !seen.unwanted && !seen.unread.is_empty(), "there is no reason");
        seen.unwanted = true;
        seen.unread.clear();
    }

    fn reset(&mut self, stream: Token, _code: StreamCode) {
        let seen = self.live(stream);
        assert!(!seen.ended && !seen.reset && !seen.unwanted, "a second end");
        seen.reset = true;
        seen.unread.clear();
    }

    fn stopped(&mut self, stream: Token, _code: StreamCode) {
        let seen = self.live(stream);
        seen.finished = true;
        seen.stopped = true;
    }

    fn writable(&mut self, stream: Token) {
        self.live(stream);
    }

    fn retired(&mut self, stream: Token) {
        let side = self.side;
        let seen = self.live(stream);
        seen.is_over = true;
        if opener(seen.id.unwrap()) != side {
            self.unfinished += 1;
        }
    }

    fn tickets(&mut self) {}

    fn draining(&mut self, _code: CloseCode, _grace: Duration) {}

    fn closed(&mut self, _code: CloseCode, _text: &str) {}
}
