//! One shard of the instance: its clients and its channels, on one thread.

use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use cmgmux_net::listen::{Acceptor, limit_receiving};
use cmgmux_net::shard::Shard;
use cmgmux_net::{Channel, Established, Peer, StreamCode, StreamKind};
use rustls::ServerConfig;
use tokio::sync::{Semaphore, mpsc};
use tracing::error;

use crate::control;
use crate::front;
use crate::instance::{Instance, ShardCounters};
use crate::router::Router;

/// What the kernel holds of a request that its role does not take. Over 100 ms of the internet this
/// carries 10 Mbit/s.
const CLIENT_RECEIVE_BYTES: usize = 128 * 1024;

/// What the tasks of one shard share.
pub(crate) struct ShardState {
    pub(crate) shard: Shard,
    pub(crate) instance: Arc<Instance>,
    pub(crate) router: Router,
    /// TLS of the client front.
    pub(crate) tls: Arc<ServerConfig>,
    clock: RefCell<Clock>,
}

/// The time as `Date` wants it, formatted once a second.
#[derive(Default)]
struct Clock {
    second: u64,
    text: Rc<str>,
}

impl ShardState {
    pub(crate) fn counters(&self) -> &ShardCounters {
        &self.instance.shards[self.shard.index()]
    }

    /// The value of `Date` for an answer that begins now.
    pub(crate) fn date(&self) -> Rc<str> {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut clock = self.clock.borrow_mut();
        if clock.second != second || clock.text.is_empty() {
            *clock = Clock { second, text: httpdate::fmt_http_date(now).into() };
        }
        Rc::clone(&clock.text)
    }
}

/// What a shard starts with.
pub(crate) struct ShardStart {
    pub(crate) instance: Arc<Instance>,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) listener: TcpListener,
    pub(crate) links: mpsc::Receiver<Established>,
}

/// Serves clients and channels until the instance stops.
///
/// # Errors
///
/// The listener is lost.
pub(crate) async fn run(shard: Shard, start: ShardStart) -> Result<(), String> {
    let ShardStart { instance, tls, listener, mut links } = start;
    let places = Arc::new(Semaphore::new(instance.clients_per_shard));
    let state = Rc::new(ShardState {
        shard,
        instance,
        router: Router::default(),
        tls,
        clock: RefCell::default(),
    });
    let acceptor = limit_receiving(&listener, CLIENT_RECEIVE_BYTES)
        .and_then(|()| Acceptor::new(listener, Arc::clone(&state.counters().accepts)))
        .map_err(|error| format!("cannot watch the client port: {error}"))?;
    loop {
        let accepting = async {
            // While all places are taken, clients wait in the system's queue.
            let place = Arc::clone(&places).acquire_owned().await;
            (place.ok(), acceptor.accept().await)
        };
        tokio::select! {
            () = state.shard.stop().requested() => break,
            Some(established) = links.recv() => attach(&state, established),
            (place, accepted) = accepting => {
                let (socket, address) =
                    accepted.map_err(|error| format!("the client port is lost: {error}"))?;
                let client = front::Arrival { socket, address, place };
                state.shard.spawn(front::serve(Rc::clone(&state), client));
            }
        }
    }
    // Their peers have been told that they are up.
    links.close();
    while let Some(established) = links.recv().await {
        attach(&state, established);
    }
    let deadline = state.shard.stop().deadline().unwrap_or_else(Instant::now);
    // The channels say goodbye before the shard drops their tasks.
    let grace = deadline.saturating_duration_since(Instant::now()).mul_f64(0.9);
    for channel in state.router.channels() {
        channel.drain(grace);
    }
    Ok(())
}

/// Starts a channel that has finished its handshake on this shard.
fn attach(state: &Rc<ShardState>, established: Established) {
    let Peer::ConnectionPoint(peer) = established.peer.clone() else { return };
    let (channel, driver) = match Channel::start(established, &state.instance.ledger) {
        Ok(started) => started,
        Err(error) => {
            error!(%peer, %error, "the shard cannot take a channel's socket");
            return;
        }
    };
    state.router.add(&peer, channel.clone());
    state.instance.add_channel(state.shard.index(), channel.clone());
    let owner = Rc::clone(state);
    let driven = channel.clone();
    state.shard.spawn(async move {
        let forgetting = async {
            driven.ended().await;
            owner.router.remove(&driven);
            owner.instance.remove_channel(&driven);
        };
        // The last word to the peer may take longer.
        tokio::join!(biased; driver, forgetting);
    });
    let owner = Rc::clone(state);
    state.shard.spawn(async move {
        loop {
            tokio::select! {
                incoming = channel.accept() => match incoming {
                    Some(stream) if stream.kind == StreamKind::Control => {
                        let instance = Arc::clone(&owner.instance);
                        owner.shard.spawn(control::serve(instance, peer.clone(), stream));
                    }
                    Some(stream) => {
                        stream.send.reset(StreamCode::REFUSED);
                        stream.recv.stop(StreamCode::REFUSED);
                    }
                    None => return,
                },
                () = channel.opens_possible() => owner.router.look_again(),
            }
        }
    });
}
