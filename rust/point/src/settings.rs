//! The configuration of a connection point.

use std::path::PathBuf;

use cmgmux_exchange::mapping::Mapping;
use cmgmux_net::ConfigError;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::plan::Plan;

/// Settings of a connection point, as its configuration file has them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointConfig {
    /// The site that the connection point belongs to; its certificate must name the same.
    pub site: String,
    /// PEM file with the connection point's certificate and its intermediates. It carries the URI
    /// `cmgmux://<site>/<name>`.
    pub certificate: PathBuf,
    /// PEM file with the certificate's private key.
    pub key: PathBuf,
    /// PEM file with the authorities that may vouch for gateway instances.
    pub gateway_ca: PathBuf,
    /// Where to serve the status; nowhere by default.
    pub admin_socket: Option<PathBuf>,
    /// Threads that carry traffic, 1..=16; as many as there are cores by default.
    pub shards: Option<usize>,
    /// PEM files with the authorities that vouch for the site's clients, to be published. Needed by
    /// mappings that demand a certificate.
    #[serde(default)]
    pub client_roots: Vec<PathBuf>,
    /// Grows with every change of what is published. By default the time of the start, in seconds
    /// since 1970.
    pub serial: Option<u64>,
    /// How long one attempt to reach an instance may take, handshakes included, in seconds.
    #[serde(default = "connect_timeout_s")]
    pub connect_timeout_s: f64,
    /// Shortest pause before dialling again, in seconds. Raising it spares a gateway that restarts
    /// and lengthens outages.
    #[serde(default = "reconnect_min_s")]
    pub reconnect_min_s: f64,
    /// Longest pause before dialling again, in seconds; reached by doubling.
    #[serde(default = "reconnect_max_s")]
    pub reconnect_max_s: f64,
    /// The gateway instances, 1 to 16. All are dialled, always.
    pub instances: Vec<InstanceConfig>,
    /// The site's URL mappings: what is published, and what is forwarded.
    pub mappings: Vec<Mapping>,
}

/// One gateway instance to dial.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceConfig {
    /// Its number, 0..=15: the instance's own `index`.
    pub index: u8,
    /// Host and channel port, such as `cmg.example:10140`, `192.0.2.7:10140`, `[2001:db8::7]:10140`.
    pub address: String,
    /// The name that the instance's certificate must carry; the host of `address` by default.
    pub server_name: Option<String>,
}

impl PointConfig {
    /// The optional settings with their defaults; `null` where the default depends on others. Those
    /// of an entry of `mappings` are [`Mapping::defaults`].
    #[must_use]
    pub fn defaults() -> Value {
        json!({
            "admin_socket": null,
            "shards": null,
            "client_roots": [],
            "serial": null,
            "connect_timeout_s": connect_timeout_s(),
            "reconnect_min_s": reconnect_min_s(),
            "reconnect_max_s": reconnect_max_s(),
        })
    }

    /// Checks every setting and reads every file, short of opening a socket.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming the first setting that cannot be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        Plan::read(self).map(drop)
    }
}

fn connect_timeout_s() -> f64 {
    10.0
}

fn reconnect_min_s() -> f64 {
    0.2
}

fn reconnect_max_s() -> f64 {
    30.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_the_documented_default() {
        let config: PointConfig = serde_json::from_value(json!({
            "site": "NYC", "certificate": "c", "key": "k", "gateway_ca": "g",
            "instances": [{"index": 0, "address": "h:1"}], "mappings": [],
        }))
        .expect("only required settings");
        let read = json!({
            "admin_socket": config.admin_socket,
            "shards": config.shards,
            "client_roots": config.client_roots,
            "serial": config.serial,
            "connect_timeout_s": config.connect_timeout_s,
            "reconnect_min_s": config.reconnect_min_s,
            "reconnect_max_s": config.reconnect_max_s,
        });
        assert_eq!(read, PointConfig::defaults());
    }

    #[test]
    fn unknown_settings_are_refused() {
        let entry = json!({"index": 0, "address": "h:1", "adress": "h:2"});
        let error = serde_json::from_value::<InstanceConfig>(entry).expect_err("a misspelt key");
        assert!(error.to_string().contains("adress"), "{error}");
    }
}
