//! Settings of a channel: what this end allows, and what both ends agreed on.

use std::time::Duration;

/// What one end allows the other; travels in HELLO and HELLO_OK.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Streams that the peer may have live, an unfinished handler counting as live. The default is
    /// 65,536 for exchanges; a live stream costs a 64-byte slot, plus its unread bytes.
    pub max_streams: u32,
    /// Credit in bytes that each stream starts with, at least 16 KiB. The default, 36 KiB, holds
    /// the largest head; it costs nothing until bytes arrive. Raise it to bandwidth times
    /// round-trip time for bulk over long distances.
    pub window_bytes: u32,
}

impl Limits {
    /// Smallest `window_bytes` that the protocol accepts.
    pub const MIN_WINDOW_BYTES: u32 = 16 * 1024;
    /// Largest `window_bytes` that the protocol accepts.
    pub const MAX_WINDOW_BYTES: u32 = 1 << 30;
    /// Largest `max_streams` that the protocol accepts: what a stream id can number.
    pub const MAX_STREAMS: u32 = (1 << 23) - 1;
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_streams: 65_536, window_bytes: 36 * 1024 }
    }
}

/// Settings of one end of a channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// What we allow the peer.
    pub local: Limits,
    /// What the peer allows us.
    pub peer: Limits,
    /// Largest credit that a stream may have: 8 MiB. The window of a stream that is read as fast as it
    /// arrives grows up to it.
    pub max_window_bytes: u32,
    /// Charge that the application may hold unread, over all streams: 64 MiB. Beyond it the streams
    /// that have been unread for longest are given up; beyond a quarter of it windows do not grow,
    /// which leaves the rest to the first windows of others.
    pub budget_bytes: u64,
    /// Charge that one stream may queue before its writer has to wait: 64 KiB, or its share of 8 MiB
    /// among the streams that have something queued, if that is less. As in credit, a piece costs its
    /// length and [`FRAME_CHARGE`](crate::FRAME_CHARGE).
    pub queue_bytes: u32,
    /// Bytes sent but not acknowledged that the replay ring holds before every writer has to wait:
    /// 16 MiB. Raise it to bandwidth times round-trip time; that much memory a channel is at stake.
    pub ring_bytes: u64,
    /// PINGs, given up streams and credits that do not matter which the peer may send in a second: 10,000.
    /// More end the channel.
    pub churn_per_s: u32,
    /// How many of these it may send at once: 65,536, as many as there may be streams.
    pub churn_burst: u32,
    /// Longest time that an acknowledgement waits for company: 25 ms.
    pub ack_delay: Duration,
    /// Received bytes that an acknowledgement does not wait beyond: 32 KiB.
    pub ack_bytes: u64,
    /// Silence after which an idle link is probed: 15 s.
    pub idle_probe: Duration,
    /// Time without acknowledged progress after which a busy link is probed: 1 s, or three
    /// round-trip times if that is longer.
    pub busy_probe: Duration,
    /// Time that a probe may stay unanswered before the link counts as dead: 3 s, or four
    /// round-trip times if that is longer.
    pub probe_timeout: Duration,
    /// Time that the bytes of one frame may take to arrive before the link counts as dead: 30 s.
    pub frame_timeout: Duration,
    /// Time that a channel without a link waits for a new one: 60 s. What is under way is kept for
    /// that long.
    pub resume_window: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            local: Limits::default(),
            peer: Limits::default(),
            max_window_bytes: 8 * 1024 * 1024,
            budget_bytes: 64 * 1024 * 1024,
            queue_bytes: 64 * 1024,
            ring_bytes: 16 * 1024 * 1024,
            churn_per_s: 10_000,
            churn_burst: 65_536,
            ack_delay: Duration::from_millis(25),
            ack_bytes: 32 * 1024,
            idle_probe: Duration::from_secs(15),
            busy_probe: Duration::from_secs(1),
            probe_timeout: Duration::from_secs(3),
            frame_timeout: Duration::from_secs(30),
            resume_window: Duration::from_secs(60),
        }
    }
}
