//! How a task learns that its process stops.

use std::time::Instant;

use tokio::sync::watch;

/// Says whether, and until when, the process stops. Cheap to clone; each shard has its own.
#[derive(Clone, Debug)]
pub struct StopSignal {
    receiver: watch::Receiver<Option<Instant>>,
}

impl StopSignal {
    pub(super) fn new(receiver: watch::Receiver<Option<Instant>>) -> Self {
        Self { receiver }
    }

    /// Whether the process has been asked to stop.
    pub fn is_requested(&self) -> bool {
        self.receiver.borrow().is_some()
    }

    /// When tasks that are still running will be dropped; `None` while nobody has asked to stop. It
    /// may move forward, never back.
    pub fn deadline(&self) -> Option<Instant> {
        *self.receiver.borrow()
    }

    /// Waits until the process is asked to stop. Cancelling loses nothing.
    pub async fn requested(&self) {
        let mut receiver = self.receiver.clone();
        // An error means that the group is gone, which is a stop as well.
        let _ = receiver.wait_for(Option::is_some).await;
    }

    /// The receiver behind the signal, for the thread that enforces the deadline.
    pub(super) fn receiver(&self) -> watch::Receiver<Option<Instant>> {
        self.receiver.clone()
    }
}
