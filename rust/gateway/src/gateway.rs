//! One gateway instance as a service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cmgmux_net::admin::{self, AdminServer};
use cmgmux_net::listen::{bind_group, bind_one};
use cmgmux_net::shard::Shards;
use cmgmux_net::tls::{channel_acceptor, front_acceptor};
use cmgmux_net::{ConfigError, Ledger, Service, ServiceError};
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::info;

use crate::instance::{Addresses, Instance};
use crate::links::LinkListener;
use crate::settings::{GatewayConfig, Settings};
use crate::shard::{self, ShardStart};

/// Channels on their way to one shard.
const MAX_WAITING_LINKS: usize = 64;

/// A running gateway instance.
pub struct Gateway {
    core: Arc<Core>,
    admin: Option<AdminServer>,
}

/// What the status is taken from.
struct Core {
    instance: Arc<Instance>,
    shards: Shards,
}

impl Core {
    fn status(&self) -> Value {
        self.instance.status(&self.shards)
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("addresses", &self.core.instance.addresses)
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// Where clients are served.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.core.instance.addresses.clients
    }

    /// Where connection points are accepted.
    #[must_use]
    pub fn channel_address(&self) -> SocketAddr {
        self.core.instance.addresses.channels
    }
}

impl Service for Gateway {
    type Config = GatewayConfig;

    fn start(config: GatewayConfig) -> Result<Self, ConfigError> {
        let settings = Settings::read(&config)?;
        let count = settings.shards;
        let listeners = bind_group(&config.listen, count, "listen")?;
        let channel_listener = bind_one(&config.channel_listen(), "channel_listen")?;
        let address = |listener: &std::net::TcpListener, key| {
            listener.local_addr().map_err(|error| ConfigError::new(key, error.to_string()))
        };
        let Some(first) = listeners.first() else {
            return Err(ConfigError::new("shards", "at least one is needed"));
        };
        let addresses = Addresses {
            clients: address(first, "listen")?,
            channels: address(&channel_listener, "channel_listen")?,
        };
        let instance = Arc::new(Instance::new(
            config.index,
            addresses,
            count,
            settings.timeouts,
            settings.clients_per_shard,
            Ledger::new(settings.max_detached_bytes),
        ));
        let front = front_acceptor(&settings.credentials);
        let channels = channel_acceptor(&settings.credentials, &settings.trust);
        let shards = Shards::start_with_control("gateway", count)?;
        let mut senders = Vec::with_capacity(count);
        for (number, listener) in listeners.into_iter().enumerate() {
            let (sender, links) = mpsc::channel(MAX_WAITING_LINKS);
            senders.push(sender);
            let (instance, tls) = (Arc::clone(&instance), Arc::clone(&front));
            let start = ShardStart { instance, tls, listener, links };
            shards.spawn_on(number, move |shard| shard::run(shard, start));
        }
        let links = LinkListener {
            instance: Arc::clone(&instance),
            listener: channel_listener,
            tls: channels,
            trust: settings.trust,
            shards: senders,
        };
        shards.spawn_control(move |thread| links.run(thread));
        let core = Arc::new(Core { instance, shards });
        let snapshot = Arc::clone(&core);
        let status = move || snapshot.status();
        let admin = AdminServer::start_if_set(config.admin_socket.as_deref(), status);
        let admin = admin.inspect_err(|_| {
            core.shards.request_stop(Duration::ZERO);
            // The setting is what went wrong, not the shards.
            let _ = core.shards.wait();
        })?;
        info!(
            index = config.index,
            clients = %addresses.clients,
            channels = %addresses.channels,
            shards = count,
            "gateway instance is up"
        );
        Ok(Self { core, admin })
    }

    fn status(&self) -> Value {
        self.core.status()
    }

    fn request_stop(&self, grace: Duration) {
        info!(grace_s = grace.as_secs_f64(), "gateway instance is stopping");
        self.core.instance.begin_stop();
        self.core.shards.request_stop(grace);
    }

    fn wait(&self) -> Result<(), ServiceError> {
        admin::wait_to_the_end(&self.core.shards, self.admin.as_ref())
    }
}
