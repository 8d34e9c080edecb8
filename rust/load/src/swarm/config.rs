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
use super::kinds::Kind;

/// The most that `clients` may be.
const MAX_CLIENTS: u64 = 200_000;
/// The longest `path`; see [`TARGET_RULE`].
const MAX_PATH_BYTES: usize = 2_048;
/// The slowest and the fastest `connect_rate_per_s`; also the slowest `requests_per_s`.
const MIN_RATE: f64 = 0.1;
const MAX_RATE: f64 = 100_000.0;
/// The most that `requests_per_s` and `request_connections` may be.
const MAX_REQUEST_RATE: f64 = 1_000_000.0;
const MAX_REQUEST_CONNECTIONS: usize = 1_024;
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
    /// The path of the notification streams, without query, such as
    /// `/CCM_Proxy_MutualAuth/7205/notifications`. Each client adds `?client=ID`.
    pub path: String,
    /// Clients, 0 to 200,000; default 1,000. Each costs a file descriptor, a TCP port towards the
    /// gateway and about 11 KiB of memory. 0 only with requests.
    #[serde(default = "default_clients")]
    pub clients: u64,
    /// The id of the first client; the others count up from it. Default 0.
    #[serde(default)]
    pub first_client: u64,
    /// The kinds of streams that the clients hold, in turn; default long-polls alone.
    #[serde(default = "default_kinds")]
    pub kinds: Vec<Kind>,
    /// Most connections begun in a second, 0.1 to 100,000; default 500. Time lost is not caught up.
    #[serde(default = "default_connect_rate_per_s")]
    pub connect_rate_per_s: f64,
    /// For TCP and TLS together, in seconds; default 10.
    #[serde(default = "default_connect_timeout_s")]
    pub connect_timeout_s: f64,
    /// The longest wait for a notification, and for the answer to a request, in seconds; default 900.
    #[serde(default = "default_response_timeout_s")]
    pub response_timeout_s: f64,
    /// Notifications that each client waits for, one after the other on its connection; default 1.
    /// 0 goes on until the swarm is stopped.
    #[serde(default = "default_messages_per_client")]
    pub messages_per_client: u64,
    /// Requests that become due in a second once all clients are connected, 0.1 to 1,000,000;
    /// default 0, none.
    #[serde(default)]
    pub requests_per_s: f64,
    /// What the requests ask for: a path with its query. Needed by `requests_per_s`.
    #[serde(default)]
    pub request_path: Option<String>,
    /// Connections that the requests share, 1 to 1,024, and at least one for each thread; default 16.
    #[serde(default = "default_request_connections")]
    pub request_connections: usize,
    /// How long the requests go on, in seconds; then the swarm ends. Default 0: until every client has
    /// ended, or the swarm is stopped.
    #[serde(default)]
    pub duration_s: f64,
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
            "kinds": default_kinds(),
            "connect_rate_per_s": default_connect_rate_per_s(),
            "connect_timeout_s": default_connect_timeout_s(),
            "response_timeout_s": default_response_timeout_s(),
            "messages_per_client": default_messages_per_client(),
            "requests_per_s": 0.0,
            "request_path": null,
            "request_connections": default_request_connections(),
            "duration_s": 0.0,
            "admin_socket": null,
            "shards": default_shards(),
        })
    }
}

fn default_clients() -> u64 {
    1_000
}

fn default_kinds() -> Vec<Kind> {
    vec![Kind::LongPoll]
}

fn default_request_connections() -> usize {
    16
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

fn default_messages_per_client() -> u64 {
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
            request_path: self.request_path()?,
            connect_timeout: setting::duration("connect_timeout_s", self.connect_timeout_s)?,
            response_timeout: setting::duration("response_timeout_s", self.response_timeout_s)?,
            messages: self.messages_per_client,
        })
    }

    /// The clients' ids.
    pub(super) fn ids(&self) -> Result<Range<u64>, ConfigError> {
        let fewest = u64::from(self.requests_per_s == 0.0);
        let clients = setting::within("clients", self.clients, fewest..=MAX_CLIENTS)?;
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

    /// The kinds of the clients' streams, in turn.
    pub(super) fn kinds(&self) -> Result<Vec<Kind>, ConfigError> {
        if self.kinds.is_empty() {
            let message = "is empty; name at least one of long-poll, sse and websocket";
            return Err(ConfigError::new("kinds", message));
        }
        Ok(self.kinds.clone())
    }

    /// The rate of the requests, if there are to be any.
    pub(super) fn request_rate(&self) -> Result<Option<f64>, ConfigError> {
        if self.requests_per_s == 0.0 {
            return Ok(None);
        }
        let allowed = MIN_RATE..=MAX_REQUEST_RATE;
        setting::within("requests_per_s", self.requests_per_s, allowed).map(Some)
    }

    /// The connections of the requests.
    pub(super) fn request_connections(&self) -> Result<usize, ConfigError> {
        let allowed = 1..=MAX_REQUEST_CONNECTIONS;
        setting::within("request_connections", self.request_connections, allowed)
    }

    /// How long the requests go on, if that is limited.
    pub(super) fn duration(&self) -> Result<Option<Duration>, ConfigError> {
        if self.duration_s == 0.0 {
            return Ok(None);
        }
        setting::duration("duration_s", self.duration_s).map(Some)
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
        if is_target(&self.path) && !self.path.contains('?') {
            return Ok(self.path.clone());
        }
        Err(ConfigError::new("path", format!("must {TARGET_RULE}, without query")))
    }

    fn request_path(&self) -> Result<String, ConfigError> {
        match &self.request_path {
            None if self.requests_per_s == 0.0 => Ok(String::new()),
            None => Err(ConfigError::new("request_path", "is missing: `requests_per_s` needs it")),
            Some(path) if is_target(path) => Ok(path.clone()),
            Some(_) => Err(ConfigError::new("request_path", format!("must {TARGET_RULE}"))),
        }
    }
}

const TARGET_RULE: &str = "start with / and be at most 2048 visible ASCII characters without #";

fn is_target(target: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    target.starts_with('/') && target.len() <= MAX_PATH_BYTES && target.bytes().all(plain)
}
