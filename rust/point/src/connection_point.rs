//! The service: threads, links, stop and status of a connection point.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cmgmux_exchange::mapping::Mapping;
use cmgmux_net::admin::{self, AdminServer};
use cmgmux_net::shard::{MAX_SHARDS, Shard, Shards};
use cmgmux_net::{ConfigError, Id, Service, ServiceError};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracing::info;

use crate::counters::{Counters, Exchanges};
use crate::dial::Keeper;
use crate::forward::Forwarder;
use crate::instance::{Instance, Standing};
use crate::plan::Plan;
use crate::settings::PointConfig;

/// A running connection point.
///
/// It keeps as many channels to each gateway instance as the instance has shards, publishes its site
/// on the first of them, and forwards the exchanges that arrive on any. A stop lets open exchanges
/// finish within the grace; the instances send no new ones.
#[derive(Debug)]
pub struct ConnectionPoint {
    state: Arc<State>,
    admin: Option<AdminServer>,
}

#[derive(Debug)]
struct State {
    plan: Arc<Plan>,
    instances: Vec<Arc<Instance>>,
    counters: Arc<Counters>,
    shards: Shards,
    boot_id: Id,
    started: Instant,
    is_stopping: AtomicBool,
}

impl Service for ConnectionPoint {
    type Config = PointConfig;

    fn start(config: PointConfig) -> Result<Self, ConfigError> {
        let plan = Arc::new(Plan::read(&config)?);
        let new = |endpoint: &_| Arc::new(Instance::new(Clone::clone(endpoint)));
        let state = Arc::new(State {
            instances: plan.instances.iter().map(new).collect(),
            counters: Arc::new(Counters::new(plan.mappings.len())),
            shards: Shards::start("point", plan.shards)?,
            plan,
            boot_id: Id::random(),
            started: Instant::now(),
            is_stopping: AtomicBool::new(false),
        });
        let snapshot = Arc::clone(&state);
        let admin =
            AdminServer::start_if_set(config.admin_socket.as_deref(), move || snapshot.status())?;
        info!(identity = %state.plan.identity, boot_id = %state.boot_id, "connection point starts");
        state.run();
        Ok(Self { state, admin })
    }

    fn status(&self) -> Value {
        self.state.status()
    }

    fn request_stop(&self, grace: Duration) {
        self.state.is_stopping.store(true, Ordering::Relaxed);
        self.state.shards.request_stop(grace);
    }

    fn wait(&self) -> Result<(), ServiceError> {
        admin::wait_to_the_end(&self.state.shards, self.admin.as_ref())
    }
}

impl State {
    /// Starts the keepers of all channels that there can be. Those whose ordinals no instance wants
    /// just wait.
    fn run(&self) {
        let count = self.shards.count();
        let mut links: Vec<Vec<(Arc<Instance>, u8)>> = vec![Vec::new(); count];
        for (position, instance) in self.instances.iter().enumerate() {
            for (ordinal, number) in (0..MAX_SHARDS).zip(0_u8..) {
                links[(position + ordinal) % count].push((Arc::clone(instance), number));
            }
        }
        for (index, links) in links.into_iter().enumerate() {
            let (plan, counters) = (Arc::clone(&self.plan), Arc::clone(&self.counters));
            let boot_id = self.boot_id;
            self.shards
                .spawn_on(index, move |shard| run_shard(shard, plan, counters, boot_id, links));
        }
    }

    fn status(&self) -> Value {
        let standing = |instance: &Arc<Instance>| instance.standing();
        let standing =
            self.instances.iter().map(standing).fold(Standing::default(), Standing::plus);
        let is_stopping = self.is_stopping.load(Ordering::Relaxed);
        let state = if is_stopping { "draining" } else { standing.in_words() };
        let Plan { identity, certificate_expires_unix_s, serial, mappings, .. } = &*self.plan;
        let snapshot = |instance: &Arc<Instance>| instance.snapshot(*serial);
        let mappings = mappings.iter().zip(&self.counters.mappings);
        json!({
            "role": "connection-point",
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "site": identity.site,
            "name": identity.name,
            "boot_id": self.boot_id,
            "uptime_s": self.started.elapsed().as_secs_f64(),
            "certificate_expires_unix_s": certificate_expires_unix_s,
            "state": state,
            "instances": self.instances.iter().map(snapshot).collect::<Vec<_>>(),
            "mappings": mappings.map(mapping_status).collect::<Vec<_>>(),
            "exchanges": self.counters.exchanges(),
            "refusals": self.counters.refusals(),
            "upstream": self.counters.upstream.snapshot(),
            "links_failed": self.counters.ledger.link_failures(),
            "links_lost": self.counters.ledger.link_losses(),
            "channel_ends": self.counters.ledger.channel_ends(),
            "tasks": self.shards.tasks(),
            "panics_total": self.shards.panics(),
        })
    }
}

fn mapping_status((mapping, exchanges): (&Mapping, &Arc<Exchanges>)) -> Value {
    json!({
        "external": mapping.external,
        "internal": mapping.internal,
        "exchanges_total": exchanges.total.load(),
        "exchanges_open": exchanges.open.load(),
    })
}

/// All the work of one shard; ends at a stop. A task that panics ends the service: a channel that
/// nobody keeps any more would go unnoticed.
async fn run_shard(
    shard: Shard,
    plan: Arc<Plan>,
    counters: Arc<Counters>,
    boot_id: Id,
    links: Vec<(Arc<Instance>, u8)>,
) -> Result<(), String> {
    let forwarder = Rc::new(Forwarder::new(shard.clone(), &plan, counters));
    let mut tasks = JoinSet::new();
    tasks.spawn_local(Rc::clone(&forwarder).tend_connections());
    for (instance, ordinal) in links {
        let keeper = Keeper {
            plan: Arc::clone(&plan),
            instance,
            ordinal,
            boot_id,
            shard: shard.clone(),
            forwarder: Rc::clone(&forwarder),
        };
        tasks.spawn_local(keeper.run());
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| error.to_string())?;
    }
    Ok(())
}
