//! The configuration, checked and brought into the form in which it is used.

mod address;
mod roots;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cmgmux_exchange::mapping::{Authentication, Mapping, Route};
use cmgmux_exchange::publication::{Publication, PublicationError};
use cmgmux_net::tls::{
    Credentials, FileSetting, channel_dialer, load_roots, role_dialer, server_name,
};
use cmgmux_net::{ConfigError, PeerIdentity, setting, shard};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use self::address::Address;
use crate::settings::{InstanceConfig, PointConfig};

/// The highest number of an instance.
const MAX_INDEX: u8 = 15;

/// Everything that the running service needs of its configuration.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) identity: PeerIdentity,
    pub(crate) certificate_expires_unix_s: i64,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) shards: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) reconnect: Reconnect,
    pub(crate) instances: Vec<Endpoint>,
    /// In the order of the configuration, as `mappings` is.
    pub(crate) routes: Vec<Route>,
    /// How the role of each route is dialled; without TLS if there is none.
    pub(crate) role_tls: Vec<Option<RoleTls>>,
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) serial: u64,
    /// The publication as it is sent.
    pub(crate) publication: Bytes,
}

/// How a role is dialled by TLS.
#[derive(Clone, Debug)]
pub(crate) struct RoleTls {
    pub(crate) config: Arc<ClientConfig>,
    /// What the role's certificate must carry.
    pub(crate) name: ServerName<'static>,
}

/// The bounds of the pause before dialling again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reconnect {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

/// Where an instance is, and how it proves that it is the one.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) index: u8,
    pub(crate) address: Address,
    pub(crate) server_name: ServerName<'static>,
}

impl Plan {
    /// Checks the configuration and reads the files that it names.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming the first setting that cannot be used.
    pub(crate) fn read(config: &PointConfig) -> Result<Self, ConfigError> {
        let shards = shard::count(config.shards)?;
        let connect_timeout = setting::duration("connect_timeout_s", config.connect_timeout_s)?;
        let reconnect = reconnect(config)?;
        let instances = endpoints(&config.instances)?;
        let routes = Mapping::compile_all(&config.mappings)
            .map_err(|error| ConfigError::new(error.key, error.message))?;
        let role_tls = role_tls(&config.mappings, &routes)?;
        let certificate = FileSetting::new("certificate", &config.certificate);
        let credentials = Credentials::load(certificate, FileSetting::new("key", &config.key))?;
        let identity = identity(config, &credentials)?;
        let gateway_roots = load_roots(FileSetting::new("gateway_ca", &config.gateway_ca))?;
        let (serial, publication) = publication(config)?;
        Ok(Self {
            identity,
            certificate_expires_unix_s: credentials.expires_unix_s(),
            tls: channel_dialer(&credentials, gateway_roots),
            shards,
            connect_timeout,
            reconnect,
            instances,
            routes,
            role_tls,
            mappings: config.mappings.clone(),
            serial,
            publication,
        })
    }
}

/// How to dial the roles behind https URLs. Mappings with the same file share what is made of it.
fn role_tls(mappings: &[Mapping], routes: &[Route]) -> Result<Vec<Option<RoleTls>>, ConfigError> {
    let mut made: BTreeMap<&Path, Arc<ClientConfig>> = BTreeMap::new();
    let mut all = Vec::with_capacity(mappings.len());
    for (position, (mapping, route)) in mappings.iter().zip(routes).enumerate() {
        let key = |name: &str| format!("mappings[{position}].{name}");
        let ca = match (&mapping.upstream_ca, route.is_https()) {
            (None, false) => {
                all.push(None);
                continue;
            }
            (Some(_), false) => {
                let message =
                    "is of no use with an http:// URL; remove it, or give an https:// one";
                return Err(ConfigError::new(key("upstream_ca"), message));
            }
            (None, true) => {
                let message = "is missing; name the authorities that may vouch for the role behind \
                               an https:// URL";
                return Err(ConfigError::new(key("upstream_ca"), message));
            }
            (Some(ca), true) => ca.as_path(),
        };
        let config = match made.get(ca) {
            Some(config) => Arc::clone(config),
            None => role_dialer(load_roots(FileSetting::new(&key("upstream_ca"), ca))?),
        };
        made.insert(ca, Arc::clone(&config));
        let host = route.authority().host().trim_start_matches('[').trim_end_matches(']');
        all.push(Some(RoleTls { config, name: server_name(host, &key("internal"))? }));
    }
    Ok(all)
}

fn reconnect(config: &PointConfig) -> Result<Reconnect, ConfigError> {
    let min = setting::duration("reconnect_min_s", config.reconnect_min_s)?;
    let max = setting::duration("reconnect_max_s", config.reconnect_max_s)?;
    if max < min {
        let (max, min) = (config.reconnect_max_s, config.reconnect_min_s);
        let message = format!("{max} is shorter than reconnect_min_s = {min}");
        return Err(ConfigError::new("reconnect_max_s", message));
    }
    Ok(Reconnect { min, max })
}

fn endpoints(instances: &[InstanceConfig]) -> Result<Vec<Endpoint>, ConfigError> {
    if instances.is_empty() {
        let message = "is empty; name at least one gateway instance to dial";
        return Err(ConfigError::new("instances", message));
    }
    let mut endpoints: Vec<Endpoint> = Vec::with_capacity(instances.len());
    for (position, instance) in instances.iter().enumerate() {
        let key = |name: &str| format!("instances[{position}].{name}");
        let index = setting::within(&key("index"), instance.index, 0..=MAX_INDEX)?;
        if let Some(first) = endpoints.iter().position(|other| other.index == index) {
            let message = format!("{index} is the number of instances[{first}] already");
            return Err(ConfigError::new(key("index"), message));
        }
        let address = Address::parse(&instance.address)
            .map_err(|why| ConfigError::new(key("address"), why))?;
        let server_name = match &instance.server_name {
            Some(name) => server_name(name, &key("server_name"))?,
            None => server_name(address.host(), &key("address"))?,
        };
        endpoints.push(Endpoint { index, address, server_name });
    }
    Ok(endpoints)
}

/// Who the certificate says we are; the site must be the one of the configuration.
fn identity(config: &PointConfig, credentials: &Credentials) -> Result<PeerIdentity, ConfigError> {
    let path = config.certificate.display();
    let identity = PeerIdentity::from_certificate(&credentials.chain()[0])
        .map_err(|error| ConfigError::new("certificate", format!("{path}: {error}")))?;
    if identity.site != config.site {
        let message =
            format!("{:?} is not the site of {path}, which is for {identity}", config.site);
        return Err(ConfigError::new("site", message));
    }
    Ok(identity)
}

/// The serial, and the message that carries it.
fn publication(config: &PointConfig) -> Result<(u64, Bytes), ConfigError> {
    let demands = |mapping: &Mapping| mapping.authentication == Authentication::Certificate;
    if let Some(index) = config.mappings.iter().position(demands)
        && config.client_roots.is_empty()
    {
        let message = format!(
            "is empty, so nobody could use mappings[{index}], which demands a client certificate; \
             name the authorities that vouch for the site's clients"
        );
        return Err(ConfigError::new("client_roots", message));
    }
    let roots = roots::read(&config.client_roots)?;
    let serial = config.serial.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    });
    let (site, mappings) = (config.site.clone(), config.mappings.clone());
    let publication = Publication::new(serial, site, mappings, roots);
    publication.validate().map_err(|error| match error {
        PublicationError::Mapping(error) => ConfigError::new(error.key, error.message),
        PublicationError::Site => ConfigError::new("site", error.to_string()),
        error => ConfigError::new("client_roots", error.to_string()),
    })?;
    let message = publication
        .encode()
        .map_err(|error| ConfigError::new("client_roots", format!("with the mappings, {error}")))?;
    Ok((serial, message))
}
