//! Links, channel driver, identities, shards: everything that touches a socket.

#![forbid(unsafe_code)]

pub mod admin;
pub mod backoff;
mod book;
mod channel;
mod driver;
mod handshake;
mod id;
pub mod identity;
mod inbox;
mod ledger;
mod link;
pub mod listen;
mod pages;
pub mod pki;
pub mod service;
pub mod setting;
pub mod shard;
mod stream;
pub mod tls;

pub use channel::{Channel, ChannelStats, EndReason, Incoming, LinkLoss, OUTAGE_MARKS, OpenError};
pub use cmgmux_exchange::parts::End;
pub use cmgmux_mux::{CloseCode, FRAME_CHARGE, Hello, Limits, ResumeCode, StreamCode, StreamKind};
pub use handshake::{
    Arrival, Established, HANDSHAKE_TIMEOUT, HandshakeError, Offer, Peer, ResumeOffer, greet,
};
pub use id::Id;
pub use identity::PeerIdentity;
pub use ledger::{Counts, Ledger};
pub use link::poll_send;
pub use service::{ConfigError, Service, ServiceError};
pub use stream::{Chunk, RecvStream, SendStream, StreamError};
