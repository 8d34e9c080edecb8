//! Fuzz targets: properties that hold for any input. A target panics when its property does not.
//!
//! | target | input | property |
//! | --- | --- | --- |
//! | `frame` | frames | what is decoded is encoded to the same bytes, and takes memory as its bytes do |
//! | `hello` | the body of a handshake's frame | as `frame`, without memory |
//! | `pair` | calls, deliveries, losses of links and claims | both ends of a channel see what was written, once |
//! | `prefix` | the same, then bytes for one end | a refused frame changes nothing; pieces do what the whole does |
//! | `resume` | as `pair`, then a claim or an answer with any positions, then bytes | a refusal changes nothing; who goes on stays in range and falls silent |
//! | `head` | a head of HTTP/1.1 | other readers understand what is accepted in the same way |
//! | `exchange` | the parts of an exchange | pieces give what the whole gives |
//!
//! `corpus/` has inputs that reach different code, found by the fuzzer; the tests replay them.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    reason = "a target panics on purpose, and its numbers are small"
)]

mod exchange;
mod frame;
mod head;
mod hello;
mod listener;
mod pair;
mod prefix;
mod resume;
mod script;
mod victim;
mod world;

pub use head::answer_reader;

/// A function that panics when its property does not hold for the input.
pub type Target = fn(&[u8]);

/// All targets with their names.
pub const TARGETS: [(&str, Target); 7] = [
    ("frame", frame::check),
    ("hello", hello::check),
    ("pair", pair::check),
    ("prefix", prefix::check),
    ("resume", resume::check),
    ("head", head::check),
    ("exchange", exchange::check),
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(other, _)| *other == name).map(|(_, target)| *target)
}
