//! Verification of a client's certificate against the roots that a site has published.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::files::{parse_certificates, root_store};
use super::{describe, provider};

/// The CAs that a site's clients must come from. Cheap to clone.
#[derive(Clone)]
pub struct ClientRoots {
    /// `None` if the site has published no root: then nobody is accepted.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl ClientRoots {
    /// The roots in PEM texts; each may hold several certificates. No texts at all are allowed: then
    /// no certificate is accepted.
    ///
    /// # Errors
    ///
    /// In words, naming the text by its position: `roots[1]: ...`.
    pub fn from_pem<T: AsRef<str>>(texts: &[T]) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        for (index, text) in texts.iter().enumerate() {
            let roots = parse_certificates(text.as_ref().as_bytes())
                .and_then(|certificates| root_store(&certificates))
                .map_err(|why| format!("roots[{index}]: {why}"))?;
            store.roots.extend(roots.roots);
        }
        let verifier = if store.is_empty() { None } else { Some(client_verifier(store)) };
        Ok(Self { verifier })
    }

    /// Verifies a chain (the client's certificate, then intermediates) now, for the purpose of client
    /// authentication. A certificate that names no purpose is good for every one (RFC 5280, 4.2.1.12).
    ///
    /// That the client holds the key has been proved by the handshake.
    ///
    /// # Errors
    ///
    /// The cause in words.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        let (end_entity, intermediates) =
            chain.split_first().ok_or("the client showed no certificate")?;
        let verifier = self.verifier.as_ref().ok_or("the site trusts no client roots")?;
        verifier
            .verify_client_cert(end_entity, intermediates, UnixTime::now())
            .map(|_verified| ())
            .map_err(|error| describe(&error))
    }
}

impl fmt::Debug for ClientRoots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientRoots").finish_non_exhaustive()
    }
}

/// A verifier that requires a certificate from `roots`, which must not be empty.
pub(super) fn client_verifier(roots: RootCertStore) -> Arc<dyn ClientCertVerifier> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .expect("there are roots, and no revocation lists that could be wrong")
}
