//! How many requests each endpoint has seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a path asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Endpoint {
    Notifications,
    Push,
    Hello,
    Bytes,
    Echo,
    Log,
    Other,
}

impl Endpoint {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Notifications, "notifications"),
        (Self::Push, "push"),
        (Self::Hello, "hello"),
        (Self::Bytes, "bytes"),
        (Self::Echo, "echo"),
        (Self::Log, "log"),
        (Self::Other, "other"),
    ];

    /// The endpoint that `path` names.
    pub(super) fn of_path(path: &str) -> Self {
        match path {
            "/notifications" => Self::Notifications,
            "/push" => Self::Push,
            "/hello" => Self::Hello,
            "/bytes" => Self::Bytes,
            "/echo" => Self::Echo,
            "/log" => Self::Log,
            _ => Self::Other,
        }
    }
}

/// Requests by endpoint since the start.
#[derive(Debug, Default)]
pub(super) struct RequestCounters([AtomicU64; Endpoint::ALL.len()]);

impl RequestCounters {
    /// Counts one request.
    pub(super) fn count(&self, endpoint: Endpoint) {
        self.0[endpoint as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests of one endpoint so far.
    pub(super) fn of(&self, endpoint: Endpoint) -> u64 {
        self.0[endpoint as usize].load(Ordering::Relaxed)
    }

    /// All counts by the endpoints' names.
    pub(super) fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        Endpoint::ALL.map(|(endpoint, name)| (name, self.of(endpoint))).into()
    }
}
