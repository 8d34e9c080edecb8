//! Certificates and keys from PEM files, with errors that name the setting and the file.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::{describe, provider};
use crate::identity;
use crate::service::ConfigError;

/// The most that is read of a PEM file, in bytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A setting that names a file.
#[derive(Clone, Copy, Debug)]
pub struct FileSetting<'a> {
    /// The setting's key in the configuration file.
    pub key: &'a str,
    /// Its value.
    pub path: &'a Path,
}

impl<'a> FileSetting<'a> {
    /// The setting `key` with the value `path`.
    pub fn new(key: &'a str, path: &'a Path) -> Self {
        Self { key, path }
    }

    fn error(&self, why: impl fmt::Display) -> ConfigError {
        ConfigError::new(self.key, format!("{}: {why}", self.path.display()))
    }

    fn read(&self) -> Result<Vec<u8>, ConfigError> {
        let size = fs::metadata(self.path).map_err(|error| self.error(error))?.len();
        if size > MAX_FILE_BYTES {
            let limit = MAX_FILE_BYTES / (1024 * 1024);
            return Err(self.error(format_args!("larger than {limit} MiB; not a PEM file")));
        }
        fs::read(self.path).map_err(|error| self.error(error))
    }
}

/// Our own certificate chain with its private key.
pub struct Credentials {
    certified: Arc<CertifiedKey>,
    expires_unix_s: i64,
}

impl Credentials {
    /// Loads a chain (our certificate first, then intermediates) and its key, both PEM. Both settings
    /// may name the same file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] about the setting at fault: a file cannot be read, holds no certificate or key,
    /// or the key is not the certificate's.
    pub fn load(certificate: FileSetting<'_>, key: FileSetting<'_>) -> Result<Self, ConfigError> {
        let chain = load_certificates(certificate)?;
        let expires_unix_s =
            identity::expires_unix_s(&chain[0]).map_err(|error| certificate.error(error))?;
        let private = PrivateKeyDer::from_pem_slice(&key.read()?).map_err(|error| match error {
            pem::Error::NoItemsFound => key.error("no private key in the file"),
            error => key.error(error),
        })?;
        let certified =
            CertifiedKey::from_der(chain, private, &provider()).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => key.error(format_args!(
                    "the key does not belong to the certificate in {}",
                    certificate.path.display()
                )),
                rustls::Error::InvalidCertificate(_) => certificate.error(describe(&error)),
                error => {
                    key.error(format_args!("cannot use the private key: {}", describe(&error)))
                }
            })?;
        Ok(Self { certified: Arc::new(certified), expires_unix_s })
    }

    /// Our certificate, then its intermediates. Never empty.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// When our certificate expires, in seconds since 1970.
    pub fn expires_unix_s(&self) -> i64 {
        self.expires_unix_s
    }

    #[cfg(test)]
    pub(super) fn certified(&self) -> &CertifiedKey {
        &self.certified
    }

    pub(super) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.certified)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Credentials");
        shown.field("expires_unix_s", &self.expires_unix_s).finish_non_exhaustive()
    }
}

/// Reads all certificates of a PEM file; at least one.
///
/// # Errors
///
/// [`ConfigError`] if the file cannot be read or holds no certificate.
pub fn load_certificates(
    setting: FileSetting<'_>,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    parse_certificates(&setting.read()?).map_err(|why| setting.error(why))
}

/// Reads the CA certificates of a PEM file as roots to trust.
///
/// # Errors
///
/// [`ConfigError`] if the file cannot be read or holds no certificate, or one that cannot be a root.
pub fn load_roots(setting: FileSetting<'_>) -> Result<Arc<RootCertStore>, ConfigError> {
    let certificates = load_certificates(setting)?;
    let roots = root_store(&certificates).map_err(|why| setting.error(why))?;
    Ok(Arc::new(roots))
}

/// Reads the setting `key` as the name that a server's certificate must carry: a DNS name or an IP
/// address.
///
/// # Errors
///
/// [`ConfigError`] if it is neither.
pub fn server_name(name: &str, key: &str) -> Result<ServerName<'static>, ConfigError> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| ConfigError::new(key, format!("{name:?} is not a DNS name or IP address")))
}

/// The certificates in PEM text; at least one. Errors are in words.
pub(super) fn parse_certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not readable as PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("no certificate in it; expected PEM, -----BEGIN CERTIFICATE-----".to_owned());
    }
    Ok(certificates)
}

/// The certificates as roots. Errors are in words.
pub(super) fn root_store(
    certificates: &[CertificateDer<'static>],
) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|error| {
            format!("a certificate in it cannot be a root: {}", describe(&error))
        })?;
    }
    Ok(roots)
}
