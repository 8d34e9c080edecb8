//! What a swarm has to say when it has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// The outcome of a swarm: `clients = answered + wrong + failed + stopped` once it has ended.
/// Times are seconds since the swarm's start.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SwarmReport {
    /// Clients asked for.
    pub clients: u64,
    /// Clients that got every answer they waited for, each its own.
    pub answered: u64,
    /// Clients that got an answer that was not theirs, or not 200.
    pub wrong: u64,
    /// Clients that got no answer: not connected, broken off, or out of time.
    pub failed: u64,
    /// Clients that the swarm's own stop ended, or kept from starting.
    pub stopped: u64,
    /// Right answers of all clients together.
    pub answers: u64,
    /// Polls that the role ended without a notification (204) and that were repeated.
    pub empty_polls: u64,
    /// Clients by the reason why they are `wrong` or `failed`. At most 32 reasons are kept apart;
    /// what comes after them counts as `other reasons`.
    pub reasons: BTreeMap<String, u64>,
    /// When the last client had connected; none if none has.
    pub connect_s: Option<f64>,
    /// When the last client ended.
    pub elapsed_s: f64,
    /// When the clients got their first right answers; none if none has.
    pub answer_times: Option<AnswerTimes>,
}

/// The distribution of the clients' first right answers, in seconds since the swarm's start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AnswerTimes {
    /// The first answer of all.
    pub min_s: f64,
    /// The median.
    pub p50_s: f64,
    /// The 90th percentile.
    pub p90_s: f64,
    /// The 99th percentile.
    pub p99_s: f64,
    /// The last answer of all.
    pub max_s: f64,
}

impl AnswerTimes {
    /// The distribution of `times`, which are in ascending order; `None` if there are none.
    pub(super) fn of_sorted(times: &[Duration]) -> Option<Self> {
        let (min, max) = (times.first()?, times.last()?);
        let percentile = |percent: usize| {
            // The smallest time that at least `percent` of a hundred are not above.
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times[rank - 1].as_secs_f64()
        };
        Some(Self {
            min_s: min.as_secs_f64(),
            p50_s: percentile(50),
            p90_s: percentile(90),
            p99_s: percentile(99),
            max_s: max.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<_> = (1..=200).map(Duration::from_secs).collect();
        let distribution = AnswerTimes::of_sorted(&times).unwrap();
        let expected =
            AnswerTimes { min_s: 1.0, p50_s: 100.0, p90_s: 180.0, p99_s: 198.0, max_s: 200.0 };
        assert_eq!(distribution, expected);
    }

    #[test]
    fn a_single_answer_is_every_percentile() {
        let distribution = AnswerTimes::of_sorted(&[Duration::from_secs(7)]).unwrap();
        assert_eq!((distribution.min_s, distribution.p99_s), (7.0, 7.0));
        assert_eq!(AnswerTimes::of_sorted(&[]), None);
    }
}
