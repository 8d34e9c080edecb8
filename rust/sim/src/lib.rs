//! The channel protocol under faults; development only.
//!
//! [`handshake`] walks through every order in which two ends can lose a link and move to another.
//! [`run`](run::run) plays long conversations over bad links in virtual time, each drawn from a seed;
//! [`cuts`] plays one and cuts its links at every byte.

#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "what is simulated fits into memory, and its numbers into any integer"
)]

mod audit;
pub mod cuts;
pub mod handshake;
pub mod plan;
mod report;
pub mod run;
mod world;

pub use report::Report;
