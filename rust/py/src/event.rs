//! What a port delivers: turns in the life of a service, and log records.

use std::collections::BTreeMap;

use pyo3::prelude::*;

/// A turn in the life of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
#[pyclass(frozen, get_all, module = "cmgmux._native")]
pub(crate) struct ServiceEvent {
    /// The `id` of the service.
    pub(crate) service: u64,
    /// `started`, `failed` (to start) or `ended`.
    pub(crate) kind: &'static str,
    /// When a setting is at fault: its key in the configuration file.
    pub(crate) key: Option<String>,
    /// What went wrong; `None` if nothing did.
    pub(crate) message: Option<String>,
}

impl ServiceEvent {
    /// The service runs.
    pub(crate) fn started(service: u64) -> Self {
        Self { service, kind: "started", key: None, message: None }
    }

    /// The service never ran. `key` names the setting at fault, if one is.
    pub(crate) fn failed(service: u64, key: Option<String>, message: String) -> Self {
        Self { service, kind: "failed", key, message: Some(message) }
    }

    /// The service is over; `message` says why if it was not stopped.
    pub(crate) fn ended(service: u64, message: Option<String>) -> Self {
        Self { service, kind: "ended", key: None, message }
    }
}

/// One log record of the native side.
#[derive(Clone, Debug, PartialEq)]
#[pyclass(frozen, get_all, module = "cmgmux._native")]
pub(crate) struct LogRecord {
    /// The level in the numbers of Python's `logging`; 5 is trace.
    pub(crate) level: u8,
    /// The Rust module that speaks, such as `cmgmux_net::driver`.
    pub(crate) target: String,
    /// The constant part of the record.
    pub(crate) message: String,
    /// The values, those of the enclosing spans included.
    pub(crate) fields: BTreeMap<String, FieldValue>,
    /// Seconds since the Unix epoch.
    pub(crate) time: f64,
}

/// One value of a log record.
#[derive(Clone, Debug, IntoPyObject, IntoPyObjectRef, PartialEq)]
pub(crate) enum FieldValue {
    /// A yes or no.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A broken number.
    Float(f64),
    /// Everything else, as text.
    Text(String),
}

/// One item of a batch.
#[derive(Clone, Debug, IntoPyObject, PartialEq)]
pub(crate) enum Event {
    /// A service moved on.
    Service(ServiceEvent),
    /// A record was logged.
    Log(LogRecord),
}
