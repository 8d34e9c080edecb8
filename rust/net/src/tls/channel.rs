//! TLS of channels: version 1.3, both sides with certificates, no resumption.
//!
//! A link that resumes its channel always makes a full handshake, so that every link has proved both
//! identities afresh.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{Credentials, Trust, acceptor, dialer};

/// The application protocol of channels.
pub const CHANNEL_ALPN: &[u8] = b"cmgmux/1";

/// How an instance accepts links: a client certificate from any of the trusted CAs is required.
/// Whether that CA may vouch for the certificate's site is for [`Trust::identify`] to say, after the
/// handshake.
pub fn channel_acceptor(credentials: &Credentials, trust: &Trust) -> Arc<ServerConfig> {
    let mut config = acceptor(&[&TLS13])
        .with_client_cert_verifier(trust.verifier())
        .with_cert_resolver(credentials.resolver());
    config.alpn_protocols = vec![CHANNEL_ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// How a connection point dials links: it shows its certificate and accepts a server's that
/// `gateway_roots` issued for the name dialled.
pub fn channel_dialer(
    credentials: &Credentials,
    gateway_roots: Arc<RootCertStore>,
) -> Arc<ClientConfig> {
    let mut config = dialer(&[&TLS13])
        .with_root_certificates(gateway_roots)
        .with_client_cert_resolver(credentials.resolver());
    config.alpn_protocols = vec![CHANNEL_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Checks the protocol that a finished handshake agreed on. To be called on both sides: TLS lets a
/// peer that names no protocol at all pass.
///
/// # Errors
///
/// What is wrong, in words.
pub fn check_channel_alpn(agreed: Option<&[u8]>) -> Result<(), String> {
    match agreed {
        Some(CHANNEL_ALPN) => Ok(()),
        Some(other) => {
            Err(format!("the peer speaks {:?} instead of cmgmux/1", String::from_utf8_lossy(other)))
        }
        None => Err("the peer does not offer the protocol cmgmux/1".to_owned()),
    }
}
