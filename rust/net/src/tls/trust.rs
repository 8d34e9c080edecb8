//! Which CA may vouch for the connection points of which sites.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use cmgmux_exchange::publication::is_site_code;
use rustls::RootCertStore;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::Deserialize;

use super::describe;
use super::files::{FileSetting, load_certificates, root_store};
use super::roots::client_verifier;
use crate::identity::{IdentityError, PeerIdentity};
use crate::service::ConfigError;

/// One `[[trusted]]` entry of a gateway's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedCa {
    /// A PEM file with the CA's certificate. If it holds several, all of them are this CA.
    pub ca: PathBuf,
    /// The codes of the sites whose connection points it may vouch for; at least one.
    pub sites: Vec<String>,
}

/// The CAs that vouch for connection points.
pub struct Trust {
    authorities: Vec<Authority>,
    union: Arc<dyn ClientCertVerifier>,
}

struct Authority {
    file: String,
    sites: BTreeSet<String>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    /// Loads the CAs of the setting `trusted`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] about `trusted`, `trusted[<n>].ca` or `trusted[<n>].sites`.
    pub fn load(entries: &[TrustedCa]) -> Result<Self, ConfigError> {
        let mut authorities = Vec::new();
        let mut union = RootCertStore::empty();
        for (index, entry) in entries.iter().enumerate() {
            let key = format!("trusted[{index}].ca");
            let setting = FileSetting::new(&key, &entry.ca);
            let sites = read_sites(&entry.sites)
                .map_err(|why| ConfigError::new(format!("trusted[{index}].sites"), why))?;
            let file = entry.ca.display().to_string();
            let roots = root_store(&load_certificates(setting)?)
                .map_err(|why| ConfigError::new(&key, format!("{file}: {why}")))?;
            union.roots.extend(roots.roots.iter().cloned());
            authorities.push(Authority { file, sites, verifier: client_verifier(roots) });
        }
        if authorities.is_empty() {
            let why = "no CA may vouch for connection points; add [[trusted]] with ca and sites";
            return Err(ConfigError::new("trusted", why));
        }
        Ok(Self { authorities, union: client_verifier(union) })
    }

    /// Says who showed `chain` (the peer's certificate, then intermediates): the identity in the
    /// certificate, provided that a CA which may vouch for its site has issued it.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; the link must be closed.
    pub fn identify(&self, chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, Refusal> {
        let (end_entity, intermediates) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        let peer = PeerIdentity::from_certificate(end_entity)?;
        let now = UnixTime::now();
        let mut issuer = None;
        let mut cause = None;
        for authority in &self.authorities {
            let may_vouch = authority.sites.contains(&peer.site);
            match authority.verifier.verify_client_cert(end_entity, intermediates, now) {
                Ok(_verified) if may_vouch => return Ok(peer),
                Ok(_verified) => issuer = Some(authority),
                // What the CA that should have issued it says is worth more than what others say.
                Err(error) if may_vouch || cause.is_none() => cause = Some(describe(&error)),
                Err(_) => {}
            }
        }
        Err(match issuer {
            Some(Authority { file, sites, .. }) => {
                let sites = sites.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                Refusal::NotVouched { peer, ca: file.clone(), sites }
            }
            None => {
                let cause = cause.unwrap_or_else(|| "no CA is trusted".to_owned());
                Refusal::NotTrusted { peer, cause }
            }
        })
    }

    /// Accepts certificates of any of the CAs.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.union)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = formatter.debug_map();
        map.entries(self.authorities.iter().map(|ca| (&ca.file, &ca.sites))).finish()
    }
}

/// Why a connection point's certificate was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The certificate does not say who its holder is.
    #[error("the certificate names no connection point: {0}")]
    Identity(#[from] IdentityError),
    /// No trusted CA has issued the certificate, or it is not valid now.
    #[error("the certificate of connection point {peer} is refused: {cause}")]
    NotTrusted {
        /// Who the certificate claims to be.
        peer: PeerIdentity,
        /// What is wrong with it, in words.
        cause: String,
    },
    /// The CA that issued the certificate may not vouch for its site.
    #[error(
        "the certificate of connection point {peer} was issued by {ca}, which may vouch for {sites} \
         only; see [[trusted]] sites"
    )]
    NotVouched {
        /// Who the certificate claims to be.
        peer: PeerIdentity,
        /// The file of the CA.
        ca: String,
        /// The sites that it may vouch for, separated by commas.
        sites: String,
    },
}

fn read_sites(sites: &[String]) -> Result<BTreeSet<String>, String> {
    if sites.is_empty() {
        return Err("names no site; a CA must vouch for at least one".to_owned());
    }
    match sites.iter().find(|site| !is_site_code(site)) {
        Some(site) => Err(format!("{site:?} is not a site code of three characters A-Z or 0-9")),
        None => Ok(sites.iter().cloned().collect()),
    }
}
