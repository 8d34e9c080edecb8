//! When the next client may connect.

use std::time::Duration;

use tokio::time::Instant;

/// How far a schedule may lie behind the clock. Timers wake up to a millisecond late, so without
/// any lag a ramp could not reach a thousand starts a second.
const MAX_LAG: Duration = Duration::from_millis(2);

/// A schedule of starts at a fixed interval. Time lost by waiting for something else is not caught
/// up: in any window of length `w` there are at most `(w + 2 ms) / interval + 1` starts.
#[derive(Debug)]
pub(super) struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    /// A schedule whose first start is due at `first`.
    pub(super) fn new(first: Instant, interval: Duration) -> Self {
        Self { next: first, interval }
    }

    /// Takes the next start and says from when it may happen.
    pub(super) fn take(&mut self, now: Instant) -> Instant {
        let earliest = now.checked_sub(MAX_LAG).unwrap_or(now);
        let at = self.next.max(earliest);
        self.next = at + self.interval;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(10);

    #[test]
    fn starts_keep_the_interval() {
        let first = Instant::now();
        let mut pace = Pace::new(first, INTERVAL);
        assert_eq!(pace.take(first), first);
        assert_eq!(pace.take(first), first + INTERVAL);
        assert_eq!(pace.take(first + INTERVAL), first + INTERVAL * 2);
    }

    #[test]
    fn lost_time_is_not_caught_up() {
        let first = Instant::now();
        let mut pace = Pace::new(first, INTERVAL);
        pace.take(first);
        let late = first + INTERVAL * 100;
        let at = pace.take(late);
        assert_eq!(at, late - MAX_LAG);
        assert_eq!(pace.take(late), at + INTERVAL);
    }
}
