//! What the channels of a process share: the memory of those without a link, how channels and links
//! have ended, and why links never carried a channel.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::channel::{EndReason, LinkLoss, Shared};

/// Counts by reason.
pub type Counts = BTreeMap<String, u64>;

/// The account of a process.
///
/// What a channel had sent and not seen acknowledged when it lost its link, and what was queued behind
/// it, is kept while it waits for another. When all that do keep more than is allowed, the one that has
/// waited for longest ends.
#[derive(Debug)]
pub struct Ledger {
    max_detached_bytes: u64,
    detached: Mutex<Detached>,
    channel_ends: Mutex<Counts>,
    link_losses: Mutex<Counts>,
    link_failures: Mutex<Counts>,
}

/// Channels that keep something and have no link, in the order in which they lost it.
#[derive(Debug, Default)]
struct Detached {
    bytes: u64,
    losses: u64,
    channels: BTreeMap<u64, (Weak<Shared>, u64)>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(Self::MAX_DETACHED_BYTES)
    }
}

impl Ledger {
    /// What channels without a link may keep by default: 512 MiB.
    pub const MAX_DETACHED_BYTES: u64 = 512 * 1024 * 1024;

    /// An account in which the channels without a link may keep `max_detached_bytes` in all.
    #[must_use]
    pub fn new(max_detached_bytes: u64) -> Self {
        Self {
            max_detached_bytes,
            detached: Mutex::default(),
            channel_ends: Mutex::default(),
            link_losses: Mutex::default(),
            link_failures: Mutex::default(),
        }
    }

    /// Bytes that channels without a link keep.
    #[must_use]
    pub fn detached_bytes(&self) -> u64 {
        self.detached.lock().bytes
    }

    /// Channels that have ended, by [code](EndReason::code).
    #[must_use]
    pub fn channel_ends(&self) -> Counts {
        self.channel_ends.lock().clone()
    }

    /// Links that channels have lost, by [code](LinkLoss::code).
    #[must_use]
    pub fn link_losses(&self) -> Counts {
        self.link_losses.lock().clone()
    }

    /// Links that no channel has been given, by [reason](crate::HandshakeError::reason) or the caller's own.
    #[must_use]
    pub fn link_failures(&self) -> Counts {
        self.link_failures.lock().clone()
    }

    /// Counts a link that no channel is given.
    pub fn note_link_failure(&self, reason: &str) {
        *self.link_failures.lock().entry(reason.to_owned()).or_default() += 1;
    }

    pub(crate) fn note_end(&self, reason: &EndReason) {
        *self.channel_ends.lock().entry(reason.code()).or_default() += 1;
    }

    pub(crate) fn note_loss(&self, loss: &LinkLoss) {
        *self.link_losses.lock().entry(loss.code().to_owned()).or_default() += 1;
    }

    /// Enters a channel that keeps `bytes` without a link. Gives its entry, and the channels that have to
    /// end for it.
    pub(crate) fn enter(
        self: &Arc<Self>,
        channel: &Arc<Shared>,
        bytes: u64,
    ) -> (DetachedEntry, Vec<Arc<Shared>>) {
        let mut detached = self.detached.lock();
        detached.losses += 1;
        let number = detached.losses;
        if bytes > 0 {
            detached.bytes += bytes;
            detached.channels.insert(number, (Arc::downgrade(channel), bytes));
        }
        let mut oldest = Vec::new();
        while detached.bytes > self.max_detached_bytes {
            let Some((_, (channel, bytes))) = detached.channels.pop_first() else { break };
            detached.bytes -= bytes;
            oldest.extend(channel.upgrade());
        }
        (DetachedEntry { ledger: Arc::clone(self), number }, oldest)
    }
}

/// A channel in the account, for as long as this lives.
#[derive(Debug)]
pub(crate) struct DetachedEntry {
    ledger: Arc<Ledger>,
    number: u64,
}

impl Drop for DetachedEntry {
    fn drop(&mut self) {
        let mut detached = self.ledger.detached.lock();
        if let Some((_, bytes)) = detached.channels.remove(&self.number) {
            detached.bytes -= bytes;
        }
    }
}
