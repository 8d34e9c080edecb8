//! TLS 1.3 with one cipher suite for all: the one that Go, where it cannot be set, agrees on.

use std::sync::{Arc, LazyLock};

use anyhow::Result;
use cmgmux_net::pki::Authority;
use rustls::client::WantsClientCert;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::TLS13;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// The certificates of both ends of one process.
static CERTIFICATES: LazyLock<Certificates> =
    LazyLock::new(|| Certificates::make().expect("certificates can be made"));

struct Certificates {
    root: String,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Certificates {
    fn make() -> Result<Self> {
        let authority = Authority::create("bench", 30)?;
        let issued = authority.issue_server(&["localhost"])?;
        Ok(Self {
            root: authority.pem().certificate.clone(),
            certificate: CertificateDer::from_pem_slice(issued.certificate.as_bytes())?,
            key: PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?,
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}

pub(crate) fn server_config(alpn: &[u8]) -> Result<ServerConfig> {
    let Certificates { certificate, key, .. } = &*CERTIFICATES;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.clone_key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

pub(crate) fn client_config(alpn: &[u8]) -> Result<ClientConfig> {
    let mut config = dialer(&CERTIFICATES.root)?.with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// Begins the configuration of a dialling side that trusts `root`, a certificate as PEM.
pub(crate) fn dialer(root: &str) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes())?)?;
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots))
}

pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// Accepts one connection and its TLS.
pub(crate) async fn accept(
    listener: std::net::TcpListener,
    alpn: &[u8],
) -> Result<server::TlsStream<TcpStream>> {
    listener.set_nonblocking(true)?;
    let (socket, _) = TcpListener::from_std(listener)?.accept().await?;
    socket.set_nodelay(true)?;
    Ok(TlsAcceptor::from(Arc::new(server_config(alpn)?)).accept(socket).await?)
}

/// Dials a connection with TLS.
pub(crate) async fn dial(
    address: std::net::SocketAddr,
    alpn: &[u8],
) -> Result<client::TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(client_config(alpn)?));
    Ok(connector.connect(server_name(), socket).await?)
}
