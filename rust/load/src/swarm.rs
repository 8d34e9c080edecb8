//! Many clients that hold polls through a gateway and check what they get.

use std::iter::{Skip, StepBy};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use cmgmux_net::admin::{self, AdminServer};
use cmgmux_net::shard::{self, Shard, Shards};
use cmgmux_net::{ConfigError, Service, ServiceError};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

mod answer;
mod client;
mod config;
mod pace;
mod report;
mod tally;

pub use config::SwarmConfig;
pub use report::{AnswerTimes, SwarmReport};

use client::Blueprint;
use pace::Pace;
use tally::Tally;

/// Handshakes under way at a time, in all shards together.
const MAX_HANDSHAKES: usize = 64;
/// What the shards get to put their finished tasks away.
const END_GRACE: Duration = Duration::from_secs(1);

/// A running swarm.
///
/// It ends by itself when its last client has: [`wait`](Service::wait) returns then, and
/// [`report`](Swarm::report) is final. Clients that fail are part of the report, not errors of the
/// swarm. After a stop no client starts and none polls again; those that are connecting or holding
/// go on until the grace is over.
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
        let blueprint = Arc::new(config.blueprint()?);
        let (ids, interval) = (config.ids()?, config.interval()?);
        let tally = Tally::new(config.clients);
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
                interval,
                shards: count,
                handshakes: Arc::clone(&handshakes),
                alive: alive.clone(),
            };
            state.shards.spawn_on(index, move |shard| ramp.run(shard));
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
        let (report, progress) = self.tally.snapshot();
        let mut status = json!({
            "target": self.target,
            "phase": progress.phase(),
            "waiting": progress.waiting,
            "connecting": progress.connecting,
            "holding": progress.holding,
            "panics_total": self.shards.panics(),
        });
        if let (Value::Object(status), Ok(Value::Object(report))) =
            (&mut status, serde_json::to_value(report))
        {
            status.extend(report);
        }
        status
    }
}

/// One shard's share of the clients, and the pace at which they start.
struct Ramp {
    blueprint: Arc<Blueprint>,
    tally: Arc<Tally>,
    ids: StepBy<Skip<Range<u64>>>,
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
        let turn = |interval: Duration, turns: usize| interval.mul_f64(turns as f64);
        let first = Instant::now() + turn(self.interval, shard.index());
        let mut pace = Pace::new(first, turn(self.interval, self.shards));
        for id in self.ids {
            let handshakes = Arc::clone(&self.handshakes);
            let Ok(permit) = handshakes.acquire_owned().await else {
                return;
            };
            sleep_until(pace.take(Instant::now())).await;
            let (blueprint, alive) = (Arc::clone(&self.blueprint), self.alive.clone());
            let (record, stop) = (self.tally.begin(), shard.stop().clone());
            shard.spawn(async move {
                blueprint.run(id, record, permit, stop).await;
                drop(alive);
            });
        }
    }
}
