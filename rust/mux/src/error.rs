//! What can go wrong: the peer's fault, the caller's fault, and the codes on the wire.

use std::fmt;

use crate::frame::StreamId;

/// The peer broke the protocol. Always ends the channel.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A frame body is longer than the protocol allows.
    #[error("frame of type {kind:#04x} announces {length} bytes; at most {max} are allowed")]
    FrameSize {
        /// The frame's type.
        kind: u8,
        /// The announced body length in bytes.
        length: u32,
        /// The longest body allowed for it.
        max: u32,
    },
    /// The peer went on to send before it had its answer.
    #[error("peer sent {bytes} bytes before its link was accepted; at most {max} are allowed")]
    EarlyBytes {
        /// What it sent, in bytes.
        bytes: usize,
        /// The most that it may send.
        max: usize,
    },
    /// A frame type that is neither known nor ignorable.
    #[error("unknown frame type {kind:#04x}")]
    UnknownFrame {
        /// The frame's type.
        kind: u8,
    },
    /// A frame whose body, flags or stream field do not fit its type.
    #[error("malformed {frame} frame: {what}")]
    Malformed {
        /// The frame's name.
        frame: &'static str,
        /// What does not fit.
        what: &'static str,
    },
    /// The peer sent more than it was granted.
    #[error("stream {stream} exceeded its credit by {excess_bytes} bytes")]
    CreditExceeded {
        /// The stream.
        stream: StreamId,
        /// Bytes of charge beyond the credit.
        excess_bytes: u32,
    },
    /// The peer opened more streams than it had tickets for.
    #[error("peer opened stream number {opened} with tickets for {allowed}")]
    OpenLimit {
        /// Ordinal of the offending open.
        opened: u64,
        /// Opens allowed so far.
        allowed: u64,
    },
    /// A frame on a stream that cannot receive it.
    #[error("{frame} on stream {stream}: {what}")]
    StreamState {
        /// The frame's name.
        frame: &'static str,
        /// The stream.
        stream: StreamId,
        /// Why the stream cannot receive it.
        what: &'static str,
    },
    /// The peer acknowledged a position outside of what is in flight.
    #[error("peer acknowledged position {position}; {acked}..={encoded} is possible")]
    AckRange {
        /// The position it named.
        position: u64,
        /// The position it had acknowledged before.
        acked: u64,
        /// The position encoded so far.
        encoded: u64,
    },
    /// The peer acknowledged a part of a frame.
    #[error("peer acknowledged position {position}, inside of a frame")]
    AckBoundary {
        /// The position it named.
        position: u64,
    },
    /// The peer says that it took more streams than were opened, or than it said before.
    #[error("peer drains after {accepted} opens; at most {possible} are possible")]
    GoAwayRange {
        /// The count that it named.
        accepted: u64,
        /// The highest possible one.
        possible: u64,
    },
    /// The peer resumes from a position at which bytes would be missing or made up.
    #[error("peer resumes at {what} {position}; {first}..={last} is possible")]
    ResumeRange {
        /// Which of its positions.
        what: &'static str,
        /// The position it named.
        position: u64,
        /// The first possible one.
        first: u64,
        /// The last possible one.
        last: u64,
    },
    /// What the peer sends again does not end where it has been applied before.
    #[error("replayed {frame} frame runs {excess_bytes} bytes beyond what was applied before")]
    ReplayBoundary {
        /// The frame's name.
        frame: &'static str,
        /// Bytes beyond the boundary.
        excess_bytes: u64,
    },
    /// A reset names another length than what arrived.
    #[error("reset of stream {stream} at offset {claimed}, but {received} bytes arrived")]
    FinalOffset {
        /// The stream.
        stream: StreamId,
        /// Offset in the frame.
        claimed: u64,
        /// Offset here.
        received: u64,
    },
    /// The peer sent more frames that cost it nothing than it may.
    #[error("too many PINGs, resets, stops and tiny credits; the last was a {frame}")]
    Churn {
        /// The name of the frame that was too much.
        frame: &'static str,
    },
    /// The handshake did not offer a version that both ends speak.
    #[error("peer speaks protocol version {theirs}, we speak {ours}")]
    Version {
        /// The peer's version.
        theirs: u16,
        /// Our version.
        ours: u16,
    },
}

impl ProtocolError {
    /// The code that CLOSE carries for this error.
    #[must_use]
    pub fn code(&self) -> CloseCode {
        match self {
            Self::FrameSize { .. } | Self::EarlyBytes { .. } => CloseCode::FRAME_SIZE,
            Self::UnknownFrame { .. } => CloseCode::UNKNOWN_FRAME,
            Self::Malformed { .. } => CloseCode::MALFORMED,
            Self::CreditExceeded { .. } => CloseCode::FLOW,
            Self::OpenLimit { .. } => CloseCode::OPEN_LIMIT,
            Self::StreamState { .. } | Self::FinalOffset { .. } => CloseCode::STREAM_STATE,
            Self::AckRange { .. } | Self::AckBoundary { .. } | Self::GoAwayRange { .. } => {
                CloseCode::ACK_RANGE
            }
            Self::ResumeRange { .. } | Self::ReplayBoundary { .. } => CloseCode::RESUME_RANGE,
            Self::Churn { .. } => CloseCode::CHURN,
            Self::Version { .. } => CloseCode::VERSION,
        }
    }
}

/// A call that the channel cannot carry out. Nothing has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// The peer allows no further stream at present.
    #[error("the peer allows no further stream at present")]
    NoTicket,
    /// The peer is draining and takes no new streams.
    #[error("the peer is draining and takes no new streams")]
    Draining,
    /// The channel has no link at present.
    #[error("the channel waits for a new link")]
    Detached,
    /// No stream with this id is live.
    #[error("no live stream has this id")]
    UnknownStream,
    /// The sending half has been finished, reset or stopped.
    #[error("the sending half is closed")]
    Closed,
    /// The stream's send queue is full.
    #[error("the stream's send queue is full")]
    QueueFull,
}

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $code:ident = $value:literal, $words:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Eq, Hash, PartialEq)]
        pub struct $name(pub u32);

        impl $name {
            $($(#[$doc])* pub const $code: Self = Self($value);)*

            /// The code's name; `None` for a code of the application.
            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($code)),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($value => f.write_str($words),)*
                    other => write!(f, "code {other:#x}"),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{:#x}", self.0),
                }
            }
        }
    };
}

codes! {
    /// Why a stream was reset or stopped. Codes from 0x100 up belong to the application.
    StreamCode {
        /// The application gave up the stream.
        CANCELLED = 1, "cancelled";
        /// The acceptor refused the stream; its application never saw it, so it may be retried.
        REFUSED = 2, "refused before anybody saw it";
        /// The reader was too slow for the memory that it held.
        SLOW_CONSUMER = 3, "the reader was too slow";
        /// The channel ended.
        CHANNEL_LOST = 4, "the channel was lost";
        /// A fault at the far end.
        INTERNAL = 5, "internal fault at the far end";
    }
}

impl CloseCode {
    /// The name of a counter of what had the code: `how` and the code's own name, such as
    /// `closed_shutdown`; `other` for the latter if the peer made the code up.
    #[must_use]
    pub fn counter(self, how: &str) -> String {
        format!("{how}_{}", self.name().unwrap_or("OTHER").to_lowercase())
    }
}

codes! {
    /// Why a channel was closed; travels in CLOSE.
    CloseCode {
        /// Planned end of the process or of its configuration.
        SHUTDOWN = 0, "planned shutdown";
        /// A frame body was too long.
        FRAME_SIZE = 1, "frame too long";
        /// A frame type was unknown and not ignorable.
        UNKNOWN_FRAME = 2, "unknown frame";
        /// A frame was malformed.
        MALFORMED = 3, "malformed frame";
        /// More data than credit.
        FLOW = 4, "credit exceeded";
        /// More streams than tickets.
        OPEN_LIMIT = 5, "too many streams";
        /// A frame on a stream that could not receive it.
        STREAM_STATE = 6, "frame on a stream that cannot receive it";
        /// An acknowledgement of bytes or streams that were not sent.
        ACK_RANGE = 7, "impossible acknowledgement";
        /// No common protocol version.
        VERSION = 8, "no common protocol version";
        /// The link reached another instance than the one it was meant for.
        WRONG_INSTANCE = 9, "wrong instance";
        /// The channel ordinal is not one of this instance's shards.
        WRONG_ORDINAL = 10, "no such shard";
        /// The certificate may not speak for the site that it names.
        NOT_VOUCHED = 11, "certificate not accepted for this site";
        /// A newer channel of the same connection point took this one's place.
        REPLACED = 12, "replaced by a newer channel of the same connection point";
        /// The instance is draining.
        DRAINING = 13, "the instance is draining";
        /// A fault of this end.
        INTERNAL = 14, "internal fault";
        /// A resume at a position where bytes would be missing or made up.
        RESUME_RANGE = 15, "impossible resume";
        /// Too many frames that cost their sender nothing.
        CHURN = 16, "too many frames that change nothing";
    }
}

codes! {
    /// What became of a RESUME; travels in RESUMED.
    ResumeCode {
        /// The channel goes on over this link.
        ACCEPTED = 0, "accepted";
        /// No channel of this connection point answers to the id and the proof.
        UNKNOWN_CHANNEL = 1, "no such channel, or not this connection point's";
        /// The channel belongs to another instance.
        WRONG_INSTANCE = 2, "wrong instance";
        /// An attempt with the same number or a later one came first.
        STALE_EPOCH = 3, "a later attempt came first";
        /// Too many failed attempts, or no room to take the link; the channel stays as it is.
        BUSY = 4, "not now";
    }
}
