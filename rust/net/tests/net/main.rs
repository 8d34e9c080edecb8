//! Channels over real TLS on loopback.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

mod channel;
mod clock;
mod cost;
mod endings;
mod liveness;
mod lost;
mod memory;
mod pair;
mod played;
mod polls;
mod relay;
mod resume;
mod rules;
mod strangers;
mod world;
