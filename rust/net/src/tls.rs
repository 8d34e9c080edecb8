//! TLS: who must show which certificate, and what follows from it.
//!
//! Every configuration uses the aws-lc-rs provider explicitly; the process-wide default is never
//! read or set.
//!
//! | connection | accepting side | dialling side |
//! | --- | --- | --- |
//! | channel | [`channel_acceptor`]: TLS 1.3, certificate required | [`channel_dialer`] |
//! | client front | [`front_acceptor`]: TLS 1.2 and 1.3, certificate optional | [`front_dialer`] |
//! | to a role | the role's | [`role_dialer`]: TLS 1.2 and 1.3, no certificate |
//!
//! In TLS 1.3 the dialling side finishes its handshake before the accepting side has judged its
//! certificate. A refusal arrives as an alert at the first read; [`describe`] says it in words.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ConfigBuilder, ServerConfig, SupportedProtocolVersion, WantsVerifier};

mod channel;
mod describe;
mod files;
mod front;
mod role;
mod roots;
mod trust;

pub use channel::{CHANNEL_ALPN, channel_acceptor, channel_dialer, check_channel_alpn};
pub use describe::describe;
pub use files::{Credentials, FileSetting, load_certificates, load_roots, server_name};
pub use front::{FRONT_ALPN, FRONT_ALPN_H2, front_acceptor, front_dialer};
pub use role::role_dialer;
pub use roots::ClientRoots;
pub use trust::{Refusal, Trust, TrustedCa};

/// The cryptography that every configuration of this module uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Begins the configuration of an accepting side.
fn acceptor(
    versions: &[&'static SupportedProtocolVersion],
) -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("the provider has TLS 1.2 and 1.3")
}

/// Begins the configuration of a dialling side.
fn dialer(
    versions: &[&'static SupportedProtocolVersion],
) -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("the provider has TLS 1.2 and 1.3")
}

#[cfg(test)]
mod tests;
