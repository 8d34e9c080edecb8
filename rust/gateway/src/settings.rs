//! The configuration of one gateway instance.

use std::path::PathBuf;
use std::time::Duration;

use cmgmux_net::tls::{Credentials, FileSetting, Trust, TrustedCa};
use cmgmux_net::{ConfigError, Ledger, setting, shard};
use serde::Deserialize;
use serde_json::{Value, json};

/// First port of the channels; an instance listens on this one plus its index.
const CHANNEL_PORT: u16 = 10_140;
/// Most instances of a gateway.
const MAX_INDEX: u8 = 15;

/// Settings of a gateway instance, as its configuration file has them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Which of the gateway's instances this is, 0..=15.
    #[serde(default)]
    pub index: u8,
    /// Address and port for clients.
    #[serde(default = "listen")]
    pub listen: String,
    /// Address and port for the channels of connection points; 10140 plus the index by default.
    pub channel_listen: Option<String>,
    /// PEM file with the server certificate and its intermediates, for clients and channels.
    pub certificate: PathBuf,
    /// PEM file with the certificate's private key.
    pub key: PathBuf,
    /// Where to serve the status; nowhere by default.
    pub admin_socket: Option<PathBuf>,
    /// Threads that carry traffic, 1..=16; as many as there are cores by default.
    pub shards: Option<usize>,
    /// How long a request waits for a connection point of its site, in seconds.
    #[serde(default = "admission_timeout_s")]
    pub admission_timeout_s: f64,
    /// How long a client has for its TLS handshake, and for each request head, in seconds.
    #[serde(default = "head_timeout_s")]
    pub head_timeout_s: f64,
    /// How long a client may keep a connection without a request, in seconds.
    #[serde(default = "idle_timeout_s")]
    pub idle_timeout_s: f64,
    /// How long a client may neither read its answer nor send its body, in seconds.
    #[serde(default = "stall_timeout_s")]
    pub stall_timeout_s: f64,
    /// Most client connections at a time; further ones wait in the system's queue.
    #[serde(default = "max_clients")]
    pub max_clients: u32,
    /// What the channels without a link may keep for when they have one again, in bytes.
    #[serde(default = "max_detached_bytes")]
    pub max_detached_bytes: u64,
    /// Which CA may vouch for the connection points of which sites.
    #[serde(default)]
    pub trusted: Vec<TrustedCa>,
}

fn listen() -> String {
    "0.0.0.0:443".to_owned()
}

fn admission_timeout_s() -> f64 {
    5.0
}

fn head_timeout_s() -> f64 {
    10.0
}

fn idle_timeout_s() -> f64 {
    75.0
}

fn stall_timeout_s() -> f64 {
    60.0
}

fn max_clients() -> u32 {
    16_000
}

fn max_detached_bytes() -> u64 {
    Ledger::MAX_DETACHED_BYTES
}

impl GatewayConfig {
    /// The optional settings with their defaults; `null` where the default depends on others.
    #[must_use]
    pub fn defaults() -> Value {
        json!({
            "index": 0,
            "listen": listen(),
            "channel_listen": null,
            "admin_socket": null,
            "shards": null,
            "admission_timeout_s": admission_timeout_s(),
            "head_timeout_s": head_timeout_s(),
            "idle_timeout_s": idle_timeout_s(),
            "stall_timeout_s": stall_timeout_s(),
            "max_clients": max_clients(),
            "max_detached_bytes": max_detached_bytes(),
            "trusted": [],
        })
    }

    /// Checks every setting and reads every file, short of opening a socket.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming the first setting that cannot be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        Settings::read(self).map(drop)
    }

    /// Where the channels of connection points arrive.
    pub(crate) fn channel_listen(&self) -> String {
        let port = CHANNEL_PORT + u16::from(self.index);
        self.channel_listen.clone().unwrap_or_else(|| format!("0.0.0.0:{port}"))
    }
}

/// The settings in the form in which they are used.
pub(crate) struct Settings {
    pub(crate) credentials: Credentials,
    pub(crate) trust: Trust,
    pub(crate) shards: usize,
    pub(crate) timeouts: Timeouts,
    /// Client connections that one shard may have.
    pub(crate) clients_per_shard: usize,
    /// What channels without a link may keep.
    pub(crate) max_detached_bytes: u64,
}

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) admission: Duration,
    pub(crate) head: Duration,
    pub(crate) idle: Duration,
    pub(crate) stall: Duration,
}

impl Settings {
    pub(crate) fn read(config: &GatewayConfig) -> Result<Self, ConfigError> {
        setting::within("index", config.index, 0..=MAX_INDEX)?;
        let shards = shard::count(config.shards)?;
        let max_clients = setting::within("max_clients", config.max_clients, 1..=1_000_000)?;
        let max_detached_bytes =
            setting::within("max_detached_bytes", config.max_detached_bytes, 1 << 20..=1 << 40)?;
        let timeouts = Timeouts {
            admission: setting::duration("admission_timeout_s", config.admission_timeout_s)?,
            head: setting::duration("head_timeout_s", config.head_timeout_s)?,
            idle: setting::duration("idle_timeout_s", config.idle_timeout_s)?,
            stall: setting::duration("stall_timeout_s", config.stall_timeout_s)?,
        };
        let credentials = Credentials::load(
            FileSetting::new("certificate", &config.certificate),
            FileSetting::new("key", &config.key),
        )?;
        let trust = Trust::load(&config.trusted)?;
        let clients_per_shard = (max_clients as usize).div_ceil(shards);
        Ok(Self { credentials, trust, shards, timeouts, clients_per_shard, max_detached_bytes })
    }
}
