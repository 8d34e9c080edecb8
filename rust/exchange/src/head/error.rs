//! Why a head is refused.

use http::HeaderName;

use crate::lines::{BlockError, BlockLimits};
use crate::refusal::Reason;
use crate::target::TargetError;

/// A head, from a client or on a stream, that is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// Longer than its limit.
    #[error("it is longer than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// More fields than the limit.
    #[error("it has more than {limit} fields")]
    TooManyFields {
        /// The limit.
        limit: usize,
    },
    /// The request line is longer than a target within its limit needs.
    #[error("its request line is longer than {limit_bytes} bytes")]
    RequestLineTooLong {
        /// The limit.
        limit_bytes: usize,
    },
    /// A line that does not end in CR LF.
    #[error("a line does not end in CR LF")]
    LineEnding,
    /// Not the syntax of HTTP/1.1.
    #[error("{0}")]
    Malformed(&'static str),
    /// The request target is refused.
    #[error("the request target is refused")]
    Target(#[from] TargetError),
    /// Another version than HTTP/1.1.
    #[error("its version is not HTTP/1.1")]
    Version,
    /// No `Host`, several, one that is no authority, or one that contradicts an absolute target.
    #[error("{0}")]
    Host(&'static str),
    /// Readers could disagree where the body ends.
    #[error("{0}")]
    Framing(&'static str),
    /// An `Expect` other than `100-continue`.
    #[error("the only expectation that can be met is 100-continue")]
    Expectation,
    /// A hop-by-hop field where only end-to-end fields may be.
    #[error("the field {0} must not travel on a stream")]
    HopByHop(HeaderName),
    /// A field that must not be a trailer.
    #[error("the field {0} must not be a trailer")]
    NotInTrailers(HeaderName),
    /// A field that may be there only once.
    #[error("the field {0} is there more than once")]
    Repeated(HeaderName),
}

impl HeadError {
    /// The reason to give a client whose request head this is.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. } | Self::TooManyFields { .. } => Reason::HeadTooLarge,
            Self::RequestLineTooLong { .. } | Self::Target(TargetError::TooLong) => {
                Reason::TargetTooLong
            }
            Self::Target(_) => Reason::BadTarget,
            Self::Version => Reason::VersionNotSupported,
            Self::Framing(_) => Reason::AmbiguousFraming,
            Self::Expectation => Reason::ExpectationFailed,
            Self::LineEnding
            | Self::Malformed(_)
            | Self::Host(_)
            | Self::HopByHop(_)
            | Self::NotInTrailers(_)
            | Self::Repeated(_) => Reason::BadHead,
        }
    }

    pub(crate) fn of_block(error: BlockError, limits: BlockLimits) -> Self {
        match error {
            BlockError::FirstLineTooLong => {
                Self::RequestLineTooLong { limit_bytes: limits.first_line_bytes }
            }
            BlockError::TooLong => Self::TooLarge { limit_bytes: limits.block_bytes },
            BlockError::TooManyFields => Self::TooManyFields { limit: limits.fields },
            BlockError::LineEnding => Self::LineEnding,
        }
    }

    pub(crate) fn of_syntax(error: httparse::Error) -> Self {
        Self::Malformed(match error {
            httparse::Error::HeaderName => "a field name is malformed",
            httparse::Error::HeaderValue => "a field value is malformed",
            httparse::Error::NewLine => "a line end is malformed",
            httparse::Error::Status => "the status is malformed",
            httparse::Error::Token => "the request line is malformed",
            httparse::Error::TooManyHeaders => "it has too many fields",
            httparse::Error::Version => "the version is malformed",
        })
    }
}
