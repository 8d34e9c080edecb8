//! What all threads of an instance share: sites, counters, the channels for the status.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use cmgmux_exchange::refusal::Reason;
use cmgmux_net::listen::AcceptCounters;
use cmgmux_net::shard::Shards;
use cmgmux_net::{Channel, CloseCode, Id, Ledger, Peer, PeerIdentity};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::settings::Timeouts;
use crate::sites::Sites;

/// The state of one instance beyond its threads.
pub(crate) struct Instance {
    pub(crate) index: u8,
    pub(crate) boot_id: Id,
    pub(crate) addresses: Addresses,
    pub(crate) timeouts: Timeouts,
    pub(crate) clients_per_shard: usize,
    pub(crate) sites: Sites,
    pub(crate) shards: Vec<ShardCounters>,
    /// Error answers to clients, by the number of their reason.
    refusals: Vec<AtomicU64>,
    /// Answers that broke off after they had begun.
    pub(crate) broken_answers: AtomicU64,
    pub(crate) links: LinkCounters,
    /// What its channels share.
    pub(crate) ledger: Arc<Ledger>,
    /// Live channels of all shards.
    channels: Mutex<Vec<(usize, Channel)>>,
    since: Instant,
    stopping: AtomicBool,
}

/// Where an instance listens, with the ports that it got if its settings left them open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) clients: SocketAddr,
    pub(crate) channels: SocketAddr,
}

/// Counters of one shard, written by it alone.
#[derive(Default)]
pub(crate) struct ShardCounters {
    pub(crate) accepts: Arc<AcceptCounters>,
    pub(crate) clients_open: AtomicU64,
    pub(crate) tls_failed: AtomicU64,
    pub(crate) requests: AtomicU64,
    /// Requests that moved to another connection point.
    pub(crate) requests_moved: AtomicU64,
    pub(crate) exchanges_open: AtomicU64,
}

/// Counters of the channel port.
#[derive(Default)]
pub(crate) struct LinkCounters {
    pub(crate) accepts: Arc<AcceptCounters>,
    pub(crate) established: AtomicU64,
}

/// Counts one thing for as long as it lives.
pub(crate) struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    pub(crate) fn new(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Instance {
    pub(crate) fn new(
        index: u8,
        addresses: Addresses,
        shards: usize,
        timeouts: Timeouts,
        clients_per_shard: usize,
        ledger: Ledger,
    ) -> Self {
        Self {
            index,
            boot_id: Id::random(),
            addresses,
            timeouts,
            clients_per_shard,
            sites: Sites::default(),
            shards: (0..shards).map(|_| ShardCounters::default()).collect(),
            refusals: Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            broken_answers: AtomicU64::new(0),
            links: LinkCounters::default(),
            ledger: Arc::new(ledger),
            channels: Mutex::new(Vec::new()),
            since: Instant::now(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Notes that the instance stops.
    pub(crate) fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the instance stops, and so takes nothing new.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Counts an error answer.
    pub(crate) fn refuse(&self, reason: Reason) {
        if let Some(counter) = self.refusals.get(reason.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes a live channel of a shard.
    pub(crate) fn add_channel(&self, shard: usize, channel: Channel) {
        self.channels.lock().push((shard, channel));
    }

    /// Forgets a channel that has ended.
    pub(crate) fn remove_channel(&self, channel: &Channel) {
        self.channels.lock().retain(|(_, other)| !other.is_same(channel));
    }

    /// The live channel with this id.
    pub(crate) fn channel(&self, id: Id) -> Option<Channel> {
        let channels = self.channels.lock();
        channels.iter().find(|(_, channel)| channel.id() == id).map(|(_, channel)| channel.clone())
    }

    /// Closes what a connection point's process has left that was not the run `boot_id`.
    pub(crate) fn close_channels_of_other_runs(&self, peer: &PeerIdentity, boot_id: Id) {
        let peer = Peer::ConnectionPoint(peer.clone());
        for (_, channel) in self.channels.lock().iter() {
            if *channel.peer() == peer && channel.peer_boot_id() != boot_id {
                channel.close(CloseCode::REPLACED, "the connection point has started anew");
            }
        }
    }

    /// Counters and state as the admin socket serves them.
    pub(crate) fn status(&self, threads: &Shards) -> Value {
        let channels = self.channels.lock().clone();
        let channel = |(shard, channel): &(usize, Channel)| {
            let mut stats = serde_json::to_value(channel.stats()).unwrap_or_default();
            stats["shard"] = json!(shard);
            stats
        };
        let shard = |(number, shard): (usize, &ShardCounters)| {
            json!({
                "shard": number,
                "clients_open": shard.clients_open.load(Ordering::Relaxed),
                "clients_total": shard.accepts.accepted(),
                "accept_failures_total": shard.accepts.failed(),
                "tls_failures_total": shard.tls_failed.load(Ordering::Relaxed),
                "requests_total": shard.requests.load(Ordering::Relaxed),
                "requests_moved_total": shard.requests_moved.load(Ordering::Relaxed),
                "exchanges_open": shard.exchanges_open.load(Ordering::Relaxed),
            })
        };
        let refusals: Map<String, Value> = Reason::ALL
            .iter()
            .zip(&self.refusals)
            .map(|(reason, count)| (reason.code().to_owned(), count.load(Ordering::Relaxed)))
            .filter(|&(_, count)| count > 0)
            .map(|(code, count)| (code, count.into()))
            .collect();
        json!({
            "role": "gateway",
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "index": self.index,
            "boot_id": self.boot_id,
            "client_address": self.addresses.clients,
            "channel_address": self.addresses.channels,
            "uptime_s": self.since.elapsed().as_secs_f64(),
            "state": if self.is_stopping() {
                "draining"
            } else if channels.is_empty() {
                "waiting for a connection point"
            } else if channels.iter().all(|(_, channel)| channel.outage().is_some()) {
                "waiting for links"
            } else {
                "ready"
            },
            "shards": self.shards.iter().enumerate().map(shard).collect::<Vec<_>>(),
            "channels": channels.iter().map(channel).collect::<Vec<_>>(),
            "sites": self.sites.status(),
            "refusals": refusals,
            "broken_answers_total": self.broken_answers.load(Ordering::Relaxed),
            "tasks": threads.tasks(),
            "panics_total": threads.panics(),
            "links": {
                "accepted_total": self.links.accepts.accepted(),
                "established_total": self.links.established.load(Ordering::Relaxed),
                "refused": self.ledger.link_failures(),
                "lost": self.ledger.link_losses(),
            },
            "channel_ends": self.ledger.channel_ends(),
            "detached_bytes": self.ledger.detached_bytes(),
        })
    }
}
