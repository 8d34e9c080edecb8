//! An exchange as the parts of a stream.
//!
//! In each direction a stream carries, in this order: interim heads (answers only), the head, the
//! body, and perhaps trailers. [`End::Part`] ends each, [`End::Stream`] the last. A message without
//! a body may end with its head. After a head of status 101 each direction carries raw bytes to its
//! end. [`Reader`] and [`Writer`] hold both ends to that order and to
//! `Content-Length`.

mod account;
mod reader;
mod writer;

pub(crate) use self::account::Account;
pub use self::reader::{Event, Reader, Received};
pub use self::writer::{Piece, Writer};
use crate::code;
use crate::head::HeadError;

/// The most interim heads before the head of an answer.
pub const MAX_INTERIM_HEADS: u8 = 16;

/// What a piece of a stream ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Nothing: more of the same part follows.
    None,
    /// The part.
    Part,
    /// The part, if one is open, and the stream.
    Stream,
}

/// The parts of a stream break a rule. The exchange is over: reset or stop the stream with
/// [`code`](Self::code).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PartsError {
    /// A head is refused.
    #[error("the head on the stream is refused")]
    Head(#[source] HeadError),
    /// The trailers are refused.
    #[error("the trailers on the stream are refused")]
    Trailers(#[source] HeadError),
    /// The stream ended before the head.
    #[error("the stream ended before the head")]
    NoHead,
    /// More than [`MAX_INTERIM_HEADS`].
    #[error("there are more than {MAX_INTERIM_HEADS} interim heads")]
    TooManyInterimHeads,
    /// An answer of status 101 to a request that did not ask for it.
    #[error("the answer switches protocols, which the request did not ask for")]
    SwitchesProtocols,
    /// A body or trailers where the head rules them out.
    #[error("a body or trailers follow a head that rules them out")]
    BodyNotAllowed,
    /// The body is longer or shorter than declared.
    #[error("the body has {moved_bytes} bytes or more, Content-Length declares {declared_bytes}")]
    BodyTooLong {
        /// What was declared.
        declared_bytes: u64,
        /// What came so far.
        moved_bytes: u64,
    },
    /// The body ended before its declared length.
    #[error("the body ended after {moved_bytes} bytes, Content-Length declares {declared_bytes}")]
    BodyTooShort {
        /// What was declared.
        declared_bytes: u64,
        /// What came.
        moved_bytes: u64,
    },
    /// A part out of order, such as one after the trailers.
    #[error("a part is out of order")]
    OutOfOrder,
}

impl PartsError {
    /// The code to reset or stop the stream with.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Head(_) | Self::Trailers(_) | Self::SwitchesProtocols => code::BAD_HEAD,
            Self::BodyTooLong { .. } | Self::BodyTooShort { .. } => code::BODY_MISMATCH,
            Self::NoHead | Self::TooManyInterimHeads | Self::BodyNotAllowed | Self::OutOfOrder => {
                code::BAD_PARTS
            }
        }
    }
}
