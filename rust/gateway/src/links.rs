//! The channel port: links of connection points are checked here and handed to their shard.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cmgmux_net::listen::Acceptor;
use cmgmux_net::shard::Shard;
use cmgmux_net::tls::Trust;
use cmgmux_net::{CloseCode, Established, HandshakeError, Id, Limits, Offer};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};

use crate::instance::Instance;

/// Handshakes under way at a time; further links wait in the system's queue.
const MAX_HANDSHAKES: usize = 512;
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
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let context = Rc::new(Context {
            instance: self.instance,
            tls: self.tls,
            trust: self.trust,
            shards: self.shards,
            warnings: Warnings::new(),
        });
        loop {
            let accepting = async {
                let place = Arc::clone(&handshakes).acquire_owned().await;
                (place, acceptor.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = thread.stop().requested() => return Ok(()),
                accepted = accepting => accepted,
            };
            let (socket, address) =
                accepted.map_err(|error| format!("the channel port is lost: {error}"))?;
            let context = Rc::clone(&context);
            thread.spawn(async move {
                context.receive(socket, address).await;
                drop(place);
            });
        }
    }
}

struct Context {
    instance: Arc<Instance>,
    tls: Arc<ServerConfig>,
    trust: Trust,
    shards: Vec<mpsc::Sender<Established>>,
    warnings: Warnings,
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
    async fn receive(&self, socket: TcpStream, address: SocketAddr) {
        let links = &self.instance.links;
        let offer = match Offer::receive(socket, Arc::clone(&self.tls), &self.trust).await {
            Ok(offer) => offer,
            Err(error) => {
                links.refuse(error.reason());
                if self.warnings.take() {
                    warn!(%address, reason = error.reason(), %error, "link refused");
                }
                return;
            }
        };
        let peer = offer.peer.clone();
        match self.establish(offer, address).await {
            Ok(()) => {
                links.established.fetch_add(1, Ordering::Relaxed);
            }
            Err((reason, error)) => {
                links.refuse(reason);
                if self.warnings.take() {
                    warn!(%address, %peer, reason, %error, "link refused");
                }
            }
        }
    }

    async fn establish(
        &self,
        offer: Offer,
        address: SocketAddr,
    ) -> Result<(), (&'static str, String)> {
        let index = self.instance.index;
        if offer.hello.instance != index {
            let text = format!(
                "this is instance {index}, and instance {} was meant: check the address of the \
                 connection point's [[instances]] entry",
                offer.hello.instance
            );
            offer.refuse(CloseCode::WRONG_INSTANCE, &text).await;
            return Err(("wrong_instance", text));
        }
        let ordinal = usize::from(offer.hello.ordinal);
        let Some(shard) = self.shards.get(ordinal) else {
            let text =
                format!("this instance has {} shards and no number {ordinal}", self.shards.len());
            offer.refuse(CloseCode::WRONG_ORDINAL, &text).await;
            return Err(("wrong_ordinal", text));
        };
        let place = match shard.try_reserve() {
            Ok(place) => place,
            Err(_) => {
                let text = "the shard takes no channels at present".to_owned();
                offer.refuse(CloseCode::DRAINING, &text).await;
                return Err(("draining", text));
            }
        };
        let limits = Limits { max_streams: CONTROL_STREAMS, ..Limits::default() };
        let shards = u8::try_from(self.shards.len()).unwrap_or(u8::MAX);
        let (peer, channel_id) = (offer.peer.clone(), Id::random());
        let established = offer
            .accept(limits, shards, self.instance.boot_id, channel_id)
            .await
            .map_err(|error: HandshakeError| (error.reason(), error.to_string()))?;
        debug!(%peer, %address, channel = %channel_id, "link accepted");
        place.send(established);
        Ok(())
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
}
