//! The settings of a swarm.

use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cmgmux_net::tls::{self, Credentials, FileSetting};
use cmgmux_net::{ConfigError, setting};
use rustls::ClientConfig;
use rustls::client::Resumption;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use super::client::Blueprint;

/// The most that `clients` may be.
const MAX_CLIENTS: u64 = 200_000;
/// The longest `path`.
const MAX_PATH_BYTES: usize = 2_048;
/// The slowest and the fastest `connect_rate_per_s`.
const MIN_RATE: f64 = 0.1;
const MAX_RATE: f64 = 100_000.0;
/// The port that a `Host` field need not name.
const HTTPS_PORT: u16 = 443;

/// The settings of a [`Swarm`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwarmConfig {
    /// The gateway, as `host:port`.
    pub target: String,
    /// The name that the gateway's certificate must carry, and the `Host` of the requests.
    pub server_name: String,
    /// PEM file with the certificates that may have signed the gateway's.
    pub ca: PathBuf,
    /// PEM file with the certificate chain that every client shows. Needs `key`.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key of `certificate`.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The path that the clients poll, without query, such as `/CCM_Proxy_MutualAuth/7205/poll`.
    pub path: String,
    /// Clients, 1 to 200,000; default 1,000. Each costs a file descriptor, a TCP port towards the
    /// gateway and about 11 KiB of memory.
    #[serde(default = "default_clients")]
    pub clients: u64,
    /// The id of the first client; the others count up from it. Default 0.
    #[serde(default)]
    pub first_client: u64,
    /// Most connections begun in a second, 0.1 to 100,000; default 500. Time lost is not caught up.
    #[serde(default = "default_connect_rate_per_s")]
    pub connect_rate_per_s: f64,
    /// For TCP and TLS together, in seconds; default 10.
    #[serde(default = "default_connect_timeout_s")]
    pub connect_timeout_s: f64,
    /// From a poll's start until its notification, in seconds; default 900.
    #[serde(default = "default_response_timeout_s")]
    pub response_timeout_s: f64,
    /// Notifications that each client waits for, one after the other on its connection; default 1.
    /// 0 goes on until the swarm is stopped.
    #[serde(default = "default_polls_per_client")]
    pub polls_per_client: u64,
    /// Path of a Unix socket that serves the status; none by default.
    #[serde(default)]
    pub admin_socket: Option<PathBuf>,
    /// Threads, 1 to 16; default 1.
    #[serde(default = "default_shards")]
    pub shards: usize,
}

impl SwarmConfig {
    /// The optional settings with their defaults.
    pub fn defaults() -> Value {
        json!({
            "certificate": null,
            "key": null,
            "clients": default_clients(),
            "first_client": 0,
            "connect_rate_per_s": default_connect_rate_per_s(),
            "connect_timeout_s": default_connect_timeout_s(),
            "response_timeout_s": default_response_timeout_s(),
            "polls_per_client": default_polls_per_client(),
            "admin_socket": null,
            "shards": default_shards(),
        })
    }
}

fn default_clients() -> u64 {
    1_000
}

fn default_connect_rate_per_s() -> f64 {
    500.0
}

fn default_connect_timeout_s() -> f64 {
    10.0
}

fn default_response_timeout_s() -> f64 {
    900.0
}

fn default_polls_per_client() -> u64 {
    1
}

fn default_shards() -> usize {
    1
}

impl SwarmConfig {
    /// What the clients have in common, with all files read and the target's name resolved.
    pub(super) fn blueprint(&self) -> Result<Blueprint, ConfigError> {
        let (addresses, port) = self.addresses()?;
        let server_name = tls::server_name(&self.server_name, "server_name")?;
        let roots = tls::load_roots(FileSetting::new("ca", &self.ca))?;
        let credentials = self.credentials()?;
        let mut tls = ClientConfig::clone(&tls::front_dialer(roots, credentials.as_ref()));
        // The clients stand for many machines, none of which could resume another's session.
        tls.resumption = Resumption::disabled();
        Ok(Blueprint {
            addresses,
            connector: TlsConnector::from(Arc::new(tls)),
            server_name,
            host: if port == HTTPS_PORT {
                self.server_name.clone()
            } else {
                format!("{}:{port}", self.server_name)
            },
            path: self.path()?,
            connect_timeout: setting::duration("connect_timeout_s", self.connect_timeout_s)?,
            response_timeout: setting::duration("response_timeout_s", self.response_timeout_s)?,
            polls: self.polls_per_client,
        })
    }

    /// The clients' ids.
    pub(super) fn ids(&self) -> Result<Range<u64>, ConfigError> {
        let clients = setting::within("clients", self.clients, 1..=MAX_CLIENTS)?;
        let end = self.first_client.checked_add(clients).ok_or_else(|| {
            ConfigError::new("first_client", "the last client's id would not fit in 64 bits")
        })?;
        Ok(self.first_client..end)
    }

    /// The time between two clients' starts.
    pub(super) fn interval(&self) -> Result<Duration, ConfigError> {
        let allowed = MIN_RATE..=MAX_RATE;
        let rate = setting::within("connect_rate_per_s", self.connect_rate_per_s, allowed)?;
        Ok(Duration::from_secs_f64(1.0 / rate))
    }

    fn addresses(&self) -> Result<(Vec<SocketAddr>, u16), ConfigError> {
        let failed = |why: String| ConfigError::new("target", format!("{}: {why}", self.target));
        let addresses: Vec<_> = self
            .target
            .to_socket_addrs()
            .map_err(|error| failed(format!("{error}; it must be host:port")))?
            .collect();
        let port = addresses.first().map(SocketAddr::port);
        port.map(|port| (addresses, port)).ok_or_else(|| failed("no address has that name".into()))
    }

    fn credentials(&self) -> Result<Option<Credentials>, ConfigError> {
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Credentials::load(
                FileSetting::new("certificate", certificate),
                FileSetting::new("key", key),
            )
            .map(Some),
            (None, None) => Ok(None),
            (Some(_), None) => Err(ConfigError::new("key", "missing: `certificate` needs its key")),
            (None, Some(_)) => {
                Err(ConfigError::new("certificate", "missing: `key` needs its certificate"))
            }
        }
    }

    fn path(&self) -> Result<String, ConfigError> {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        let usable = self.path.starts_with('/')
            && self.path.len() <= MAX_PATH_BYTES
            && self.path.bytes().all(plain);
        usable.then(|| self.path.clone()).ok_or_else(|| {
            ConfigError::new(
                "path",
                format!(
                    "must start with / and be at most {MAX_PATH_BYTES} visible ASCII characters \
                     without query"
                ),
            )
        })
    }
}
