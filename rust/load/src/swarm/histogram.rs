//! Durations, counted by value.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

/// What is told apart: a microsecond to an hour. Shorter and longer count as these.
const MIN_US: u64 = 1;
const MAX_US: u64 = 3_600_000_000;

/// How finely durations are told apart, in significant digits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Precision {
    /// Of a whole run.
    Fine = 3,
    /// Of a second of it.
    Coarse = 2,
}

/// A histogram that is being filled.
#[derive(Debug)]
pub(super) struct Recorder(Histogram<u64>);

impl Recorder {
    pub(super) fn new(precision: Precision) -> Self {
        let histogram = Histogram::new_with_bounds(MIN_US, MAX_US, precision as u8);
        Self(histogram.expect("the bounds are a factor of more than two apart"))
    }

    pub(super) fn record(&mut self, duration: Duration) {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(MAX_US);
        self.0.saturating_record(microseconds.clamp(MIN_US, MAX_US));
    }

    /// The duration that this part of all is not above; none without any.
    pub(super) fn quantile(&self, quantile: f64) -> Option<Duration> {
        let value = self.0.value_at_quantile(quantile);
        (!self.0.is_empty()).then(|| Duration::from_micros(value))
    }

    /// What was counted so far.
    pub(super) fn counts(&self) -> Counts {
        let pairs = self.0.iter_recorded();
        Counts(pairs.map(|pair| (pair.value_iterated_to(), pair.count_at_value())).collect())
    }

    /// What was counted; begins anew.
    pub(super) fn take(&mut self) -> Counts {
        let counts = self.counts();
        self.0.reset();
        counts
    }
}

/// Microseconds and how often they were counted, in ascending order. The values are the same in
/// every process, so that histograms are added by adding the counts of equal values.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counts(BTreeMap<u64, u64>);

impl Counts {
    /// How many durations there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// How many of them are this long or longer.
    #[must_use]
    pub fn at_least(&self, duration: Duration) -> u64 {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.range(microseconds..).map(|(_, count)| count).sum()
    }

    /// Adds what `other` has counted.
    pub(super) fn add(&mut self, other: Self) {
        for (value, count) in other.0 {
            *self.0.entry(value).or_default() += count;
        }
    }
}

impl Serialize for Counts {
    /// As `{"unit": "us", "counts": [[value, count], …]}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut histogram = serializer.serialize_struct("Counts", 2)?;
        histogram.serialize_field("unit", "us")?;
        histogram.serialize_field("counts", &self.0.iter().collect::<Vec<_>>())?;
        histogram.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_durations_are_counted_together_and_none_is_lost() {
        let mut recorder = Recorder::new(Precision::Fine);
        let durations = [0, 5, 5, 1_000_000, 7_200_000_000];
        durations.iter().for_each(|us| recorder.record(Duration::from_micros(*us)));
        let counts = recorder.counts();
        assert_eq!(counts.total(), 5);
        assert_eq!((counts.0[&1], counts.0[&5]), (1, 2));
        assert_eq!(counts.at_least(Duration::from_secs(1)), 2);
        let p50 = recorder.quantile(0.5).unwrap();
        assert_eq!(p50, Duration::from_micros(5));
        assert_eq!(recorder.take(), counts);
        assert_eq!((recorder.counts().total(), recorder.quantile(0.5)), (0, None));
    }

    #[test]
    fn values_of_two_recorders_add_up() {
        let mut sum = Counts::default();
        for _ in 0..2 {
            let mut recorder = Recorder::new(Precision::Coarse);
            (0..10_000).for_each(|us| recorder.record(Duration::from_micros(us)));
            let before = recorder.counts();
            sum.add(before.clone());
            assert_eq!(sum.0.len(), before.0.len());
        }
        assert_eq!(sum.total(), 20_000);
        let text = serde_json::to_string(&Counts([(1, 2)].into())).unwrap();
        assert_eq!(text, r#"{"unit":"us","counts":[[1,2]]}"#);
    }
}
