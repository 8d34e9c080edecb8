//! Certificates for development, demo and tests: small authorities with ECDSA P-256 keys.
//!
//! For production use the certificates of an organisation's own PKI; nothing here revokes, renews or
//! guards a key beyond file permissions.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::identity::{self, IdentityError, PeerIdentity};

/// How far back validity begins, for peers whose clocks are behind.
const CLOCK_SLACK: Duration = Duration::from_secs(60 * 60);

/// The longest validity, in days.
const MAX_DAYS: u32 = 36_500;

/// A certificate and its private key, both as PEM.
#[derive(Clone)]
pub struct PemPair {
    /// The certificate.
    pub certificate: String,
    /// Its key, PKCS #8. Secret.
    pub key: String,
}

impl fmt::Debug for PemPair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PemPair").finish_non_exhaustive()
    }
}

/// A certificate authority. What it issues is valid from an hour ago until the authority expires.
pub struct Authority {
    pem: PemPair,
    issuer: Issuer<'static, KeyPair>,
    not_after: SystemTime,
}

impl Authority {
    /// Makes an authority called `common_name` that is valid for `days` (1..=36,500) from now.
    ///
    /// # Errors
    ///
    /// [`PkiError`] if `days` is out of range or a key cannot be made.
    pub fn create(common_name: &str, days: u32) -> Result<Self, PkiError> {
        if !(1..=MAX_DAYS).contains(&days) {
            return Err(PkiError::Days { days });
        }
        let now = SystemTime::now();
        let not_after = now + Duration::from_secs(u64::from(days) * 24 * 60 * 60);
        let mut params = parameters(common_name, now - CLOCK_SLACK, not_after);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let key = new_key()?;
        let certificate = params.self_signed(&key).map_err(PkiError::making)?;
        let pem = PemPair { certificate: certificate.pem(), key: key.serialize_pem() };
        Ok(Self { pem, issuer: Issuer::new(params, key), not_after })
    }

    /// Takes up an authority again from what [`pem`](Self::pem) gave.
    ///
    /// # Errors
    ///
    /// [`PkiError::Unreadable`] if one of the texts is not what it should be.
    pub fn load(certificate: &str, key: &str) -> Result<Self, PkiError> {
        let unreadable = |why: String| PkiError::Unreadable { why };
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| unreadable(error.to_string()))?;
        let expires =
            identity::expires_unix_s(&der).map_err(|error| unreadable(error.to_string()))?;
        let expires =
            u64::try_from(expires).map_err(|_| unreadable("it expired before 1970".into()))?;
        let pair = KeyPair::from_pem(key).map_err(|error| unreadable(error.to_string()))?;
        if !identity::is_key_of(&der, &pair.subject_public_key_info()) {
            return Err(unreadable("the key does not belong to the certificate".to_owned()));
        }
        let issuer =
            Issuer::from_ca_cert_der(&der, pair).map_err(|error| unreadable(error.to_string()))?;
        let pem = PemPair { certificate: certificate.to_owned(), key: key.to_owned() };
        Ok(Self { pem, issuer, not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(expires) })
    }

    /// The authority's own certificate and key.
    pub fn pem(&self) -> &PemPair {
        &self.pem
    }

    /// Issues a certificate for a server that is reached by `names`: DNS names and IP addresses, at
    /// least one. The first is its common name.
    ///
    /// # Errors
    ///
    /// [`PkiError`] if a name is neither, or there is none.
    pub fn issue_server<T: AsRef<str>>(&self, names: &[T]) -> Result<PemPair, PkiError> {
        let first = names.first().ok_or(PkiError::NoName)?.as_ref();
        let sans = names.iter().map(|name| server_san(name.as_ref())).collect::<Result<_, _>>()?;
        self.issue(first, sans, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues a certificate for the connection point `name` of `site`.
    ///
    /// # Errors
    ///
    /// [`PkiError::Identity`] if the two break the rules of [`PeerIdentity::new`].
    pub fn issue_connection_point(&self, site: &str, name: &str) -> Result<PemPair, PkiError> {
        let peer = PeerIdentity::new(site, name)?;
        let uri = SanType::URI(ia5(&peer.uri())?);
        self.issue(name, vec![uri], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Issues a certificate for a client called `common_name`.
    ///
    /// # Errors
    ///
    /// [`PkiError`] if a key cannot be made.
    pub fn issue_client(&self, common_name: &str) -> Result<PemPair, PkiError> {
        self.issue(common_name, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        common_name: &str,
        sans: Vec<SanType>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<PemPair, PkiError> {
        let since = SystemTime::now() - CLOCK_SLACK;
        let mut params = parameters(common_name, since, self.not_after);
        params.subject_alt_names = sans;
        params.extended_key_usages = vec![purpose];
        self.sign(params)
    }

    /// A connection point's certificate that expired a day ago.
    #[cfg(test)]
    pub(crate) fn issue_expired_connection_point(&self, site: &str, name: &str) -> PemPair {
        let day = Duration::from_secs(24 * 60 * 60);
        let until = SystemTime::now() - day;
        let mut params = parameters(name, until - day, until);
        let peer = PeerIdentity::new(site, name).expect("a valid name");
        params.subject_alt_names = vec![SanType::URI(ia5(&peer.uri()).expect("ASCII"))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params).expect("a certificate")
    }

    fn sign(&self, mut params: CertificateParams) -> Result<PemPair, PkiError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(PkiError::making)?;
        Ok(PemPair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate that could not be made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// The validity is out of range.
    #[error("{days} days are not within 1..{MAX_DAYS}")]
    Days {
        /// What was asked for.
        days: u32,
    },
    /// A server certificate for no name at all.
    #[error("a server certificate needs at least one name")]
    NoName,
    /// Neither a DNS name nor an IP address.
    #[error("{name:?} is not a DNS name or IP address")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// The site or name of a connection point breaks the rules.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// An authority's certificate or key cannot be used.
    #[error("the authority cannot be loaded: {why}")]
    Unreadable {
        /// Why, in words.
        why: String,
    },
    /// Making a key or signing failed.
    #[error("the certificate cannot be made: {why}")]
    Making {
        /// Why, in words.
        why: String,
    },
}

impl PkiError {
    fn making(error: rcgen::Error) -> Self {
        Self::Making { why: error.to_string() }
    }
}

/// Writes a private key to `path`, readable by its owner alone from the first moment on. A file that
/// is there already is replaced whole; its permissions do not survive.
///
/// # Errors
///
/// The system's error; the old file is untouched then.
pub fn write_private(path: &Path, pem: &str) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.new", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(pem.as_bytes()))
        .and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn parameters(common_name: &str, since: SystemTime, until: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = since.into();
    params.not_after = until.into();
    params
}

fn new_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(PkiError::making)
}

fn server_san(name: &str) -> Result<SanType, PkiError> {
    match ServerName::try_from(name) {
        Ok(ServerName::IpAddress(address)) => Ok(SanType::IpAddress(address.into())),
        Ok(ServerName::DnsName(_)) => Ok(SanType::DnsName(ia5(name)?)),
        _ => Err(PkiError::Name { name: name.to_owned() }),
    }
}

fn ia5(text: &str) -> Result<Ia5String, PkiError> {
    text.try_into().map_err(|_| PkiError::Name { name: text.to_owned() })
}

#[cfg(test)]
mod tests;
