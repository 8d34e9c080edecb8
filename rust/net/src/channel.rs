//! The handle of a channel: opening and accepting streams, its state, its end.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use cmgmux_mux::{CloseCode, ProtocolError, StreamKind, UsageError};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;

use crate::book::{Book, Entry};
use crate::driver::Driver;
use crate::handshake::{Established, Peer};
use crate::id::Id;
use crate::stream::{RecvStream, SendStream};

/// Why a channel ended.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// The link broke.
    #[error("the link broke: {0}")]
    LinkBroken(String),
    /// The peer closed the link without a word.
    #[error("the peer closed the link without a reason, as a process that dies does")]
    LinkClosed,
    /// The peer did not answer in time.
    #[error("the link is silent: no answer to a probe in time")]
    LinkSilent,
    /// The peer closed the channel.
    #[error("closed by the peer ({code}): {text}")]
    ClosedByPeer {
        /// Its code.
        code: CloseCode,
        /// Its words.
        text: String,
    },
    /// This end closed the channel.
    #[error("closed by this end ({code}): {text}")]
    Closed {
        /// Our code.
        code: CloseCode,
        /// Our words.
        text: String,
    },
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
}

impl EndReason {
    /// Whether somebody meant the channel to end, so that nobody has to act.
    #[must_use]
    pub fn is_planned(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::ClosedByPeer { code: CloseCode::SHUTDOWN, .. })
    }
}

/// Why a stream could not be opened. Nothing has been sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// The peer allows no further stream at present.
    #[error("the peer allows no further stream at present")]
    NoTicket,
    /// The peer or this end is draining.
    #[error("the channel is draining")]
    Draining,
    /// The channel has ended.
    #[error("the channel has ended")]
    Lost,
}

/// A stream that the peer opened.
#[derive(Debug)]
pub struct Incoming {
    /// What it is for.
    pub kind: StreamKind,
    /// Our sending half.
    pub send: SendStream,
    /// Our receiving half.
    pub recv: RecvStream,
}

/// A channel's size and totals, as the status shows them.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelStats {
    /// The other end, in words.
    pub peer: String,
    /// Hexadecimal; the same at both ends.
    pub channel_id: String,
    /// The instance's shard.
    pub ordinal: u8,
    /// Seconds since the handshake.
    pub age_s: f64,
    /// Streams live now.
    pub streams: u32,
    /// Streams with a live handle.
    pub handles: usize,
    /// Streams opened by either end since the handshake.
    pub streams_total: u64,
    /// Bytes sent and not acknowledged.
    pub ring_bytes: u64,
    /// Bytes waiting to be sent.
    pub queued_bytes: u64,
    /// Plaintext bytes received.
    pub bytes_received: u64,
    /// Plaintext bytes sent.
    pub bytes_sent: u64,
    /// Round-trip time in microseconds, once measured.
    pub rtt_us: Option<u64>,
    /// Whether either end is draining.
    pub draining: bool,
}

/// A channel. Clones are cheap and share it; they may be used from any thread.
///
/// Every handle works on the channel's state under one lock that its driver, on the same thread,
/// takes as well; it is held for the encoding of one batch at the longest.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) peer: Peer,
    pub(crate) channel_id: Id,
    pub(crate) ordinal: u8,
    pub(crate) since: Instant,
    /// Notified when streams can be opened that could not before, and at the end.
    pub(crate) tickets: Notify,
    /// Notified at the end.
    pub(crate) over: Notify,
}

pub(crate) struct State {
    pub(crate) core: cmgmux_mux::Channel,
    pub(crate) book: Book,
    pub(crate) ended: Option<EndReason>,
    /// The driver, while it sleeps; taken by whoever wakes it.
    pub(crate) driver: Option<Waker>,
    /// When a draining channel is closed at the latest.
    pub(crate) drain_until: Option<Instant>,
    /// A close that this end asked for.
    pub(crate) closing: Option<(CloseCode, String)>,
}

impl Channel {
    /// Takes over an agreed channel on this thread's runtime. The future drives it and must be
    /// polled on the same thread; it ends with the channel.
    ///
    /// # Errors
    ///
    /// The runtime does not take the socket.
    pub fn start(
        established: Established,
    ) -> std::io::Result<(Self, impl Future<Output = EndReason> + use<>)> {
        let now = Instant::now();
        let Established { tls, input, side, config, peer, ordinal, channel_id, .. } = established;
        let core = cmgmux_mux::Channel::new(side, config, cmgmux_mux::Timestamp::ZERO);
        let state = State {
            core,
            book: Book::default(),
            ended: None,
            driver: None,
            drain_until: None,
            closing: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            peer,
            channel_id,
            ordinal,
            since: now,
            tickets: Notify::new(),
            over: Notify::new(),
        });
        let driver = Driver::new(Arc::clone(&shared), tls, input)?;
        Ok((Self { shared }, driver))
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.shared.peer
    }

    /// The shard of the instance that the channel belongs to.
    #[must_use]
    pub fn ordinal(&self) -> u8 {
        self.shared.ordinal
    }

    /// Whether both handles are of the same channel.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Opens a stream. The peer learns of it with the first data.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; [`opens_possible`](Self::opens_possible) waits for a ticket.
    pub fn try_open(&self, kind: StreamKind) -> Result<(SendStream, RecvStream), OpenError> {
        self.shared.with_output(|state| {
            if state.ended.is_some() {
                return (Err(OpenError::Lost), false);
            }
            if state.drain_until.is_some() {
                return (Err(OpenError::Draining), false);
            }
            let token = state.book.next_token();
            match state.core.open(kind, token) {
                Ok(id) => {
                    state.book.entries.insert(Entry::new(id, false));
                    let send = SendStream::new(Arc::clone(&self.shared), token);
                    let recv = RecvStream::new(Arc::clone(&self.shared), token);
                    // The first data comes along at once, and with it the driver's turn.
                    (Ok((send, recv)), false)
                }
                Err(UsageError::Draining) => (Err(OpenError::Draining), false),
                Err(_) => (Err(OpenError::NoTicket), false),
            }
        })
    }

    /// Waits until streams may be opened that could not before, or the channel ends. Take the
    /// future before the failing [`try_open`](Self::try_open), so that nothing is missed between.
    pub fn opens_possible(&self) -> impl Future<Output = ()> + '_ {
        self.shared.tickets.notified()
    }

    /// The next stream that the peer opened; `None` once the channel has ended. For one caller at a
    /// time. Cancelling loses nothing.
    pub async fn accept(&self) -> Option<Incoming> {
        poll_fn(|cx| {
            self.shared.with(|state| {
                if state.ended.is_some() {
                    return Poll::Ready(None);
                }
                let Some((token, kind)) = state.book.incoming.pop_front() else {
                    state.book.acceptor = Some(cx.waker().clone());
                    return Poll::Pending;
                };
                let send = SendStream::new(Arc::clone(&self.shared), token);
                let recv = RecvStream::new(Arc::clone(&self.shared), token);
                Poll::Ready(Some(Incoming { kind, send, recv }))
            })
        })
        .await
    }

    /// Whether new streams can be opened, tickets aside.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.shared.with(|state| {
            state.ended.is_none() && state.drain_until.is_none() && state.core.accepts_opens()
        })
    }

    /// Opens no more streams and asks the peer not to either. The channel is closed when the
    /// streams have ended, or after `grace`.
    pub fn drain(&self, grace: Duration) {
        self.shared.with_output(|state| {
            let until = Instant::now() + grace;
            let until = state.drain_until.map_or(until, |earlier| earlier.min(until));
            state.drain_until = Some(until);
            state.core.go_away(CloseCode::SHUTDOWN, grace);
            ((), true)
        });
    }

    /// Closes the channel at once; its streams end with an error on both sides.
    pub fn close(&self, code: CloseCode, text: &str) {
        self.shared.with_output(|state| {
            state.closing.get_or_insert_with(|| (code, text.to_owned()));
            ((), true)
        });
    }

    /// Waits for the channel's end and says why it ended.
    pub async fn ended(&self) -> EndReason {
        loop {
            let over = self.shared.over.notified();
            if let Some(reason) = self.shared.with(|state| state.ended.clone()) {
                return reason;
            }
            over.await;
        }
    }

    /// Size and totals.
    #[must_use]
    pub fn stats(&self) -> ChannelStats {
        let (counters, handles, draining) = self.shared.with(|state| {
            let draining = state.drain_until.is_some() || !state.core.accepts_opens();
            (state.core.counters(), state.book.entries.len(), draining)
        });
        ChannelStats {
            peer: self.shared.peer.to_string(),
            channel_id: self.shared.channel_id.to_string(),
            ordinal: self.shared.ordinal,
            age_s: self.shared.since.elapsed().as_secs_f64(),
            streams: counters.live,
            handles,
            streams_total: counters.opened + counters.accepted,
            ring_bytes: counters.ring_bytes,
            queued_bytes: counters.queued_bytes,
            bytes_received: counters.bytes_received,
            bytes_sent: counters.bytes_sent,
            rtt_us: counters.rtt.and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
            draining,
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("peer", &self.shared.peer)
            .field("channel_id", &self.shared.channel_id.to_string())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Works on the state.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock())
    }

    /// Works on the state, and wakes the driver if `work` says that there is something to write.
    pub(crate) fn with_output<T>(&self, work: impl FnOnce(&mut State) -> (T, bool)) -> T {
        let (result, driver) = {
            let mut state = self.state.lock();
            let (result, output) = work(&mut state);
            (result, if output { state.driver.take() } else { None })
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }
}
