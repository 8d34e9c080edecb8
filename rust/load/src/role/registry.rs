//! The polls that wait for a notification, by client.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// All held polls of a role, shared by its shards: at most one per client and `max_held` in all.
///
/// A held poll costs its map entry and one oneshot channel here, besides its connection.
#[derive(Debug)]
pub(super) struct Registry {
    held: Mutex<HashMap<Box<str>, Slot>>,
    max_held: usize,
    polls: AtomicU64,
    pushed: AtomicU64,
    abandoned: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    /// Tells this poll from a later one of the same client.
    ticket: u64,
    ending: oneshot::Sender<Ending>,
}

/// What ends a held poll before its deadline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// The notification for this client.
    Message(String),
    /// The same client began another poll.
    Superseded,
}

/// The role holds as many polls as it may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Full;

impl Registry {
    /// An empty registry that never holds more than `max_held` polls.
    pub(super) fn new(max_held: usize) -> Arc<Self> {
        Arc::new(Self {
            held: Mutex::default(),
            max_held,
            polls: AtomicU64::new(0),
            pushed: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
        })
    }

    /// Holds a poll of `client`; an earlier one of the same client ends as superseded.
    ///
    /// # Errors
    ///
    /// [`Full`] if `max_held` polls are held, none of them of this client.
    pub(super) fn hold(self: &Arc<Self>, client: &str) -> Result<HeldPoll, Full> {
        let (sender, receiver) = oneshot::channel();
        let (ticket, earlier) = {
            let mut held = self.held.lock();
            if held.len() >= self.max_held && !held.contains_key(client) {
                return Err(Full);
            }
            let ticket = self.polls.fetch_add(1, Ordering::Relaxed);
            (ticket, held.insert(client.into(), Slot { ticket, ending: sender }))
        };
        if let Some(earlier) = earlier {
            // Fails only if that poll is just being dropped, which is what we want of it.
            let _ = earlier.ending.send(Ending::Superseded);
        }
        Ok(HeldPoll {
            registry: Arc::clone(self),
            client: client.into(),
            ticket,
            ending: receiver,
            over: false,
        })
    }

    /// Ends the held poll of `client` with `message`; `false` if that client does not poll.
    pub(super) fn push(&self, client: &str, message: String) -> bool {
        let slot = self.held.lock().remove(client);
        let delivered = slot.is_some_and(|slot| slot.ending.send(Ending::Message(message)).is_ok());
        self.pushed.fetch_add(u64::from(delivered), Ordering::Relaxed);
        delivered
    }

    /// Ends every held poll with the message that `message_for` makes for its client, and says how
    /// many there were.
    pub(super) fn push_to_all(&self, message_for: impl Fn(&str) -> String) -> u64 {
        let slots = std::mem::take(&mut *self.held.lock());
        let mut delivered = 0;
        for (client, slot) in slots {
            let message = message_for(&client);
            delivered += u64::from(slot.ending.send(Ending::Message(message)).is_ok());
        }
        self.pushed.fetch_add(delivered, Ordering::Relaxed);
        delivered
    }

    /// Polls held now.
    pub(super) fn held(&self) -> usize {
        self.held.lock().len()
    }

    /// Polls that were ever held.
    pub(super) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// Messages handed to held polls so far.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed)
    }

    /// Polls whose client went away before an ending was sent to it.
    pub(super) fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }
}

/// One held poll. Dropping it frees its slot at once and counts it as abandoned, unless it is over.
#[derive(Debug)]
pub(super) struct HeldPoll {
    registry: Arc<Registry>,
    client: Box<str>,
    ticket: u64,
    ending: oneshot::Receiver<Ending>,
    over: bool,
}

impl HeldPoll {
    /// Waits for the ending for at most `timeout`; `None` if none came.
    ///
    /// Cancelling abandons the poll.
    pub(super) async fn ended(mut self, timeout: Duration) -> Option<Ending> {
        let ending = match tokio::time::timeout(timeout, &mut self.ending).await {
            Ok(ending) => ending.ok(),
            Err(_elapsed) => {
                // Once the slot is free no push can find it; one that came before is here now.
                self.free();
                self.ending.try_recv().ok()
            }
        };
        self.over = true;
        ending
    }

    fn free(&self) {
        let mut held = self.registry.held.lock();
        if held.get(&self.client).is_some_and(|slot| slot.ticket == self.ticket) {
            held.remove(&self.client);
        }
    }
}

impl Drop for HeldPoll {
    fn drop(&mut self) {
        self.free();
        if !self.over {
            self.registry.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn message(text: &str) -> Ending {
        Ending::Message(text.to_owned())
    }

    #[tokio::test]
    async fn a_push_ends_only_the_poll_of_its_client() {
        let registry = Registry::new(10);
        let a = registry.hold("a").unwrap();
        let b = registry.hold("b").unwrap();
        assert!(registry.push("a", "for a".to_owned()));
        assert_eq!(a.ended(LONG).await, Some(message("for a")));
        assert_eq!(registry.held(), 1);
        assert_eq!(b.ended(Duration::ZERO).await, None);
        assert_eq!((registry.held(), registry.pushed(), registry.abandoned()), (0, 1, 0));
    }

    #[tokio::test]
    async fn a_push_to_all_gives_each_client_its_own_message() {
        let registry = Registry::new(10);
        let a = registry.hold("a").unwrap();
        let b = registry.hold("b").unwrap();
        assert_eq!(registry.push_to_all(|client| format!("go {client}")), 2);
        assert_eq!(a.ended(LONG).await, Some(message("go a")));
        assert_eq!(b.ended(LONG).await, Some(message("go b")));
        assert_eq!(registry.push_to_all(str::to_owned), 0);
    }

    #[tokio::test]
    async fn a_second_poll_supersedes_the_first_and_keeps_its_own_slot() {
        let registry = Registry::new(1);
        let first = registry.hold("a").unwrap();
        let second = registry.hold("a").unwrap();
        assert_eq!(first.ended(LONG).await, Some(Ending::Superseded));
        assert_eq!(registry.held(), 1, "the end of the first must not free the slot of the second");
        assert!(registry.push("a", "late".to_owned()));
        assert_eq!(second.ended(LONG).await, Some(message("late")));
        assert_eq!(registry.abandoned(), 0);
    }

    #[test]
    fn a_full_registry_refuses_new_clients_only() {
        let registry = Registry::new(1);
        let held = registry.hold("a").unwrap();
        assert_eq!(registry.hold("b").err(), Some(Full));
        drop(held);
        assert!(registry.hold("b").is_ok());
    }

    #[test]
    fn a_dropped_poll_frees_its_slot_and_is_counted() {
        let registry = Registry::new(1);
        drop(registry.hold("a").unwrap());
        assert_eq!((registry.held(), registry.abandoned()), (0, 1));
        assert!(!registry.push("a", "nobody".to_owned()));
        assert_eq!(registry.pushed(), 0);
    }

    #[tokio::test]
    async fn a_message_that_arrives_at_the_deadline_is_not_lost() {
        let registry = Registry::new(1);
        let poll = registry.hold("a").unwrap();
        assert!(registry.push("a", "just in time".to_owned()));
        assert_eq!(poll.ended(Duration::ZERO).await, Some(message("just in time")));
    }
}
