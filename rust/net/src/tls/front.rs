//! TLS of the client front: versions 1.2 and 1.3, a client certificate wished for and not judged.
//!
//! Which CA a client must come from depends on the mapping that it asks for, so the handshake proves
//! only that the client holds the key of the certificate that it shows. **A certificate from here means
//! nothing until [`ClientRoots::verify`](super::ClientRoots::verify) has accepted it**, on resumed
//! sessions too: a ticket brings back the certificate, not the verdict.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{Credentials, acceptor, describe, dialer, provider};

/// HTTP/1.1 on the client front.
pub const FRONT_ALPN: &[u8] = b"http/1.1";
/// HTTP/2 on the client front.
pub const FRONT_ALPN_H2: &[u8] = b"h2";

/// How an instance accepts clients.
///
/// Sessions resume by stateless tickets. Their keys live in this configuration and change every six
/// hours, so all shards must use the same one; nothing is kept for each client.
pub fn front_acceptor(credentials: &Credentials) -> Arc<ServerConfig> {
    let mut config = acceptor(&[&TLS13, &TLS12])
        .with_client_cert_verifier(Arc::new(PossessionVerifier { provider: provider() }))
        .with_cert_resolver(credentials.resolver());
    config.alpn_protocols = vec![FRONT_ALPN_H2.to_vec(), FRONT_ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // A ticket holds the client's certificates; every one sent costs that many bytes.
    config.send_tls13_tickets = 1;
    match Ticketer::new() {
        Ok(ticketer) => config.ticketer = ticketer,
        Err(error) => {
            tracing::warn!(error = %describe(&error), "client sessions will not resume");
            config.send_tls13_tickets = 0;
        }
    }
    Arc::new(config)
}

/// How a client dials the front, for load tests and health checks: it accepts a server's certificate
/// that `roots` issued, shows its own if it has one, and speaks HTTP/1.1.
pub fn front_dialer(
    roots: Arc<RootCertStore>,
    credentials: Option<&Credentials>,
) -> Arc<ClientConfig> {
    let builder = dialer(&[&TLS13, &TLS12]).with_root_certificates(roots);
    let mut config = match credentials {
        Some(credentials) => builder.with_client_cert_resolver(credentials.resolver()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![FRONT_ALPN.to_vec()];
    Arc::new(config)
}

/// Takes any certificate whose key the client proves to hold.
#[derive(Debug)]
struct PossessionVerifier {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for PossessionVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Hints would tell every stranger which CAs the sites trust, and some clients show no
        // certificate if they miss theirs among them.
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
