//! What a swarm has to say when it has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::histogram::Counts;
use super::kinds::Kind;
use super::timeline::Point;

/// The outcome of a swarm: `clients = answered + wrong + failed + stopped` once it has ended.
/// Times are seconds since the swarm's start.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SwarmReport {
    /// Clients asked for.
    pub clients: u64,
    /// Clients that got every notification they waited for, each its own.
    pub answered: u64,
    /// Clients that got an answer that was not theirs, or not 200.
    pub wrong: u64,
    /// Clients that did not get what they waited for: not connected, broken off, or out of time.
    pub failed: u64,
    /// Clients that the swarm's own stop ended, or kept from starting.
    pub stopped: u64,
    /// Right notifications of all clients together.
    pub messages: u64,
    /// Long-polls that the role ended without a notification (204) and that were repeated.
    pub empty_polls: u64,
    /// Clients by the reason why they are `wrong` or `failed`. At most 32 reasons are kept apart;
    /// what comes after them counts as `other reasons`.
    pub reasons: BTreeMap<String, u64>,
    /// The clients by their kind of stream.
    pub kinds: BTreeMap<Kind, KindReport>,
    /// When the last client held its stream; none if none has.
    pub connect_s: Option<f64>,
    /// When the last client ended.
    pub elapsed_s: f64,
    /// The start, in seconds since 1970.
    pub start_unix_s: f64,
    /// When the clients got their first right notifications; none if none has.
    pub answer_times: Option<AnswerTimes>,
    /// Of the notifications that say when they were sent; meaningful if both ends have one clock.
    pub notification_latency: Counts,
    /// The requests beside the streams, if there were to be any.
    pub requests: Option<RequestReport>,
    /// A point for each step of the run.
    pub timeline: Vec<Point>,
    /// How long a step is, in seconds.
    pub timeline_step_s: u64,
    /// Why the figures must not be used: nothing, in a sound run.
    pub invalid: Vec<String>,
}

/// The clients of one kind.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KindReport {
    /// Clients that have begun.
    pub clients: u64,
    /// Streams held now.
    pub held: u64,
    /// Right notifications.
    pub messages: u64,
}

/// Requests at a steady rate, each due at its own time whatever became of those before.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RequestReport {
    /// Requests that become due in a second.
    pub rate_per_s: f64,
    /// Requests that have become due.
    pub due: u64,
    /// Requests that were sent.
    pub sent: u64,
    /// Requests that were answered 200.
    pub answered: u64,
    /// Requests that got another answer, or none.
    pub failed: u64,
    /// Failed ones by reason.
    pub reasons: BTreeMap<String, u64>,
    /// From the time at which a request was due to the end of its answer.
    pub latency: Counts,
    /// How late requests left though a connection was free: the generator's own fault.
    pub generator_lag: Counts,
}

/// The distribution of the clients' first right notifications, in seconds since the swarm's start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AnswerTimes {
    /// The first of all.
    pub min_s: f64,
    /// The median.
    pub p50_s: f64,
    /// The 90th percentile.
    pub p90_s: f64,
    /// The 99th percentile.
    pub p99_s: f64,
    /// The last of all.
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
