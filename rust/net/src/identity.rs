//! Who a certificate says its holder is.
//!
//! A connection point's certificate names it by one URI in its subject alternative names,
//! `cmgmux://<site>/<name>`. A client's certificate is described by its subject, issuer, expiry and
//! fingerprint.

use std::fmt;
use std::str::FromStr;

use cmgmux_exchange::publication::is_site_code;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

mod name;

/// The scheme of a connection point's URI.
const SCHEME: &str = "cmgmux://";

/// The most characters of a connection point's name.
const MAX_NAME_CHARS: usize = 64;

/// The most characters of a foreign text in our messages.
const MAX_QUOTED_CHARS: usize = 160;

/// A connection point: the site that it belongs to, and its name within that site.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PeerIdentity {
    /// The site's code, three characters of `A-Z0-9`.
    pub site: String,
    /// The name within the site, 1 to 64 characters of `A-Za-z0-9._-`.
    pub name: String,
}

impl PeerIdentity {
    /// The connection point `name` of `site`.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Malformed`] if `site` is not three characters of `A-Z0-9`, or `name` not 1 to
    /// 64 of `A-Za-z0-9._-`.
    pub fn new(site: &str, name: &str) -> Result<Self, IdentityError> {
        format!("{SCHEME}{site}/{name}").parse()
    }

    /// Reads the identity from a certificate. Verifies nothing.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if the certificate does not name exactly one connection point.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let certificate = parse(certificate)?;
        let unreadable = |_| IdentityError::Unreadable;
        let names = certificate.subject_alternative_name().map_err(unreadable)?;
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
            _ => None,
        });
        let uri = uris.next().ok_or(IdentityError::Missing)?;
        match uris.count() {
            0 => uri.parse(),
            more => Err(IdentityError::Several { count: more + 1 }),
        }
    }

    /// The URI that stands for this connection point in its certificate.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/{}", self.site, self.name)
    }
}

impl FromStr for PeerIdentity {
    type Err = IdentityError;

    /// Reads the URI form.
    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let malformed = |why| IdentityError::Malformed { uri: quote(uri), why };
        let (site, name) = uri
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(|| malformed("expected cmgmux://<site>/<name>"))?;
        if !is_site_code(site) {
            return Err(malformed("the site must be three characters A-Z or 0-9"));
        }
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME_CHARS || !name.bytes().all(is_allowed) {
            return Err(malformed("the name must be 1 to 64 characters A-Z a-z 0-9 . _ -"));
        }
        Ok(Self { site: site.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for PeerIdentity {
    /// `<site>/<name>`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.site, self.name)
    }
}

/// A certificate that does not say who its holder is.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It is not a certificate, or a damaged one.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It has no URI of a connection point.
    #[error("no subject alternative name of the form cmgmux://<site>/<name>")]
    Missing,
    /// It has more than one.
    #[error("{count} subject alternative names of the form cmgmux://<site>/<name>, expected one")]
    Several {
        /// How many.
        count: usize,
    },
    /// It has one that breaks the rules.
    #[error("{uri}: {why}")]
    Malformed {
        /// The URI in quotes, shortened.
        uri: String,
        /// The rule.
        why: &'static str,
    },
}

/// What a client's certificate says. Nothing of it is verified here.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ClientCertificate {
    /// The subject as RFC 4514 writes it, such as `CN=client-17,O=Contoso`: special characters are
    /// escaped, so that no name can pass for another.
    pub subject: String,
    /// The subject's common name, if it has exactly one and that is text.
    pub common_name: Option<String>,
    /// The issuer, written as the subject is.
    pub issuer: String,
    /// When it expires, in seconds since 1970.
    pub not_after_unix_s: i64,
    /// SHA-256 of the whole certificate, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl ClientCertificate {
    /// Reads a certificate.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Unreadable`].
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let parsed = parse(certificate)?;
        Ok(Self {
            subject: name::to_rfc4514(parsed.subject()),
            common_name: name::common_name(parsed.subject()),
            issuer: name::to_rfc4514(parsed.issuer()),
            not_after_unix_s: parsed.validity().not_after.timestamp(),
            sha256: sha256_hex(certificate),
        })
    }
}

/// When a certificate expires, in seconds since 1970.
///
/// # Errors
///
/// [`IdentityError::Unreadable`].
pub fn expires_unix_s(certificate: &CertificateDer<'_>) -> Result<i64, IdentityError> {
    Ok(parse(certificate)?.validity().not_after.timestamp())
}

/// Whether a public key (`SubjectPublicKeyInfo`, DER) is the certificate's.
pub(crate) fn is_key_of(certificate: &CertificateDer<'_>, public_key: &[u8]) -> bool {
    parse(certificate).is_ok_and(|parsed| parsed.public_key().raw == public_key)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(IdentityError::Unreadable),
    }
}

fn sha256_hex(data: &[u8]) -> String {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    name::hex(suite.common.hash_provider.hash(data).as_ref())
}

fn quote(text: &str) -> String {
    let shown: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    let rest = if shown.len() < text.len() { "..." } else { "" };
    format!("{shown:?}{rest}")
}

#[cfg(test)]
mod tests;
