//! Two channel ends against each other, and one against a hostile peer.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "test code may panic, and its numbers are small"
)]

mod abuse;
mod attempts;
mod behaviour;
mod crowd;
mod drains;
mod floods;
mod flow;
mod frames;
mod indexes;
mod losses;
mod model;
mod order;
mod pair;
mod positions;
mod resume;
mod rules;
mod tables;
mod turns;
