//! The channel port: links of connection points are checked here and handed to their shard.

mod arrivals;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cmgmux_net::listen::Acceptor;
use cmgmux_net::shard::Shard;
use cmgmux_net::tls::Trust;
use cmgmux_net::{
    Arrival, CloseCode, Established, HandshakeError, Id, Limits, Offer, PeerIdentity, ResumeCode,
    ResumeOffer,
};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::sleep;
use tracing::{debug, error, warn};

use self::arrivals::{Arrivals, Place};
use crate::instance::Instance;

/// How long an answer to a resume takes once its connection point has failed too often.
const FAILED_PROOF_DELAY: Duration = Duration::from_secs(1);
/// Streams that a connection point may have open: control streams only.
const CONTROL_STREAMS: u32 = 16;

/// Accepts links until the instance stops.
pub(crate) struct LinkListener {
    pub(crate) instance: Arc<Instance>,
    pub(crate) listener: TcpListener,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) trust: Trust,
    /// Where each shard takes its channels.
    pub(crate) shards: Vec<mpsc::Sender<Established>>,
}

impl LinkListener {
    /// Runs on the control thread.
    ///
    /// # Errors
    ///
    /// The listener is lost.
    pub(crate) async fn run(self, thread: Shard) -> Result<(), String> {
        let counters = Arc::clone(&self.instance.links.accepts);
        let acceptor = Acceptor::new(self.listener, counters)
            .map_err(|error| format!("cannot watch the channel port: {error}"))?;
        let arrivals = Rc::new(Arrivals::default());
        let context = Rc::new(Context {
            instance: self.instance,
            tls: self.tls,
            trust: self.trust,
            shards: self.shards,
            warnings: Warnings::new(),
            failed_proofs: FailedProofs::new(),
        });
        loop {
            let accepted = tokio::select! {
                () = thread.stop().requested() => return Ok(()),
                accepted = acceptor.accept() => accepted,
            };
            let (socket, address) =
                accepted.map_err(|error| format!("the channel port is lost: {error}"))?;
            let place = tokio::select! {
                () = thread.stop().requested() => return Ok(()),
                place = arrivals.enter(address.ip()) => place,
            };
            let context = Rc::clone(&context);
            thread.spawn(async move { context.receive(socket, address, place).await });
        }
    }
}

struct Context {
    instance: Arc<Instance>,
    tls: Arc<ServerConfig>,
    trust: Trust,
    shards: Vec<mpsc::Sender<Established>>,
    warnings: Warnings,
    failed_proofs: FailedProofs,
}

/// How many refused links are worth a line in the log, so that a port scanner cannot fill it. The
/// status counts all of them.
struct Warnings {
    since: Cell<Instant>,
    given: Cell<u32>,
}

impl Warnings {
    const EACH: Duration = Duration::from_secs(60);
    const MOST: u32 = 30;

    fn new() -> Self {
        Self { since: Cell::new(Instant::now()), given: Cell::new(0) }
    }

    /// Whether there is one more line to give.
    fn take(&self) -> bool {
        if self.since.get().elapsed() >= Self::EACH {
            self.since.set(Instant::now());
            self.given.set(0);
        }
        self.given.set(self.given.get().saturating_add(1));
        if self.given.get() == Self::MOST + 1 {
            warn!(
                quiet_s = Self::EACH.saturating_sub(self.since.get().elapsed()).as_secs(),
                "many links are being refused; `links.refused` in the status counts the rest"
            );
        }
        self.given.get() <= Self::MOST
    }
}

impl Context {
    /// Takes one link through its handshake and to its shard.
    async fn receive(&self, socket: TcpStream, address: SocketAddr, mut place: Place) {
        let arriving = Arrival::receive(socket, Arc::clone(&self.tls), &self.trust);
        let arrival = tokio::select! {
            biased;
            arrival = arriving => arrival.map_err(|error| (error.reason(), error.to_string())),
            () = place.crowded_out() => Err(("crowded".into(), crowded())),
        };
        let arrival = match arrival {
            Ok(arrival) => arrival,
            Err((reason, error)) => {
                if self.warnings.take() {
                    warn!(%address, %reason, %error, "link refused");
                }
                self.instance.ledger.note_link_failure(&reason);
                return;
            }
        };
        place.note_known();
        let (peer, taken) = match arrival {
            Arrival::Hello(offer) => (offer.peer.clone(), self.establish(offer, address).await),
            Arrival::Resume(offer) => (offer.peer.clone(), self.resume(offer, address).await),
        };
        match taken {
            Ok(()) => {
                self.instance.links.established.fetch_add(1, Ordering::Relaxed);
            }
            Err((reason, error)) => {
                if self.warnings.take() {
                    warn!(%address, %peer, %reason, %error, "link refused");
                }
                self.instance.ledger.note_link_failure(&reason);
            }
        }
    }

    async fn establish(
        &self,
        offer: Offer,
        address: SocketAddr,
    ) -> Result<(), (Cow<'static, str>, String)> {
        let index = self.instance.index;
        if offer.hello.instance != index {
            let text = format!(
                "this is instance {index}, and instance {} was meant: check the address of the \
                 connection point's [[instances]] entry",
                offer.hello.instance
            );
            offer.refuse(CloseCode::WRONG_INSTANCE, &text).await;
            return Err(("wrong_instance".into(), text));
        }
        let ordinal = usize::from(offer.hello.ordinal);
        let Some(shard) = self.shards.get(ordinal) else {
            let text =
                format!("this instance has {} shards and no number {ordinal}", self.shards.len());
            offer.refuse(CloseCode::WRONG_ORDINAL, &text).await;
            return Err(("wrong_ordinal".into(), text));
        };
        let place = match shard.try_reserve() {
            Ok(place) if !self.instance.is_stopping() => Ok(place),
            Ok(_) | Err(TrySendError::Closed(())) => Err("the instance is stopping"),
            Err(TrySendError::Full(())) => Err("too many channels wait for the shard at present"),
        };
        let place = match place {
            Ok(place) => place,
            Err(text) => {
                offer.refuse(CloseCode::DRAINING, text).await;
                return Err(("draining".into(), text.to_owned()));
            }
        };
        // A process that has started anew has forgotten its channels.
        self.instance.close_channels_of_other_runs(&offer.peer, Id(offer.hello.boot_id));
        let limits = Limits { max_streams: CONTROL_STREAMS, ..Limits::default() };
        let shards = u8::try_from(self.shards.len()).unwrap_or(u8::MAX);
        let (peer, channel_id) = (offer.peer.clone(), Id::random_of_instance(index));
        let established = offer
            .accept(limits, shards, self.instance.boot_id, channel_id)
            .await
            .map_err(|error: HandshakeError| (error.reason(), error.to_string()))?;
        debug!(%peer, %address, channel = %channel_id, "link accepted");
        place.send(established);
        Ok(())
    }

    /// Gives a channel the link that its connection point asks to go on over. Whoever cannot prove
    /// that gets the same answer for a channel that there is and for one that there is not.
    async fn resume(
        &self,
        offer: ResumeOffer,
        address: SocketAddr,
    ) -> Result<(), (Cow<'static, str>, String)> {
        let (peer, channel_id) = (offer.peer.clone(), offer.channel_id());
        if self.failed_proofs.is_over(&peer) {
            sleep(FAILED_PROOF_DELAY).await;
        }
        if channel_id.instance() != self.instance.index {
            let text = format!(
                "this is instance {}, and the channel belongs to instance {}: check what leads to \
                 the address",
                self.instance.index,
                channel_id.instance()
            );
            offer.refuse(ResumeCode::WRONG_INSTANCE).await;
            return Err(("wrong_instance".into(), text));
        }
        let channel = self.instance.channel(channel_id);
        if channel.is_none() {
            offer.check_in_vain();
        }
        let Some(channel) = channel.filter(|channel| channel.is_offered(&offer)) else {
            if self.failed_proofs.note(&peer) {
                error!(
                    %peer, %address, most_per_minute = FailedProofs::MOST,
                    "a connection point keeps asking for channels that are not its own"
                );
            }
            offer.refuse(ResumeCode::UNKNOWN_CHANNEL).await;
            let text = format!("no channel {channel_id} of this connection point is known here");
            return Err(("unknown_channel".into(), text));
        };
        debug!(%peer, %address, channel = %channel_id, "link accepted for a channel that exists");
        channel.resume(offer).map_err(|error| (error.reason(), error.to_string()))
    }
}

/// Why a stranger had to go.
fn crowded() -> String {
    format!(
        "more than {} links are being checked at a time, and the oldest strangers have to go: if many \
         come from where no connection point is, keep them from the channel port",
        Arrivals::MOST
    )
}

/// Resumes that failed for want of a channel or of a proof, by connection point.
struct FailedProofs {
    /// Since when, and how many.
    counts: RefCell<BTreeMap<PeerIdentity, (Instant, u32)>>,
}

impl FailedProofs {
    const EACH: Duration = Duration::from_secs(60);
    /// More than this many within a minute are answered late.
    const MOST: u32 = 10;

    fn new() -> Self {
        Self { counts: RefCell::default() }
    }

    /// Whether the connection point has failed too often of late.
    fn is_over(&self, peer: &PeerIdentity) -> bool {
        let counts = self.counts.borrow();
        let count = counts.get(peer).filter(|(since, _)| since.elapsed() < Self::EACH);
        count.is_some_and(|&(_, count)| count >= Self::MOST)
    }

    /// Counts a failure; says whether it is the one that is too much.
    fn note(&self, peer: &PeerIdentity) -> bool {
        let mut counts = self.counts.borrow_mut();
        counts.retain(|_, (since, _)| since.elapsed() < Self::EACH);
        let (_, count) = counts.entry(peer.clone()).or_insert_with(|| (Instant::now(), 0));
        *count = count.saturating_add(1);
        *count == Self::MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_links_stop_filling_the_log() {
        let warnings = Warnings::new();
        let given = (0..1_000).filter(|_| warnings.take()).count();
        assert_eq!(given, 30);
        warnings.since.set(Instant::now() - Warnings::EACH);
        assert!(warnings.take());
    }

    #[test]
    fn j11_failed_resumes_are_counted_by_connection_point_for_a_minute() {
        let proofs = FailedProofs::new();
        let [one, other] = ["one", "other"].map(|name| PeerIdentity::new("NYC", name).unwrap());
        let alarms = (0..100).filter(|_| proofs.note(&one)).count();
        assert_eq!(alarms, 1);
        assert!(proofs.is_over(&one) && !proofs.is_over(&other));
        let begun = Instant::now() - FailedProofs::EACH;
        proofs.counts.borrow_mut().insert(one.clone(), (begun, 100));
        assert!(!proofs.is_over(&one));
        proofs.note(&other);
        assert_eq!(proofs.counts.borrow().len(), 1, "what is over is forgotten");
    }
}
