//! Many clients that hold notification streams through a gateway and check what they get, and requests
//! beside them.

use std::iter::{Skip, StepBy};
use std::ops::Range;
use std::sync::mpsc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cmgmux_net::admin::{self, AdminServer};
use cmgmux_net::shard::{self, Shard, Shards};
use cmgmux_net::{ConfigError, Service, ServiceError};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

mod client;
mod config;
mod connection;
mod histogram;
mod kinds;
mod pace;
mod report;
mod requests;
mod tally;
mod timeline;

pub use config::SwarmConfig;
pub use kinds::Kind;
pub use report::{AnswerTimes, SwarmReport};

use client::{Blueprint, Client};
use pace::Pace;
use requests::Requests;
use tally::Tally;

/// Handshakes under way at a time, in all shards together.
const MAX_HANDSHAKES: usize = 64;
/// What the last requests get to leave, beyond the duration in which they become due.
const LAST_REQUESTS: Duration = Duration::from_millis(500);
/// What the shards get to put their finished tasks away.
const END_GRACE: Duration = Duration::from_secs(1);

/// A running swarm.
///
/// It ends by itself when its last client has, or when the requests have gone on for their duration:
/// [`wait`](Service::wait) returns then, and [`report`](Swarm::report) is final. Clients and requests
/// that fail are part of the report, not errors of the swarm. After a stop no client starts and none
/// waits for a further notification; those that are connecting or holding go on until the grace is
/// over.
#[derive(Debug)]
pub struct Swarm {
    state: Arc<State>,
    admin: Option<AdminServer>,
    /// Closes when the last client has ended; nothing is ever sent on it.
    ended: Mutex<mpsc::Receiver<()>>,
}

#[derive(Debug)]
struct State {
    target: String,
    tally: Arc<Tally>,
    shards: Shards,
}

impl Swarm {
    /// What has become of the clients, so far or in the end.
    pub fn report(&self) -> SwarmReport {
        self.state.tally.report()
    }
}

impl Service for Swarm {
    type Config = SwarmConfig;

    fn start(config: SwarmConfig) -> Result<Self, ConfigError> {
        let count = shard::count(Some(config.shards))?;
        let rate = config.request_rate()?;
        let blueprint = Arc::new(config.blueprint()?);
        let (ids, interval) = (config.ids()?, config.interval()?);
        let kinds = Arc::new(config.kinds()?);
        let connections = config.request_connections()?;
        let duration = config.duration()?;
        let tally = Tally::new(config.clients, rate);
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let (alive, ended) = mpsc::channel();
        let shards = Shards::start("swarm", count)?;
        let state = Arc::new(State { target: config.target, tally, shards });
        let snapshot = Arc::clone(&state);
        // Before the first client, so that a refused socket costs the gateway nothing.
        let admin =
            AdminServer::start_if_set(config.admin_socket.as_deref(), move || snapshot.status())?;
        for index in 0..count {
            let ramp = Ramp {
                blueprint: Arc::clone(&blueprint),
                tally: Arc::clone(&state.tally),
                ids: ids.clone().skip(index).step_by(count),
                first_id: ids.start,
                kinds: Arc::clone(&kinds),
                interval,
                shards: count,
                handshakes: Arc::clone(&handshakes),
                alive: alive.clone(),
            };
            state.shards.spawn_on(index, move |shard| ramp.run(shard));
            let Some(rate) = rate else { continue };
            let requests = Requests {
                blueprint: Arc::clone(&blueprint),
                tally: Arc::clone(&state.tally),
                interval: turns(Duration::from_secs_f64(1.0 / rate), count),
                offset: turns(Duration::from_secs_f64(1.0 / rate), index),
                connections: connections.div_ceil(count),
                duration,
                alive: alive.clone(),
            };
            state.shards.spawn_on(index, move |shard| requests.run(shard));
        }
        if rate.is_some() {
            let end = End { state: Arc::downgrade(&state), duration, has_clients: !ids.is_empty() };
            let tally = Arc::clone(&state.tally);
            state.shards.spawn_on(0, move |shard| end.run(shard, tally));
        }
        Ok(Self { state, admin, ended: Mutex::new(ended) })
    }

    fn status(&self) -> Value {
        self.state.status()
    }

    fn request_stop(&self, grace: Duration) {
        self.state.shards.request_stop(grace);
    }

    fn wait(&self) -> Result<(), ServiceError> {
        // Always an error, by design: it returns when every task that could send is gone.
        let _ = self.ended.lock().recv();
        self.state.shards.request_stop(END_GRACE);
        let ended = self.state.shards.wait();
        self.state.tally.end();
        ended.and(admin::wait_to_the_end(&self.state.shards, self.admin.as_ref()))
    }
}

impl State {
    fn status(&self) -> Value {
        let (mut status, progress) = self.tally.snapshot();
        status["target"] = json!(self.target);
        status["phase"] = json!(progress.phase());
        status["waiting"] = json!(progress.waiting);
        status["connecting"] = json!(progress.connecting);
        status["holding"] = json!(progress.holding);
        status["panics_total"] = json!(self.shards.panics());
        status
    }
}

/// What ends a swarm that sends requests.
struct End {
    state: Weak<State>,
    duration: Option<Duration>,
    has_clients: bool,
}

impl End {
    /// Stops the swarm once the requests have gone on for their duration, or the last client has
    /// ended if they have none.
    async fn run(self, shard: Shard, tally: Arc<Tally>) -> Result<(), String> {
        let over = async {
            tally.ramped().await;
            match self.duration {
                Some(duration) => sleep(duration + LAST_REQUESTS).await,
                None if self.has_clients => tally.clients_ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shard.stop().requested() => {}
            () = over => {
                if let Some(state) = self.state.upgrade() {
                    state.shards.request_stop(END_GRACE);
                }
            }
        }
        Ok(())
    }
}

/// What so many turns take.
fn turns(interval: Duration, turns: usize) -> Duration {
    interval.mul_f64(turns as f64)
}

/// One shard's share of the clients, and the pace at which they start.
struct Ramp {
    blueprint: Arc<Blueprint>,
    tally: Arc<Tally>,
    ids: StepBy<Skip<Range<u64>>>,
    first_id: u64,
    /// Of the clients' streams, in turn.
    kinds: Arc<Vec<Kind>>,
    /// Between two starts in all shards together.
    interval: Duration,
    shards: usize,
    handshakes: Arc<Semaphore>,
    alive: mpsc::Sender<()>,
}

impl Ramp {
    async fn run(self, shard: Shard) -> Result<(), String> {
        let stop = shard.stop().clone();
        tokio::select! {
            () = stop.requested() => {}
            () = self.start_clients(&shard) => {}
        }
        Ok(())
    }

    async fn start_clients(self, shard: &Shard) {
        // The shards take turns: each starts one of every `shards` clients.
        let first = Instant::now() + turns(self.interval, shard.index());
        let mut pace = Pace::new(first, turns(self.interval, self.shards));
        for id in self.ids {
            let handshakes = Arc::clone(&self.handshakes);
            let Ok(permit) = handshakes.acquire_owned().await else {
                return;
            };
            sleep_until(pace.take(Instant::now())).await;
            let (blueprint, alive) = (Arc::clone(&self.blueprint), self.alive.clone());
            let turn = usize::try_from((id - self.first_id) % self.kinds.len() as u64);
            let kind = self.kinds[turn.unwrap_or_default()];
            let (record, stop) = (self.tally.begin(kind), shard.stop().clone());
            shard.spawn(async move {
                Client::new(blueprint, id, record, stop).run(kind, permit).await;
                drop(alive);
            });
        }
    }
}
