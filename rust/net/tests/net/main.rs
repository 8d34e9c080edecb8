//! Channels over real TLS on loopback.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

mod channel;
mod cost;
mod memory;
mod relay;
mod resume;
mod rules;
mod strangers;
mod world;
