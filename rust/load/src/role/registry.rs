//! The notification streams that clients hold, by client.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::json;

/// Messages that wait for a client that does not take them.
const MAX_QUEUED: usize = 16;

/// All held streams of a role, shared by its shards: at most one per client and `max_held` in all.
///
/// A held stream costs its map entry here, besides its connection.
#[derive(Debug)]
pub(super) struct Registry {
    held: Mutex<HashMap<Box<str>, Slot>>,
    max_held: usize,
    streams: AtomicU64,
    pushed: AtomicU64,
    abandoned: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    /// Tells this stream from a later one of the same client.
    ticket: u64,
    lasting: Lasting,
    queue: VecDeque<Message>,
    waker: Option<Waker>,
}

/// How many messages a stream takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lasting {
    /// One, which ends it.
    OneMessage,
    /// As many as there are.
    Open,
}

/// A message for one client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Message {
    pub(super) text: String,
    /// When it was pushed, in microseconds since 1970.
    pub(super) sent_unix_us: u64,
}

/// The same client began another stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Superseded;

/// Why there is no place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Full;

impl Message {
    /// A message that is pushed now.
    pub(super) fn now(text: String) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { text, sent_unix_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX) }
    }

    /// The form in which `client` gets it.
    pub(super) fn to_json(&self, client: &str) -> String {
        let Self { text, sent_unix_us } = self;
        json!({ "client": client, "message": text, "sent_unix_us": sent_unix_us }).to_string()
    }
}

impl Slot {
    fn offer(&mut self, message: Message) -> bool {
        let room = match self.lasting {
            Lasting::OneMessage => 1,
            Lasting::Open => MAX_QUEUED,
        };
        if self.queue.len() >= room {
            return false;
        }
        self.queue.push_back(message);
        self.waker.take().inspect(Waker::wake_by_ref);
        true
    }
}

impl Registry {
    /// An empty registry that never holds more than `max_held` streams.
    pub(super) fn new(max_held: usize) -> Arc<Self> {
        Arc::new(Self {
            held: Mutex::default(),
            max_held,
            streams: AtomicU64::new(0),
            pushed: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
        })
    }

    /// Holds a stream of `client`; an earlier one of the same client ends as superseded.
    ///
    /// # Errors
    ///
    /// [`Full`] if `max_held` streams are held, none of them of this client.
    pub(super) fn hold(
        self: &Arc<Self>,
        client: &str,
        lasting: Lasting,
    ) -> Result<HeldStream, Full> {
        let mut held = self.held.lock();
        if held.len() >= self.max_held && !held.contains_key(client) {
            return Err(Full);
        }
        let ticket = self.streams.fetch_add(1, Ordering::Relaxed);
        let slot = Slot { ticket, lasting, queue: VecDeque::new(), waker: None };
        if let Some(earlier) = held.insert(client.into(), slot) {
            earlier.waker.as_ref().inspect(|waker| waker.wake_by_ref());
        }
        let registry = Arc::clone(self);
        Ok(HeldStream { registry, client: client.into(), ticket, over: false })
    }

    /// Hands `text` to the stream of `client`; `false` if that client holds none, or does not take
    /// what it was sent before.
    pub(super) fn push(&self, client: &str, text: String) -> bool {
        let mut held = self.held.lock();
        let delivered = held.get_mut(client).is_some_and(|slot| slot.offer(Message::now(text)));
        self.pushed.fetch_add(u64::from(delivered), Ordering::Relaxed);
        delivered
    }

    /// Hands every held stream the text that `text_for` makes for its client, and says to how many
    /// that was.
    pub(super) fn push_to_all(&self, text_for: impl Fn(&str) -> String) -> u64 {
        let mut delivered = 0;
        for (client, slot) in &mut *self.held.lock() {
            delivered += u64::from(slot.offer(Message::now(text_for(client))));
        }
        self.pushed.fetch_add(delivered, Ordering::Relaxed);
        delivered
    }

    /// Streams held now.
    pub(super) fn held(&self) -> usize {
        self.held.lock().len()
    }

    /// Streams that were ever held.
    pub(super) fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Messages handed to held streams so far.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed)
    }

    /// Streams whose client went away without an end from us.
    pub(super) fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }
}

/// One held stream. Dropping it frees its slot at once and counts it as abandoned, unless it is over.
#[derive(Debug)]
pub(super) struct HeldStream {
    registry: Arc<Registry>,
    client: Box<str>,
    ticket: u64,
    over: bool,
}

impl HeldStream {
    /// Whose stream it is.
    pub(super) fn client(&self) -> &str {
        &self.client
    }

    /// The next message. The only one of a stream of one message ends it.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Superseded>> {
        let mut held = self.registry.held.lock();
        let Some(slot) = held.get_mut(&self.client).filter(|slot| slot.ticket == self.ticket)
        else {
            self.over = true;
            return Poll::Ready(Err(Superseded));
        };
        let Some(message) = slot.queue.pop_front() else {
            slot.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if slot.lasting == Lasting::OneMessage {
            held.remove(&self.client);
            self.over = true;
        }
        Poll::Ready(Ok(message))
    }

    /// The next message. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Result<Message, Superseded> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Waits for the message of a stream of one message for at most `timeout`; `None` if none came.
    /// Cancelling abandons the stream.
    pub(super) async fn only(mut self, timeout: Duration) -> Option<Result<Message, Superseded>> {
        if let Ok(ending) = tokio::time::timeout(timeout, self.next()).await {
            return Some(ending);
        }
        self.over = true;
        // Once the slot is free no push can find it; one that came before is here now.
        self.free().and_then(|mut slot| slot.queue.pop_front()).map(Ok)
    }

    fn free(&self) -> Option<Slot> {
        let mut held = self.registry.held.lock();
        let is_mine = held.get(&self.client).is_some_and(|slot| slot.ticket == self.ticket);
        is_mine.then(|| held.remove(&self.client)).flatten()
    }
}

impl Drop for HeldStream {
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

    impl Registry {
        fn poll(self: &Arc<Self>, client: &str) -> Result<HeldStream, Full> {
            self.hold(client, Lasting::OneMessage)
        }
    }

    async fn text_of(stream: HeldStream) -> Option<Result<String, Superseded>> {
        let ending = stream.only(LONG).await;
        ending.map(|ending| ending.map(|message| message.text))
    }

    fn text(text: &str) -> Option<Result<String, Superseded>> {
        Some(Ok(text.to_owned()))
    }

    #[tokio::test]
    async fn a_push_ends_only_the_poll_of_its_client() {
        let registry = Registry::new(10);
        let a = registry.poll("a").unwrap();
        let b = registry.poll("b").unwrap();
        assert!(registry.push("a", "for a".to_owned()));
        assert!(!registry.push("a", "too much".to_owned()));
        assert_eq!(text_of(a).await, text("for a"));
        assert_eq!(registry.held(), 1);
        assert_eq!(b.only(Duration::ZERO).await, None);
        assert_eq!((registry.held(), registry.pushed(), registry.abandoned()), (0, 1, 0));
    }

    #[tokio::test]
    async fn an_open_stream_gets_every_message_in_order_up_to_its_queue() {
        let registry = Registry::new(10);
        let mut stream = registry.hold("a", Lasting::Open).unwrap();
        for number in 0..MAX_QUEUED {
            assert!(registry.push("a", number.to_string()));
        }
        assert!(!registry.push("a", "one too many".to_owned()));
        for number in 0..MAX_QUEUED {
            assert_eq!(stream.next().await.map(|message| message.text), Ok(number.to_string()));
        }
        assert_eq!(registry.push_to_all(str::to_owned), 1);
        assert!(stream.next().await.is_ok());
        drop(stream);
        assert_eq!((registry.held(), registry.abandoned()), (0, 1));
    }

    #[tokio::test]
    async fn a_push_wakes_a_stream_that_waits() {
        let registry = Registry::new(10);
        let stream = registry.poll("a").unwrap();
        let pushing = async { assert!(registry.push("a", "go".to_owned())) };
        let (got, ()) = tokio::join!(text_of(stream), pushing);
        assert_eq!(got, text("go"));
        let mut superseded = registry.hold("b", Lasting::Open).unwrap();
        let superseding = async { registry.poll("b").unwrap() };
        let (ended, _later) = tokio::join!(superseded.next(), superseding);
        assert_eq!(ended, Err(Superseded));
    }

    #[tokio::test]
    async fn a_push_to_all_gives_each_client_its_own_message() {
        let registry = Registry::new(10);
        let a = registry.poll("a").unwrap();
        let b = registry.poll("b").unwrap();
        assert_eq!(registry.push_to_all(|client| format!("go {client}")), 2);
        assert_eq!(text_of(a).await, text("go a"));
        assert_eq!(text_of(b).await, text("go b"));
        assert_eq!(registry.push_to_all(str::to_owned), 0);
    }

    #[tokio::test]
    async fn a_second_poll_supersedes_the_first_and_keeps_its_own_slot() {
        let registry = Registry::new(1);
        let first = registry.poll("a").unwrap();
        let second = registry.poll("a").unwrap();
        assert_eq!(first.only(LONG).await, Some(Err(Superseded)));
        assert_eq!(registry.held(), 1, "the end of the first must not free the slot of the second");
        assert!(registry.push("a", "late".to_owned()));
        assert_eq!(text_of(second).await, text("late"));
        assert_eq!(registry.abandoned(), 0);
    }

    #[test]
    fn a_full_registry_refuses_new_clients_only() {
        let registry = Registry::new(1);
        let held = registry.poll("a").unwrap();
        assert_eq!(registry.poll("b").err(), Some(Full));
        drop(held);
        assert!(registry.poll("b").is_ok());
    }

    #[test]
    fn a_dropped_poll_frees_its_slot_and_is_counted() {
        let registry = Registry::new(1);
        drop(registry.poll("a").unwrap());
        assert_eq!((registry.held(), registry.abandoned()), (0, 1));
        assert!(!registry.push("a", "nobody".to_owned()));
        assert_eq!(registry.pushed(), 0);
    }

    #[tokio::test]
    async fn a_message_that_arrives_at_the_deadline_is_not_lost() {
        let registry = Registry::new(1);
        let poll = registry.poll("a").unwrap();
        assert!(registry.push("a", "just in time".to_owned()));
        let ending = poll.only(Duration::ZERO).await;
        assert_eq!(ending.map(|ending| ending.map(|message| message.text)), text("just in time"));
    }
}
