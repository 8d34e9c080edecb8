//! What is to be measured, as the caller says it.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use crate::scenario::Scenario;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    /// The multiplexer, or `shaper` for a shaped link alone.
    pub(crate) peer: String,
    #[serde(default)]
    pub(crate) scenario: Scenario,
    #[serde(default = "one")]
    pub(crate) streams: usize,
    /// Time that counts.
    #[serde(default = "three")]
    pub(crate) seconds: f64,
    #[serde(default)]
    pub(crate) path: Path,
    /// Where a `shaper` leads.
    pub(crate) target: Option<SocketAddr>,
}

/// What lies between the two ends.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Path {
    /// Loopback.
    #[default]
    Direct,
    /// A slow and long link.
    Shaped(Shape),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shape {
    /// In each direction.
    pub(crate) bits_per_s: f64,
    /// One way.
    pub(crate) delay_ms: f64,
    /// What the link's queue holds in each direction.
    pub(crate) buffer_bytes: f64,
}

impl Job {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn one() -> usize {
    1
}

fn three() -> f64 {
    3.0
}
