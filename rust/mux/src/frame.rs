//! The wire format: an 8-byte header, then a body.
//!
//! Header, little endian: `len: 24` (body bytes), `type: 5`, `flags: 3`, `stream: 32`. *Tracked*
//! frames count towards the channel's position and stay in the replay ring until acknowledged;
//! *untracked* ones are idempotent and carry the latest value only.

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::error::ProtocolError;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 8;
/// Longest body in bytes: header and body fill one TLS record of 16 KiB.
pub const MAX_BODY: usize = 16 * 1024 - HEADER_BYTES;
/// What a frame with data costs in credit on top of its data, in bytes, so that tiny frames cannot
/// inflate the receiver's memory.
pub const FRAME_CHARGE: u32 = 32;
/// Longest text of a CLOSE in bytes.
pub const MAX_CLOSE_TEXT: usize = 256;

/// Last frame of this half.
pub const FIN: u8 = 1;
/// End of a part.
pub const EOM: u8 = 2;
/// A receiver that does not know the type skips the frame.
pub const IGNORABLE: u8 = 4;

/// Frame types.
pub mod kind {
    /// Tracked: opens a stream; `kind: u8`, 3 reserved bytes, then data.
    pub const OPEN: u8 = 0x01;
    /// Tracked: data of a stream.
    pub const DATA: u8 = 0x02;
    /// Tracked: `max: u64`, absolute.
    pub const CREDIT: u8 = 0x03;
    /// Tracked: `code: u32, final: u64`.
    pub const RESET: u8 = 0x04;
    /// Tracked: `code: u32`.
    pub const STOP: u8 = 0x05;
    /// Tracked: `max_opens: u64`, absolute.
    pub const TICKETS: u8 = 0x06;
    /// Tracked: `opens_accepted: u64, code: u32, grace_ms: u32`.
    pub const GOAWAY: u8 = 0x07;
    /// Untracked: `rx_pos: u64, delay_us: u32`.
    pub const ACK: u8 = 0x10;
    /// Untracked: `id: u64`.
    pub const PING: u8 = 0x11;
    /// Untracked: `id: u64, rx_pos: u64`.
    pub const PONG: u8 = 0x12;
    /// Untracked: TLV, see [`Hello`](crate::Hello).
    pub const HELLO: u8 = 0x13;
    /// Untracked: TLV, see [`HelloOk`](crate::HelloOk).
    pub const HELLO_OK: u8 = 0x14;
    /// Untracked: see [`Resume`](crate::Resume).
    pub const RESUME: u8 = 0x15;
    /// Untracked: see [`Resumed`](crate::Resumed).
    pub const RESUMED: u8 = 0x16;
    /// Untracked: `code: u32`, then text.
    pub const CLOSE: u8 = 0x17;

    /// Whether a frame of this type counts towards the position.
    #[must_use]
    pub const fn is_tracked(kind: u8) -> bool {
        kind < 0x10
    }

    /// The type's name, for messages.
    #[must_use]
    pub const fn name(kind: u8) -> &'static str {
        match kind {
            OPEN => "OPEN",
            DATA => "DATA",
            CREDIT => "CREDIT",
            RESET => "RESET",
            STOP => "STOP",
            TICKETS => "TICKETS",
            GOAWAY => "GOAWAY",
            ACK => "ACK",
            PING => "PING",
            PONG => "PONG",
            HELLO => "HELLO",
            HELLO_OK => "HELLO_OK",
            RESUME => "RESUME",
            RESUMED => "RESUMED",
            CLOSE => "CLOSE",
            _ => "unknown",
        }
    }
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StreamKind {
    /// Messages between connection point and instance about the site.
    Control,
    /// One HTTP exchange.
    Exchange,
}

impl StreamKind {
    pub(crate) const fn to_wire(self) -> u8 {
        match self {
            Self::Control => 0,
            Self::Exchange => 1,
        }
    }

    pub(crate) const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Control),
            1 => Some(Self::Exchange),
            _ => None,
        }
    }
}

/// Names one stream of a channel: `initiator: 1 | generation: 8 | index: 23`.
///
/// The initiator bit is 0 for the connection point and 1 for the instance; indexes start at 1, and
/// an index that is used again has the next generation. Zero is the channel itself.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StreamId(u32);

impl StreamId {
    /// The channel itself.
    pub const CHANNEL: Self = Self(0);

    pub(crate) const fn new(initiator: u32, generation: u8, index: u32) -> Self {
        Self(initiator << 31 | (generation as u32) << 23 | index)
    }

    /// The id as it stands on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self.0
    }

    /// The id that `wire` stands for; any value is one.
    #[must_use]
    pub const fn from_wire(wire: u32) -> Self {
        Self(wire)
    }

    pub(crate) const fn initiator(self) -> u32 {
        self.0 >> 31
    }

    pub(crate) const fn generation(self) -> u8 {
        (self.0 >> 23 & 0xff) as u8
    }

    pub(crate) const fn index(self) -> u32 {
        self.0 & 0x7f_ffff
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.initiator() == 0 { 'p' } else { 'i' };
        write!(f, "{side}{}.{}", self.index(), self.generation())
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Body bytes.
    pub length: u32,
    /// Frame type, one of [`kind`].
    pub kind: u8,
    /// [`FIN`], [`EOM`], [`IGNORABLE`].
    pub flags: u8,
    /// The stream that the frame belongs to.
    pub stream: StreamId,
}

impl Header {
    /// Decodes the header at the front of `input`; `None` while fewer than 8 bytes are there.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::FrameSize`] if the announced body is longer than [`MAX_BODY`].
    pub fn decode(input: &[u8]) -> Result<Option<Self>, ProtocolError> {
        let Some(&[a, b, c, d, e, f, g, h]) = input.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Self {
            length: u32::from_le_bytes([a, b, c, 0]),
            kind: d & 0x1f,
            flags: d >> 5,
            stream: StreamId(u32::from_le_bytes([e, f, g, h])),
        };
        if header.length as usize > MAX_BODY {
            let max = u32::try_from(MAX_BODY).unwrap_or(u32::MAX);
            return Err(ProtocolError::FrameSize { kind: header.kind, length: header.length, max });
        }
        Ok(Some(header))
    }

    /// The header's 8 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let [a, b, c, _] = self.length.to_le_bytes();
        let [e, f, g, h] = self.stream.0.to_le_bytes();
        [a, b, c, self.kind | self.flags << 5, e, f, g, h]
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub const fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.length as usize
    }
}

/// A decoded frame with a fixed body; OPEN and DATA, whose bodies are payload, are not among them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Control {
    /// Limit of the charge that may be sent on the stream.
    Credit {
        /// Absolute limit.
        max: u64,
    },
    /// The sender abandons its half.
    Reset {
        /// Why.
        code: u32,
        /// Charge sent on the half in all.
        offset: u64,
    },
    /// The sender wants no more of the stream's other half.
    Stop {
        /// Why.
        code: u32,
    },
    /// Limit of the streams that may be opened.
    Tickets {
        /// Absolute limit.
        max_opens: u64,
    },
    /// The sender accepts no further streams.
    GoAway {
        /// Streams it has accepted in all.
        opens_accepted: u64,
        /// Why.
        code: u32,
        /// How long the accepted ones may go on, in milliseconds.
        grace_ms: u32,
    },
    /// All tracked frames up to a position have arrived.
    Ack {
        /// The position.
        rx_pos: u64,
        /// Microseconds between the arrival and this frame.
        delay_us: u32,
    },
    /// Asks for a PONG.
    Ping {
        /// Comes back in the PONG.
        id: u64,
    },
    /// Answers a PING.
    Pong {
        /// The PING's id.
        id: u64,
        /// As in ACK.
        rx_pos: u64,
    },
    /// The channel ends.
    Close {
        /// Why.
        code: u32,
        /// Why, in words for the operator; at most [`MAX_CLOSE_TEXT`] bytes.
        text: String,
    },
}

impl Control {
    /// Decodes the body of a frame of any type but OPEN, DATA and those of the handshake.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Malformed`] for a wrong length, flag or stream field, and
    /// [`ProtocolError::UnknownFrame`] for a type that is none of these.
    pub fn decode(header: &Header, body: &[u8]) -> Result<Self, ProtocolError> {
        let frame = kind::name(header.kind);
        let malformed = |what| ProtocolError::Malformed { frame, what };
        let mut body = Body::new(frame, body);
        let control = match header.kind {
            kind::CREDIT => Self::Credit { max: body.u64()? },
            kind::RESET => Self::Reset { code: body.u32()?, offset: body.u64()? },
            kind::STOP => Self::Stop { code: body.u32()? },
            kind::TICKETS => Self::Tickets { max_opens: body.u64()? },
            kind::GOAWAY => Self::GoAway {
                opens_accepted: body.u64()?,
                code: body.u32()?,
                grace_ms: body.u32()?,
            },
            kind::ACK => Self::Ack { rx_pos: body.u64()?, delay_us: body.u32()? },
            kind::PING => Self::Ping { id: body.u64()? },
            kind::PONG => Self::Pong { id: body.u64()?, rx_pos: body.u64()? },
            kind::CLOSE => {
                let code = body.u32()?;
                let text = std::mem::take(&mut body.rest);
                if text.len() > MAX_CLOSE_TEXT {
                    return Err(malformed("text is longer than 256 bytes"));
                }
                Self::Close { code, text: String::from_utf8_lossy(text).into_owned() }
            }
            kind => return Err(ProtocolError::UnknownFrame { kind }),
        };
        body.finish()?;
        if header.flags & !IGNORABLE != 0 {
            return Err(malformed("flags that do not belong to its type"));
        }
        let of_stream = matches!(header.kind, kind::CREDIT | kind::RESET | kind::STOP);
        if of_stream != (header.stream != StreamId::CHANNEL) {
            return Err(malformed("stream field does not fit its type"));
        }
        Ok(control)
    }

    /// Appends the frame for `stream` to `out`.
    pub fn encode(&self, stream: StreamId, out: &mut BytesMut) {
        let (kind, length) = match self {
            Self::Credit { .. } => (kind::CREDIT, 8),
            Self::Reset { .. } => (kind::RESET, 12),
            Self::Stop { .. } => (kind::STOP, 4),
            Self::Tickets { .. } => (kind::TICKETS, 8),
            Self::GoAway { .. } => (kind::GOAWAY, 16),
            Self::Ack { .. } => (kind::ACK, 12),
            Self::Ping { .. } => (kind::PING, 8),
            Self::Pong { .. } => (kind::PONG, 16),
            Self::Close { text, .. } => (kind::CLOSE, 4 + length_of(close_text(text))),
        };
        out.put_slice(&Header { length, kind, flags: 0, stream }.encode());
        match self {
            Self::Credit { max } => out.put_u64_le(*max),
            Self::Reset { code, offset } => {
                out.put_u32_le(*code);
                out.put_u64_le(*offset);
            }
            Self::Stop { code } => out.put_u32_le(*code),
            Self::Tickets { max_opens } => out.put_u64_le(*max_opens),
            Self::GoAway { opens_accepted, code, grace_ms } => {
                out.put_u64_le(*opens_accepted);
                out.put_u32_le(*code);
                out.put_u32_le(*grace_ms);
            }
            Self::Ack { rx_pos, delay_us } => {
                out.put_u64_le(*rx_pos);
                out.put_u32_le(*delay_us);
            }
            Self::Ping { id } => out.put_u64_le(*id),
            Self::Pong { id, rx_pos } => {
                out.put_u64_le(*id);
                out.put_u64_le(*rx_pos);
            }
            Self::Close { code, text } => {
                out.put_u32_le(*code);
                out.put_slice(close_text(text).as_bytes());
            }
        }
    }
}

/// Bytes of a text that is known to be short.
fn length_of(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

/// The part of `text` that a CLOSE carries: at most [`MAX_CLOSE_TEXT`] bytes of whole characters.
fn close_text(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_CLOSE_TEXT)]
}

/// Reads fixed fields off the front of a body.
pub(crate) struct Body<'a> {
    frame: &'static str,
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    /// The body of a frame with the name `frame`.
    pub(crate) fn new(frame: &'static str, rest: &'a [u8]) -> Self {
        Self { frame, rest }
    }

    /// Refuses a body that has more than was read of it.
    pub(crate) fn finish(&self) -> Result<(), ProtocolError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(ProtocolError::Malformed { frame: self.frame, what: "body is too long" })
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(ProtocolError::Malformed { frame: self.frame, what: "body is too short" })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_as_its_side_its_index_and_its_generation() {
        let (point, instance) = (StreamId::new(0, 0, 1), StreamId::new(1, 7, 0x7f_ffff));
        assert_eq!(format!("{point} {instance}"), "p1.0 i8388607.7");
        assert_eq!(format!("{point:?} {instance:?}"), "StreamId(p1.0) StreamId(i8388607.7)");
    }
}
