//! Frames that cost their sender nothing: how many of them a peer may send.
//!
//! A bucket that a frame fills and time empties, kept as the one moment at which it is empty.

use std::time::Duration;

use crate::config::Config;
use crate::error::ProtocolError;
use crate::time::Timestamp;

/// What one frame counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Weight {
    Whole,
    /// Giving up both halves of a stream takes two frames.
    Half,
}

/// CREDITs of a stream that may be under way when it ends: one for what had been read before its last data
/// came, and one for that.
const CROSSING_CREDITS: u32 = 2;

/// The bucket of one channel.
#[derive(Debug, Hash)]
pub(crate) struct Churn {
    /// Time in which one frame is forgotten.
    interval: Duration,
    /// Time in which a full bucket is.
    capacity: Duration,
    empty_at: Timestamp,
    /// CREDITs for streams that are over which count nothing, and how many there may be of them.
    crossing: u32,
    max_crossing: u32,
}

impl Churn {
    pub(crate) fn new(config: &Config, now: Timestamp) -> Self {
        let interval = Duration::from_secs(1) / config.churn_per_s.max(1);
        let capacity = interval * config.churn_burst;
        Self { interval, capacity, empty_at: now, crossing: 0, max_crossing: config.churn_burst }
    }

    /// A stream has ended. Who sends may not know of it yet.
    pub(crate) fn note_end(&mut self) {
        self.crossing = (self.crossing + CROSSING_CREDITS).min(self.max_crossing);
    }

    /// Accounts for a received CREDIT of a stream that is over.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    pub(crate) fn receive_late_credit(&mut self, now: Timestamp) -> Result<(), ProtocolError> {
        let Some(left) = self.crossing.checked_sub(1) else {
            return self.receive(now, "CREDIT", Weight::Whole);
        };
        self.crossing = left;
        Ok(())
    }

    /// Accounts for a received frame.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Churn`] if it is one too many; it has not been counted.
    pub(crate) fn receive(
        &mut self,
        now: Timestamp,
        frame: &'static str,
        weight: Weight,
    ) -> Result<(), ProtocolError> {
        let time = match weight {
            Weight::Whole => self.interval,
            Weight::Half => self.interval / 2,
        };
        let empty_at = self.empty_at.max(now).after(time);
        if empty_at.since(now) > self.capacity {
            return Err(ProtocolError::Churn { frame });
        }
        self.empty_at = empty_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_for_each_that_is_forgotten() {
        let config = Config { churn_per_s: 1_000, churn_burst: 3, ..Config::default() };
        let mut churn = Churn::new(&config, Timestamp::ZERO);
        let mut take =
            |micros, weight| churn.receive(Timestamp::from_micros(micros), "PING", weight).is_ok();
        assert_eq!([0; 4].map(|at| take(at, Weight::Whole)), [true, true, true, false]);
        assert!(!take(499, Weight::Half) && take(500, Weight::Half) && !take(500, Weight::Half));
        assert!(!take(1_499, Weight::Whole) && take(1_500, Weight::Whole));
        let later = 1_000_000;
        assert_eq!([later; 4].map(|at| take(at, Weight::Whole)), [true, true, true, false]);
    }

    #[test]
    fn two_credits_pass_for_each_stream_that_has_ended() {
        let config = Config { churn_per_s: 1, churn_burst: 5, ..Config::default() };
        let mut churn = Churn::new(&config, Timestamp::ZERO);
        let mut taken = |ends| {
            (0..ends).for_each(|_| churn.note_end());
            (0..100).take_while(|_| churn.receive_late_credit(Timestamp::ZERO).is_ok()).count()
        };
        assert_eq!([2, 0, 1, 100].map(&mut taken), [4 + 5, 0, 2, 5]);
    }
}
