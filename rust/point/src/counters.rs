//! What the status counts. Written by the shards, read by whoever asks; relaxed, because no two
//! numbers have to agree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cmgmux_exchange::refusal::Reason;
use cmgmux_net::Ledger;
use serde_json::{Value, json};

/// Counts of one connection point.
#[derive(Debug)]
pub(crate) struct Counters {
    /// One for each mapping, in the order of the configuration.
    pub(crate) mappings: Vec<Arc<Exchanges>>,
    /// All exchanges, those without a mapping among them.
    pub(crate) exchanges: Arc<Exchanges>,
    pub(crate) response_bytes: Count,
    /// Exchanges whose client left before the end.
    pub(crate) abandoned: Count,
    /// Answers that broke off, or stood still for too long, after their head.
    pub(crate) broken: Count,
    pub(crate) upstream: Arc<UpstreamCounters>,
    /// What the channels share.
    pub(crate) ledger: Arc<Ledger>,
    refusals: Vec<Count>,
}

impl Counters {
    /// Counters for `mappings` mappings.
    pub(crate) fn new(mappings: usize) -> Self {
        Self {
            mappings: (0..mappings).map(|_| Arc::default()).collect(),
            exchanges: Arc::default(),
            response_bytes: Count::default(),
            abandoned: Count::default(),
            broken: Count::default(),
            upstream: Arc::default(),
            ledger: Arc::default(),
            refusals: Reason::ALL.iter().map(|_| Count::default()).collect(),
        }
    }

    /// Counts an error answer of our own.
    pub(crate) fn refuse(&self, reason: Reason) {
        self.refusals[reason.index()].add(1);
    }

    /// All exchanges, as the status shows them.
    pub(crate) fn exchanges(&self) -> Value {
        json!({
            "open": self.exchanges.open.load(),
            "total": self.exchanges.total.load(),
            "abandoned": self.abandoned.load(),
            "broken": self.broken.load(),
            "request_bytes": self.upstream.request_bytes.load(),
            "response_bytes": self.response_bytes.load(),
        })
    }

    /// The reasons of our error answers that there have been, with their numbers.
    pub(crate) fn refusals(&self) -> Value {
        let counted = Reason::ALL.iter().zip(&self.refusals);
        let refusals: BTreeMap<_, _> = counted
            .map(|(reason, count)| (reason.code(), count.load()))
            .filter(|&(_, count)| count > 0)
            .collect();
        json!(refusals)
    }
}

/// Exchanges that are open, and all that ever were.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    pub(crate) open: Count,
    pub(crate) total: Count,
}

/// Connections to roles.
#[derive(Debug, Default)]
pub(crate) struct UpstreamCounters {
    /// Open now, idle ones among them.
    pub(crate) connections: Count,
    pub(crate) connects: Count,
    pub(crate) connect_failures: Count,
    /// Bytes of request bodies, and of what clients say after a switch of protocols.
    pub(crate) request_bytes: Count,
}

impl UpstreamCounters {
    /// The counts, as the status shows them.
    pub(crate) fn snapshot(&self) -> Value {
        json!({
            "connections": self.connections.load(),
            "connects_total": self.connects.load(),
            "connect_failures_total": self.connect_failures.load(),
        })
    }
}

/// One number.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn subtract_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An exchange, counted as open for as long as this lives.
#[derive(Debug)]
pub(crate) struct OpenExchange(Arc<Exchanges>);

impl OpenExchange {
    pub(crate) fn of(exchanges: &Arc<Exchanges>) -> Self {
        exchanges.open.add(1);
        exchanges.total.add(1);
        Self(Arc::clone(exchanges))
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        self.0.open.subtract_one();
    }
}

/// A connection to a role, counted as open for as long as this lives.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<UpstreamCounters>);

impl OpenConnection {
    pub(crate) fn of(counters: &Arc<UpstreamCounters>) -> Self {
        counters.connections.add(1);
        counters.connects.add(1);
        Self(Arc::clone(counters))
    }

    pub(crate) fn counters(&self) -> &UpstreamCounters {
        &self.0
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.subtract_one();
    }
}
