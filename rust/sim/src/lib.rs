//! The channel protocol under faults; development only.
//!
//! [`handshake`] walks through every order in which two ends can lose a link and move to another.

#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "what is simulated fits into memory, and its numbers into any integer"
)]

mod audit;
pub mod handshake;
