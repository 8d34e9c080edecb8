//! How much may be in flight: what the link holds, and a little more.
//!
//! Whatever is in flight beyond rate times round-trip time only makes a queue, in which small messages
//! wait. Both are estimated from acknowledgements, as BBR does it: the rate at which bytes were
//! delivered is sampled over one flight (draft-cheng-iccrg-delivery-rate-estimation), the highest of the
//! last rounds counts; the lowest round-trip time counts, and when it is old, a short pause lets the
//! queue run empty so that it can be seen again.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

/// In flight at any rate, for links whose round-trip time varies by more than the cap allows for, and for
/// acknowledgements that come in strides.
const MIN_CAP: u64 = 256 * 1024;
/// In flight while the queue runs empty.
const DRAINED_CAP: u64 = 16 * 1024;
/// Ends of batches that are remembered: every one up to the first number, then sparsely up to the
/// second.
const DENSE_MARKS: usize = 64;
const MAX_MARKS: usize = 128;
/// Rounds that a rate counts for, at least; at most twice as many.
const RATE_ROUNDS: u32 = 5;
/// Age at which the lowest round-trip time is to be seen again.
const RTT_AGE: Duration = Duration::from_secs(10);
/// Rounds until the queue has run empty and a round-trip time without it has been seen.
const DRAIN_ROUNDS: u32 = 2;
/// Rounds without 25 % growth after which the link's rate counts as found.
const STALE_ROUNDS: u32 = 3;
/// Encoded ahead of the kernel: this much time at the link's rate, within bounds.
const AHEAD: Duration = Duration::from_millis(2);
const MIN_AHEAD: u64 = 16 * 1024;
const MAX_AHEAD: u64 = 256 * 1024;

/// The estimate for one link.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Never more than this in flight.
    max_bytes: u64,
    cap: u64,
    startup: Option<Startup>,
    drain: Option<Drain>,
    marks: VecDeque<Mark>,
    /// Position written so far.
    sent: u64,
    /// What the newest acknowledgement said, and when the peer had it.
    acked: u64,
    acked_at: Timestamp,
    /// When the newest mark that has been acknowledged was sent.
    first_sent_at: Timestamp,
    /// Samples of what was sent before this position was acknowledged say too little of the link.
    limited_until: u64,

    /// A round ends with the acknowledgement of what had been sent at its beginning.
    round: u32,
    round_end: u64,
    /// Whether the round had a sample that says what the link can do.
    round_counts: bool,
    /// Rounds that did.
    counted: u32,
    /// Highest rate in bytes per second, of the present span of rounds and of the one before.
    rates: [u64; 2],
    min_rtt: Option<Duration>,
    min_rtt_at: Timestamp,
}

/// The link's rate is still being looked for: `best` so far, not surpassed for `stale` rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Startup {
    best: u64,
    stale: u32,
}

/// The queue runs empty until `round`; the lowest round-trip time meanwhile.
#[derive(Clone, Copy, Debug)]
struct Drain {
    round: u32,
    rtt: Option<Duration>,
}

/// The end of a batch, and how things stood when it was sent.
#[derive(Clone, Copy, Debug)]
struct Mark {
    end: u64,
    sent_at: Timestamp,
    first_sent_at: Timestamp,
    acked: u64,
    acked_at: Timestamp,
    limited: bool,
}

impl Flight {
    /// The estimate for a link that takes over at `position`, sent and acknowledged.
    pub(crate) fn new(max_bytes: u64, position: u64, now: Timestamp) -> Self {
        Self {
            max_bytes,
            cap: MIN_CAP.min(max_bytes),
            startup: Some(Startup::default()),
            drain: None,
            marks: VecDeque::new(),
            sent: position,
            acked: position,
            acked_at: now,
            first_sent_at: now,
            limited_until: 0,
            round: 0,
            round_end: position,
            round_counts: false,
            counted: 0,
            rates: [0; 2],
            min_rtt: None,
            min_rtt_at: now,
        }
    }

    /// Bytes that may be in flight.
    pub(crate) fn cap(&self) -> u64 {
        self.cap
    }

    /// Bytes per second that the link delivers, as far as that has been seen; else 0.
    pub(crate) fn rate(&self) -> u64 {
        self.rates[0].max(self.rates[1])
    }

    /// Bytes to be encoded ahead of the kernel; what waits there cannot be overtaken any more.
    pub(crate) fn encode_ahead(&self) -> usize {
        let bytes = match self.rate() {
            0 => MIN_AHEAD,
            rate => in_time(rate, AHEAD).clamp(MIN_AHEAD, MAX_AHEAD),
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Everything up to `position` has been written.
    pub(crate) fn handle_sent(&mut self, now: Timestamp, position: u64) {
        if position == self.sent {
            return;
        }
        if self.sent <= self.acked {
            (self.acked_at, self.first_sent_at) = (now, now);
        }
        self.sent = position;
        let spacing = if self.marks.len() < DENSE_MARKS { 0 } else { self.cap / 64 };
        let far = self.marks.back().is_none_or(|mark| position - mark.end >= spacing);
        if far && self.marks.len() < MAX_MARKS {
            self.marks.push_back(Mark {
                end: position,
                sent_at: now,
                first_sent_at: self.first_sent_at,
                acked: self.acked,
                acked_at: self.acked_at,
                limited: self.limited_until > self.acked,
            });
        }
    }

    /// There is nothing to send although more might be in flight.
    pub(crate) fn handle_dry(&mut self) {
        self.limited_until = self.sent.max(self.acked + 1);
    }

    /// The peer has everything up to `position`, and had it `delay` before it said so; `None` if it
    /// did not say. Returns the round-trip time if there is a sample of it.
    pub(crate) fn handle_ack(
        &mut self,
        now: Timestamp,
        position: u64,
        delay: Option<Duration>,
    ) -> Option<Duration> {
        let mut newest = None;
        while let Some(mark) = self.marks.front().filter(|mark| mark.end <= position).copied() {
            self.marks.pop_front();
            newest = Some(mark);
        }
        let arrived = now.before(delay.unwrap_or_default());
        if position > self.acked {
            self.acked = position;
            self.acked_at = self.acked_at.max(arrived);
        }
        let mark = newest?;
        self.first_sent_at = mark.sent_at;
        self.sample_rate(&mark);
        let rtt = delay.map(|_| arrived.since(mark.sent_at).max(Duration::from_micros(1)));
        if let Some(rtt) = rtt {
            self.sample_rtt(now, rtt);
        }
        if position >= self.round_end {
            self.end_round(now);
        }
        self.update_cap();
        rtt
    }

    fn sample_rate(&mut self, mark: &Mark) {
        let delivery = self.acked_at.since(mark.acked_at);
        let sending = mark.sent_at.since(mark.first_sent_at);
        let shortest = self.min_rtt.unwrap_or_default().max(Duration::from_micros(1));
        if delivery < shortest {
            return; // the clock or the peer's delay is at fault
        }
        let delivered = per_second(self.acked - mark.acked, delivery);
        let rate = match sending {
            Duration::ZERO => delivered,
            sending => delivered.min(per_second(mark.end - mark.acked, sending)),
        };
        if !mark.limited || rate > self.rate() {
            self.rates[0] = self.rates[0].max(rate);
        }
        self.round_counts |= !mark.limited;
    }

    fn sample_rtt(&mut self, now: Timestamp, sample: Duration) {
        if let Some(drain) = &mut self.drain {
            drain.rtt = Some(drain.rtt.map_or(sample, |rtt| rtt.min(sample)));
        }
        if self.min_rtt.is_none_or(|rtt| sample <= rtt) {
            self.min_rtt = Some(sample);
            self.min_rtt_at = now;
        }
    }

    fn end_round(&mut self, now: Timestamp) {
        self.round = self.round.wrapping_add(1);
        self.round_end = self.sent;
        let counts = std::mem::take(&mut self.round_counts);
        if let Some(drain) = self.drain.filter(|drain| drain.round == self.round) {
            self.min_rtt = drain.rtt.or(self.min_rtt);
            self.min_rtt_at = now;
            self.drain = None;
        } else if self.drain.is_none() && now.since(self.min_rtt_at) >= RTT_AGE {
            self.drain = Some(Drain { round: self.round.wrapping_add(DRAIN_ROUNDS), rtt: None });
        }
        if let Some(startup) = self.startup.as_mut().filter(|_| counts) {
            let rate = self.rates[0].max(self.rates[1]);
            if rate >= startup.best + startup.best / 4 {
                *startup = Startup { best: rate, stale: 0 };
            } else {
                startup.stale += 1;
            }
        }
        self.startup = self.startup.filter(|startup| startup.stale < STALE_ROUNDS);
        if counts {
            self.counted += 1;
            if self.counted.is_multiple_of(RATE_ROUNDS) {
                self.rates = [0, self.rates[0]];
            }
        }
    }

    fn update_cap(&mut self) {
        let held = in_time(self.rate(), self.min_rtt.unwrap_or_default());
        let (min, wanted) = if self.drain.is_some() {
            (DRAINED_CAP, held / 2)
        } else if self.startup.is_some() {
            (MIN_CAP, held * 2)
        } else {
            (MIN_CAP, held * 13 / 10)
        };
        self.cap = wanted.max(min).min(self.max_bytes);
    }

    /// Gives back memory that an idle channel does not need.
    pub(crate) fn shrink(&mut self) {
        if self.marks.is_empty() {
            self.marks = VecDeque::new();
        }
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1_000_000) / micros
}

/// What passes in `time` at `rate` bytes per second.
fn in_time(rate: u64, time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    rate.saturating_mul(micros) / 1_000_000
}

#[cfg(test)]
mod tests;
