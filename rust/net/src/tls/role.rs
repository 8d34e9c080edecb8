//! TLS to a role on the premises.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

use super::dialer;

/// How a connection point dials a role: it accepts a certificate that `roots` issued, shows none, and
/// speaks HTTP/1.1.
pub fn role_dialer(roots: Arc<RootCertStore>) -> Arc<ClientConfig> {
    let mut config = dialer(&[&TLS13, &TLS12]).with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
