//! Pauses between attempts that grow, with jitter so that many peers do not return together.

use std::time::Duration;

use fastrand::Rng;

/// The shortest pause there is: with none at all a failing dialler would spin.
const FLOOR: Duration = Duration::from_millis(1);

/// Exponential back-off as a value: no clock, no waiting; the same seed gives the same delays.
///
/// Each delay is drawn evenly between `min` and a ceiling, which starts at twice `min` and doubles
/// with each delay up to `max`.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    ceiling: Duration,
    random: Rng,
}

impl Backoff {
    /// Delays within `min..=max`, at least one millisecond. A `max` below `min` counts as `min`.
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        let min = min.max(FLOOR);
        let max = max.max(min);
        Self { min, max, ceiling: first_ceiling(min, max), random: Rng::with_seed(seed) }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let span = self.ceiling.saturating_sub(self.min);
        let delay = self.min.saturating_add(span.mul_f64(self.random.f64()));
        self.ceiling = self.ceiling.saturating_mul(2).min(self.max);
        delay.min(self.max)
    }

    /// Begins again with short delays: the attempt has succeeded.
    pub fn reset(&mut self) {
        self.ceiling = first_ceiling(self.min, self.max);
    }
}

fn first_ceiling(min: Duration, max: Duration) -> Duration {
    min.saturating_mul(2).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_secs(30);

    #[test]
    fn delays_stay_within_their_bounds() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(MIN, MAX, seed);
            for attempt in 0..40 {
                let delay = backoff.next_delay();
                assert!((MIN..=MAX).contains(&delay), "seed {seed}, attempt {attempt}: {delay:?}");
            }
        }
    }

    #[test]
    fn delays_grow_up_to_the_maximum_and_stay_spread() {
        let mut longest = Duration::ZERO;
        let mut shortest = Duration::MAX;
        for seed in 0..200 {
            let mut backoff = Backoff::new(MIN, MAX, seed);
            assert!(backoff.next_delay() <= MIN * 2, "seed {seed}: the first delay is short");
            let late = (0..20).map(|_| backoff.next_delay()).last().expect("there are 20");
            longest = longest.max(late);
            shortest = shortest.min(late);
        }
        assert!(longest > MAX / 10 * 9, "{longest:?}");
        assert!(shortest < MAX / 10, "{shortest:?}");
    }

    #[test]
    fn success_begins_again_with_short_delays() {
        let mut backoff = Backoff::new(MIN, MAX, 7);
        for _ in 0..20 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= MIN * 2);
    }

    #[test]
    fn a_seed_repeats_its_delays_and_another_differs() {
        let delays = |seed| {
            let mut backoff = Backoff::new(MIN, MAX, seed);
            (0..10).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
    }

    #[test]
    fn strange_bounds_still_give_a_pause() {
        let zero = Backoff::new(Duration::ZERO, Duration::ZERO, 1).next_delay();
        assert_eq!(zero, FLOOR);
        let swapped = Backoff::new(MAX, MIN, 1).next_delay();
        assert_eq!(swapped, MAX);
        let mut huge = Backoff::new(Duration::MAX, Duration::MAX, 1);
        assert_eq!(huge.next_delay(), Duration::MAX);
        assert_eq!(huge.next_delay(), Duration::MAX);
    }
}
