//! What every process kind has in common: a blocking start, a status, a stop in two steps.

use std::time::Duration;

use serde::de::DeserializeOwned;

/// A running gateway instance, connection point, sample role or client swarm.
///
/// All methods may be called from any thread. A service owns its threads; dropping it without
/// [`wait`](Service::wait) abandons them only at process end, so owners stop and wait.
pub trait Service: Send + Sync + Sized + 'static {
    /// The settings, as they arrive from the configuration file.
    type Config: DeserializeOwned + Send + 'static;

    /// Reads the files that `config` names, binds its listeners and spawns its threads. Blocks for
    /// as long as that takes; when it returns, the listeners accept.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming the setting that cannot be used. Nothing keeps running then.
    fn start(config: Self::Config) -> Result<Self, ConfigError>;

    /// A snapshot of counters and state: the value that the admin socket serves.
    fn status(&self) -> serde_json::Value;

    /// Begins to stop and returns at once: nothing new is accepted, what is under way may finish
    /// within `grace`, the rest is reset. A second call can only shorten the grace.
    fn request_stop(&self, grace: Duration);

    /// Blocks until every thread of the service has ended.
    ///
    /// # Errors
    ///
    /// [`ServiceError`] if a thread ended by itself instead of being stopped.
    fn wait(&self) -> Result<(), ServiceError>;
}

/// A setting that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ConfigError {
    /// The key in the configuration file, such as `certificate` or `mappings[2].internal`.
    pub key: String,
    /// What is wrong with its value and what would be right.
    pub message: String,
}

impl ConfigError {
    /// An error about the setting `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

/// A service that ended without having been stopped.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what} ended by itself: {why}")]
pub struct ServiceError {
    /// The part that ended, such as `shard 1`.
    pub what: String,
    /// Why, in words.
    pub why: String,
}
