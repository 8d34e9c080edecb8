//! What runs have seen.

use std::fmt;
use std::ops::AddAssign;

/// Totals of one run or many.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Runs.
    pub seeds: u64,
    /// Time that passed in them.
    pub virtual_ms: u64,
    /// Things that happened.
    pub events: u64,
    /// Streams that were opened.
    pub streams: u64,
    /// Links that died, by whatever cause.
    pub link_deaths: u64,
    /// Of them, those found silent.
    pub silent: u64,
    /// Moves of a channel to a new link.
    pub resumes: u64,
    /// Ends of channels, each end's counted.
    pub channels: u64,
    /// Of them, those that had no link in time.
    pub expired: u64,
    /// Streams given up at an end because what it holds unread was too much.
    pub too_slow: u64,
    /// Frames received.
    pub frames: u64,
    /// Bytes received and compared with what was written.
    pub compared_bytes: u64,
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.virtual_ms += other.virtual_ms;
        self.events += other.events;
        self.streams += other.streams;
        self.link_deaths += other.link_deaths;
        self.silent += other.silent;
        self.resumes += other.resumes;
        self.channels += other.channels;
        self.expired += other.expired;
        self.too_slow += other.too_slow;
        self.frames += other.frames;
        self.compared_bytes += other.compared_bytes;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, virtual_ms, events, streams, link_deaths, silent, resumes, .. } = self;
        let Self { channels, expired, too_slow, frames, compared_bytes, .. } = self;
        write!(f, "{seeds} seeds, {} virtual seconds, {events} events, ", virtual_ms / 1_000)?;
        write!(f, "{link_deaths} link deaths ({silent} of them silent), {resumes} resumes, ")?;
        write!(f, "{channels} ends of channels ({expired} without a link in time), ")?;
        write!(f, "{streams} streams ({too_slow} read too slowly), {frames} frames, ")?;
        write!(f, "{compared_bytes} bytes compared: ")?;
        write!(f, "0 lost, doubled, moved or mixed, 0 streams lost within the window")
    }
}
