//! The handle of a channel: opening and accepting streams, its state, its end.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use cmgmux_mux::{CloseCode, ProtocolError, ResumeCode, Secret, StreamKind, UsageError};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::book::{Book, Entry};
use crate::driver::Driver;
use crate::handshake::{Established, HandshakeError, NewLink, Peer, ResumeOffer, claim_link};
use crate::id::Id;
use crate::ledger::{DetachedEntry, Ledger};
use crate::stream::{RecvStream, SendStream};

/// How a link was lost.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LinkLoss {
    /// It broke.
    #[error("it broke: {0}")]
    Broken(String),
    /// The peer closed it without a word.
    #[error("the peer closed it without a reason, as a process that dies does")]
    Closed,
    /// The peer did not answer in time.
    #[error("it is silent: no answer to a probe in time")]
    Silent,
    /// A frame did not arrive in time.
    #[error("it dribbles: a frame has been arriving for too long")]
    Dribbling,
}

impl LinkLoss {
    /// The kind of loss, for logs and counters.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Broken(_) => "broken",
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Dribbling => "dribbling",
        }
    }
}

/// Why a channel ended.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// The link was lost, and no other took its place in time.
    #[error("the link was lost and not replaced in time: {0}")]
    LinkLost(LinkLoss),
    /// The link was lost, and the channels without one kept more than the process allows.
    #[error("the link was lost, and too much memory waited for links: {0}")]
    Crowded(LinkLoss),
    /// The peer does not go on with the channel.
    #[error("the link was lost, and the peer does not go on with the channel: {0}")]
    NotResumed(ResumeCode),
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
    /// The kind of end, for logs and counters: who ended the channel, and the code of CLOSE if there
    /// was one, such as `protocol_flow` or `closed_by_peer_shutdown`.
    #[must_use]
    pub fn code(&self) -> String {
        let (how, code) = match self {
            Self::LinkLost(_) => return "link_lost".to_owned(),
            Self::Crowded(_) => return "crowded".to_owned(),
            Self::NotResumed(_) => return "not_resumed".to_owned(),
            Self::ClosedByPeer { code, .. } => ("closed_by_peer", *code),
            Self::Closed { code, .. } => ("closed", *code),
            Self::Protocol(error) => ("protocol", error.code()),
        };
        code.counter(how)
    }

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
    /// The channel has lost its link and waits for another.
    #[error("the channel waits for a new link")]
    Detached,
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
    /// Received bytes that have not been read, with 32 for each piece.
    pub unread_bytes: u64,
    /// Streams that were given up because they were read too slowly.
    pub slow_consumers: u64,
    /// Plaintext bytes received.
    pub bytes_received: u64,
    /// Plaintext bytes sent.
    pub bytes_sent: u64,
    /// Batches of frames sent, a TLS record each.
    pub batches_sent: u64,
    /// Round-trip time in microseconds, once measured.
    pub rtt_us: Option<u64>,
    /// Whether either end is draining.
    pub draining: bool,
    /// Seconds since the link was lost; `None` while there is one.
    pub outage_s: Option<f64>,
    /// Times that the channel moved to a new link.
    pub resumes: u64,
    /// Bytes that were to be sent again because of that.
    pub replayed_bytes: u64,
}

/// A channel. Clones are cheap and share it; they may be used from any thread.
///
/// Every handle works on the channel's state under one lock that its driver, on the same thread,
/// takes as well; it is held, at the longest, while what is encoded ahead is encoded and encrypted, at most
/// 256 KiB.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) peer: Peer,
    pub(crate) peer_boot_id: Id,
    pub(crate) channel_id: Id,
    secret: Secret,
    pub(crate) ordinal: u8,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) since: Instant,
    /// Notified when streams can be opened that could not before, or none any more: one end drains, or
    /// the channel has ended.
    pub(crate) tickets: Notify,
    /// Notified when the channel loses its link or gets one, and at the end.
    pub(crate) links: Notify,
}

pub(crate) struct State {
    pub(crate) core: cmgmux_mux::Channel,
    pub(crate) book: Book,
    pub(crate) ended: Option<EndReason>,
    /// The driver, while it sleeps; taken by whoever wakes it.
    pub(crate) driver: Option<Waker>,
    /// When a draining channel is closed at the latest.
    pub(crate) drain_until: Option<Instant>,
    /// Why this end wants the channel to end.
    pub(crate) ending: Option<EndReason>,
    /// A link to move to.
    pub(crate) new_link: Option<NewLink>,
    pub(crate) outage: Option<Outage>,
}

/// The time since a link was lost.
pub(crate) struct Outage {
    pub(crate) since: Instant,
    pub(crate) loss: LinkLoss,
    /// Its place in the account of the process, which it leaves with the outage.
    pub(crate) _entry: DetachedEntry,
    /// How many of [`OUTAGE_MARKS`] have passed.
    pub(crate) marks: usize,
}

impl Outage {
    /// When the next of [`OUTAGE_MARKS`] passes.
    pub(crate) fn next_mark(&self) -> Option<Instant> {
        OUTAGE_MARKS.get(self.marks).map(|&after| self.since + after)
    }
}

impl State {
    fn is_draining(&self) -> bool {
        self.drain_until.is_some() || !self.core.accepts_opens()
    }

    /// Lets everybody be woken if the channel has been without a link for so long.
    pub(crate) fn pass_outage_mark(&mut self) {
        let passed = self
            .outage
            .as_mut()
            .filter(|outage| outage.next_mark().is_some_and(|mark| mark <= Instant::now()));
        if let Some(outage) = passed {
            outage.marks += 1;
            self.book.wake_all();
        }
    }
}

/// Times after the loss of a link at which everybody who waits for a stream of the channel is woken,
/// to look at [`Channel::outage`] and perhaps wait no longer.
pub const OUTAGE_MARKS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];

impl Channel {
    /// Takes over an agreed channel, of the process with this `ledger`, on this thread's runtime. The
    /// future drives it and must be polled on the same thread; it ends with the channel, at most some
    /// seconds later, when the peer has been told why.
    ///
    /// # Errors
    ///
    /// The runtime does not take the socket.
    pub fn start(
        established: Established,
        ledger: &Arc<Ledger>,
    ) -> std::io::Result<(Self, impl Future<Output = EndReason> + use<>)> {
        let now = Instant::now();
        let Established { tls, input, side, config, peer, ordinal, .. } = established;
        let Established { channel_id, secret, peer_boot_id, .. } = established;
        let core = cmgmux_mux::Channel::new(side, config, cmgmux_mux::Timestamp::ZERO);
        let state = State {
            core,
            book: Book::default(),
            ended: None,
            driver: None,
            drain_until: None,
            ending: None,
            new_link: None,
            outage: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            peer,
            peer_boot_id,
            channel_id,
            secret,
            ordinal,
            ledger: Arc::clone(ledger),
            since: now,
            tickets: Notify::new(),
            links: Notify::new(),
        });
        let driver = Driver::new(Arc::clone(&shared), tls, input)?;
        Ok((Self { shared }, driver))
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.shared.peer
    }

    /// Names the channel, the same at both ends.
    #[must_use]
    pub fn id(&self) -> Id {
        self.shared.channel_id
    }

    /// Names the run of the other end's process.
    #[must_use]
    pub fn peer_boot_id(&self) -> Id {
        self.shared.peer_boot_id
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
                Err(UsageError::Detached) => (Err(OpenError::Detached), false),
                Err(_) => (Err(OpenError::NoTicket), false),
            }
        })
    }

    /// Waits until streams may be opened that could not before, or one end drains, or the channel ends.
    /// Take the future before the failing [`try_open`](Self::try_open), so that nothing is missed
    /// between.
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
        self.shared
            .with(|state| state.ended.is_none() && state.outage.is_none() && !state.is_draining())
    }

    /// Whether either end has asked for no more streams.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.with(|state| state.is_draining())
    }

    /// Waits until either end has asked for no more streams, or the channel has ended.
    pub async fn drains(&self) {
        loop {
            let changed = self.opens_possible();
            if self.shared.with(|state| state.ended.is_some() || state.is_draining()) {
                return;
            }
            changed.await;
        }
    }

    /// How long the channel has been without a link; `None` while it has one, and after its end.
    #[must_use]
    pub fn outage(&self) -> Option<Duration> {
        self.shared.with(|state| state.outage.as_ref().map(|outage| outage.since.elapsed()))
    }

    /// Waits until the channel needs a new link, and says how the last one was lost. Never ready once
    /// the channel has ended.
    pub async fn needs_link(&self) -> LinkLoss {
        loop {
            let changed = self.shared.links.notified();
            let loss = self.shared.with(|state| {
                let outage = state.outage.as_ref().filter(|_| state.new_link.is_none());
                outage.map(|outage| outage.loss.clone())
            });
            match loss {
                Some(loss) => return loss,
                None => changed.await,
            }
        }
    }

    /// Asks the instance to go on with the channel over a fresh TCP connection. The present link, if
    /// it lives, serves until that is agreed. Each step may take
    /// [`HANDSHAKE_TIMEOUT`](crate::HANDSHAKE_TIMEOUT).
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]. If the instance does not know the channel, or cannot go on with it, the
    /// channel ends.
    pub async fn resume_over(
        &self,
        socket: TcpStream,
        tls: Arc<ClientConfig>,
        server_name: ServerName<'static>,
    ) -> Result<(), HandshakeError> {
        let key = (self.shared.channel_id, &self.shared.secret);
        let claim = || self.shared.with(|state| state.core.claim());
        let error = match claim_link(socket, tls, server_name, key, claim).await {
            Ok(link) => {
                self.take_link(link);
                return Ok(());
            }
            Err(error) => error,
        };
        match &error {
            HandshakeError::NotResumed(code @ ResumeCode::UNKNOWN_CHANNEL) => {
                self.shared.end(EndReason::NotResumed(*code));
            }
            HandshakeError::Refused { code: code @ CloseCode::RESUME_RANGE, text } => {
                self.shared.end(EndReason::ClosedByPeer { code: *code, text: text.clone() });
            }
            _ => {}
        }
        Err(error)
    }

    /// Whether the sender of `offer` is the channel's connection point: by its certificate and by
    /// proof that it knows the channel's secret.
    #[must_use]
    pub fn is_offered(&self, offer: &ResumeOffer) -> bool {
        let is_proven = offer.is_proof_of(&self.shared.secret);
        let is_same =
            matches!(&self.shared.peer, Peer::ConnectionPoint(peer) if *peer == offer.peer);
        let is_live = self.shared.with(|state| state.ended.is_none());
        is_proven && is_same && is_live && offer.channel_id() == self.shared.channel_id
    }

    /// Goes on over the link of an offer that [is the channel's](Self::is_offered). The driver
    /// answers on its own thread.
    ///
    /// # Errors
    ///
    /// The link broke.
    pub fn resume(&self, offer: ResumeOffer) -> Result<(), HandshakeError> {
        self.take_link(offer.accept()?);
        Ok(())
    }

    /// Hands a link to the driver, unless it has a later one already.
    fn take_link(&self, link: NewLink) {
        self.shared.with_output(|state| {
            let is_newest =
                state.new_link.as_ref().is_none_or(|other| other.epoch() < link.epoch());
            if is_newest && state.ended.is_none() {
                state.new_link = Some(link);
            }
            ((), true)
        });
    }

    /// Opens no more streams and asks the peer not to either. The channel is closed when the
    /// streams have ended, or after `grace`.
    pub fn drain(&self, grace: Duration) {
        self.shared.with_output(|state| {
            let now = Instant::now();
            let until = now + grace;
            let until = state.drain_until.map_or(until, |earlier| earlier.min(until));
            state.drain_until = Some(until);
            let grace = until.saturating_duration_since(now);
            state.core.go_away(CloseCode::SHUTDOWN, grace);
            ((), true)
        });
        self.shared.tickets.notify_waiters();
    }

    /// Closes the channel at once; its streams end with an error on both sides.
    pub fn close(&self, code: CloseCode, text: &str) {
        self.shared.end(EndReason::Closed { code, text: text.to_owned() });
    }

    /// Waits for the channel's end and says why it ended.
    pub async fn ended(&self) -> EndReason {
        loop {
            let changed = self.shared.links.notified();
            if let Some(reason) = self.shared.with(|state| state.ended.clone()) {
                return reason;
            }
            changed.await;
        }
    }

    /// Size and totals.
    #[must_use]
    pub fn stats(&self) -> ChannelStats {
        let (counters, handles, draining, outage) = self.shared.with(|state| {
            let draining = state.is_draining();
            let outage = state.outage.as_ref().map(|outage| outage.since.elapsed().as_secs_f64());
            (state.core.counters(), state.book.entries.len(), draining, outage)
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
            unread_bytes: counters.unread_bytes,
            slow_consumers: counters.slow_consumers,
            bytes_received: counters.bytes_received,
            bytes_sent: counters.bytes_sent,
            batches_sent: counters.batches_sent,
            rtt_us: counters.rtt.and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
            draining,
            outage_s: outage,
            resumes: counters.resumes,
            replayed_bytes: counters.replayed_bytes,
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

    /// Has the driver end the channel.
    pub(crate) fn end(&self, reason: EndReason) {
        self.with_output(|state| {
            state.ending.get_or_insert(reason);
            ((), true)
        });
    }

    /// Has the driver end a channel without a link because too much waits for links.
    pub(crate) fn end_crowded(&self) {
        self.with_output(|state| {
            // It may have a link again.
            if let Some(Outage { loss, .. }) = &state.outage {
                state.ending.get_or_insert(EndReason::Crowded(loss.clone()));
            }
            ((), true)
        });
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
