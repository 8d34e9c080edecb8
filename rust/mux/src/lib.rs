//! The channel protocol as a value: no sockets, clock, locks, threads or randomness.
//!
//! A [`Channel`] carries many [streams](StreamId) over one ordered, reliable link. Its owner feeds
//! it received bytes, the time, and the application's calls; it answers with bytes to write and
//! calls on an [`Application`]. The same inputs give the same outputs, byte for byte.
//!
//! Start reading at [`Channel`]; [`frame`] is the wire format, `replay` the ring that is output
//! queue and retransmission store in one, `scheduler` the order in which streams are served.
//!
//! A channel outlives its links: when one dies, [`Resume`] and [`Resumed`] agree on where each end
//! stands, and what was under way is written again over the next one.

#![forbid(unsafe_code)]

mod blocks;
mod channel;
mod churn;
mod config;
mod credit;
mod error;
mod flight;
pub mod frame;
mod hello;
mod liveness;
mod queue;
mod replay;
mod resume;
mod scheduler;
mod stream;
mod table;
mod time;

pub use blocks::PACKED_BYTES;
pub use channel::{Application, Channel, Counters, End, Expiry, Token};
pub use config::{Config, Limits};
pub use error::{CloseCode, ProtocolError, ResumeCode, StreamCode, UsageError};
pub use frame::{FRAME_CHARGE, MAX_BODY, StreamId, StreamKind};
pub use hello::{Hello, HelloOk, MAX_HELLO_BYTES, PROTOCOL_VERSION, Secret};
pub use resume::{Claim, Resume, Resumed};
pub use stream::Side;
pub use time::Timestamp;
