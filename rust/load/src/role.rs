//! The sample role: an HTTP service that holds notification streams and takes pushes for them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cmgmux_net::admin::{self, AdminServer};
use cmgmux_net::listen::{AcceptCounters, bind_group};
use cmgmux_net::shard::{self, Shards};
use cmgmux_net::{ConfigError, Service, ServiceError, setting};
use serde::Deserialize;
use serde_json::{Value, json};

mod counters;
mod endpoints;
mod registry;
mod reply;
mod server;
mod websocket;

use endpoints::Endpoints;
use registry::Registry;
use server::Server;

/// The most that `max_held` may be.
const MAX_HELD: usize = 1_000_000;

/// The settings of a [`SampleRole`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// Where to listen for plain HTTP/1.1; default `127.0.0.1:0`, a free port.
    #[serde(default = "default_listen")]
    pub listen: String,
    /// Path of a Unix socket that serves the status; none by default.
    #[serde(default)]
    pub admin_socket: Option<PathBuf>,
    /// Threads, 1 to 16; default 1.
    #[serde(default = "default_shards")]
    pub shards: usize,
    /// When a long-poll without a notification is answered 204, in seconds; default 900.
    #[serde(default = "default_poll_timeout_s")]
    pub poll_timeout_s: f64,
    /// Streams held at a time, default 20,000; a new client's gets 503 beyond. Each costs its
    /// connection, about 12 KiB.
    #[serde(default = "default_max_held")]
    pub max_held: usize,
}

impl RoleConfig {
    /// The optional settings with their defaults.
    pub fn defaults() -> Value {
        json!({
            "listen": default_listen(),
            "admin_socket": null,
            "shards": default_shards(),
            "poll_timeout_s": default_poll_timeout_s(),
            "max_held": default_max_held(),
        })
    }
}

fn default_listen() -> String {
    "127.0.0.1:0".to_owned()
}

fn default_shards() -> usize {
    1
}

fn default_poll_timeout_s() -> f64 {
    900.0
}

fn default_max_held() -> usize {
    20_000
}

/// A running sample role. Answers, at the root of its address:
///
/// | request | answer |
/// | --- | --- |
/// | `GET /notifications?client=ID` | a notification stream of ID, of the kind that is asked for; 409, or its end, once the same client holds another; 503 beyond `max_held` |
/// | – with `Upgrade: websocket` | WebSocket: a text message for each notification |
/// | – with `Accept: text/event-stream` | server-sent events: one for each notification |
/// | – else | long-poll: held until a notification comes, then 200; 204 after `poll_timeout_s` |
/// | `POST /push?client=ID` | 202 once the body (up to 16 KiB of UTF-8) is handed to the stream of ID; 404 if ID holds none, or 16 messages wait for it already |
/// | `POST /push?client=*` | 202 `{"delivered"}`: every held stream gets the body, a space and its own client id |
/// | `GET /bytes?n=N` | 200 with N bytes, up to 2⁴⁰ |
/// | `GET /hello` | 200 with 100 bytes |
/// | any method, `/echo` | 200 `{"method", "length", "sha256"}` of a body of any length |
/// | `GET /log` | 200 `{"requests"}`: requests so far, by endpoint |
///
/// A notification is `{"client", "message", "sent_unix_us"}`, the last being when it was pushed.
/// Anything else gets 400, 404, 405 or 413 with `{"error"}`. A client that goes away frees its place
/// at once. Of a stop, held streams see nothing until the grace is over.
#[derive(Debug)]
pub struct SampleRole {
    state: Arc<State>,
    admin: Option<AdminServer>,
}

#[derive(Debug)]
struct State {
    address: SocketAddr,
    server: Arc<Server>,
    accepted: Arc<AcceptCounters>,
    shards: Shards,
}

impl SampleRole {
    /// Where the role listens, with the port that it got if the setting left it open.
    pub fn address(&self) -> SocketAddr {
        self.state.address
    }
}

impl Service for SampleRole {
    type Config = RoleConfig;

    fn start(config: RoleConfig) -> Result<Self, ConfigError> {
        let poll_timeout = setting::duration("poll_timeout_s", config.poll_timeout_s)?;
        let max_held = setting::within("max_held", config.max_held, 1..=MAX_HELD)?;
        let count = shard::count(Some(config.shards))?;
        let listeners = bind_group(&config.listen, count, "listen")?;
        let address = listeners
            .first()
            .ok_or_else(|| io::Error::other("no listener"))
            .and_then(TcpListener::local_addr)
            .map_err(|error| ConfigError::new("listen", error.to_string()))?;
        let accepted = Arc::new(AcceptCounters::default());
        let endpoints = Endpoints::new(Registry::new(max_held), poll_timeout);
        let server = Arc::new(Server::new(endpoints, max_held));
        let shards = Shards::start("role", count)?;
        for (index, listener) in listeners.into_iter().enumerate() {
            let (server, accepted) = (Arc::clone(&server), Arc::clone(&accepted));
            shards.spawn_on(index, move |shard| server.accept(shard, listener, accepted));
        }
        let state = Arc::new(State { address, server, accepted, shards });
        let snapshot = Arc::clone(&state);
        let admin =
            AdminServer::start_if_set(config.admin_socket.as_deref(), move || snapshot.status())?;
        Ok(Self { state, admin })
    }

    fn status(&self) -> Value {
        self.state.status()
    }

    fn request_stop(&self, grace: Duration) {
        self.state.shards.request_stop(grace);
    }

    fn wait(&self) -> Result<(), ServiceError> {
        admin::wait_to_the_end(&self.state.shards, self.admin.as_ref())
    }
}

impl State {
    fn status(&self) -> Value {
        let registry = self.server.endpoints().registry();
        json!({
            "address": self.address.to_string(),
            "held": registry.held(),
            "streams_total": registry.streams(),
            "pushed_total": registry.pushed(),
            "abandoned_total": registry.abandoned(),
            "requests": self.server.endpoints().requests().snapshot(),
            "open_connections": self.server.open(),
            "accepted_total": self.accepted.accepted(),
            "accept_failures_total": self.accepted.failed(),
            "panics_total": self.shards.panics(),
        })
    }
}
