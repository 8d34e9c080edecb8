//! The public end: client front, authentication, routing, channel acceptor.
//!
//! One process is one instance. Each shard is a thread with its own client listener and its own
//! channel to each connection point; a client's bytes never leave its shard. Start reading at
//! `shard`, then `front` for clients and `links` for connection points.

#![forbid(unsafe_code)]

mod control;
mod front;
mod gateway;
mod instance;
mod links;
mod router;
mod settings;
mod shard;
mod sites;

pub use gateway::Gateway;
pub use settings::GatewayConfig;
