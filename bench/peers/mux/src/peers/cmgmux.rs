//! Our channel: a connection point dials, the instance opens streams.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cmgmux_net::pki::{Authority, PemPair};
use cmgmux_net::tls::{
    CHANNEL_ALPN, Credentials, FileSetting, Trust, TrustedCa, channel_acceptor, server_name,
};
use cmgmux_net::{
    Arrival, Channel, End, Established, Hello, Id, Limits, Offer, RecvStream, SendStream,
    StreamKind,
};
use rustls::client::Resumption;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::mux::{Mux, Peer, Rx, Tx};
use crate::tls;

pub(crate) struct Cmgmux;

/// The certificates of both ends, in files as users have them.
static PKI: LazyLock<Pki> = LazyLock::new(|| Pki::make().expect("certificates can be made"));

struct Pki {
    acceptor: Arc<ServerConfig>,
    trust: Trust,
    dialer: Arc<ClientConfig>,
}

impl Pki {
    fn make() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("cmgmux-bench-mux-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let pki = Self::make_in(&folder);
        std::fs::remove_dir_all(&folder)?;
        pki
    }

    fn make_in(folder: &std::path::Path) -> Result<Self> {
        let (gateway, site) = (Authority::create("gateway", 30)?, Authority::create("site", 30)?);
        let write = |name: &str, pem: &PemPair| -> Result<(PathBuf, PathBuf)> {
            let (certificate, key) =
                (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
            std::fs::write(&certificate, &pem.certificate)?;
            std::fs::write(&key, &pem.key)?;
            Ok((certificate, key))
        };
        let (certificate, key) = write("server", &gateway.issue_server(&["localhost"])?)?;
        let (certificate, key) =
            (FileSetting::new("certificate", &certificate), FileSetting::new("key", &key));
        let (ca, _) = write("site-ca", site.pem())?;
        let point = site.issue_connection_point("NYC", "cp1")?;
        let trust = Trust::load(&[TrustedCa { ca, sites: vec!["NYC".to_owned()] }])?;
        Ok(Self {
            acceptor: channel_acceptor(&Credentials::load(certificate, key)?, &trust),
            trust,
            dialer: Arc::new(dialer(gateway.pem(), &point)?),
        })
    }
}

/// As a connection point dials, but for the cipher suite, which is everybody's.
fn dialer(gateway: &PemPair, point: &PemPair) -> Result<ClientConfig> {
    let mut config = tls::dialer(&gateway.certificate)?.with_client_auth_cert(
        vec![CertificateDer::from_pem_slice(point.certificate.as_bytes())?],
        PrivateKeyDer::from_pem_slice(point.key.as_bytes())?,
    )?;
    config.alpn_protocols = vec![CHANNEL_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

impl Peer for Cmgmux {
    const ACCEPTOR_OPENS: bool = true;

    type Listener = TcpListener;

    fn bind() -> Result<(TcpListener, SocketAddr)> {
        super::listen()
    }

    async fn accept(listener: TcpListener) -> Result<impl Mux> {
        listener.set_nonblocking(true)?;
        let (socket, _) = tokio::net::TcpListener::from_std(listener)?.accept().await?;
        let Arrival::Hello(offer) = receive(socket).await? else {
            bail!("a resume of a channel that there never was");
        };
        agree(offer).await
    }

    async fn dial(address: SocketAddr) -> Result<impl Mux> {
        greet(TcpStream::connect(address).await?).await
    }
}

/// Performs the accepting side of TLS and reads what a link is for.
pub(crate) async fn receive(socket: TcpStream) -> Result<Arrival> {
    Ok(Arrival::receive(socket, Arc::clone(&PKI.acceptor), &PKI.trust).await?)
}

/// Gives a link the channel that it asks for.
pub(crate) async fn agree(offer: Offer) -> Result<Channel> {
    start(offer.accept(Limits::default(), 1, Id([2; 16]), Id([3; 16])).await?)
}

/// Asks for a channel.
pub(crate) async fn greet(socket: TcpStream) -> Result<Channel> {
    let hello = Hello { limits: Limits::default(), instance: 0, ordinal: 0, boot_id: [1; 16] };
    let name = server_name("localhost", "server_name")?;
    start(cmgmux_net::greet(socket, Arc::clone(&PKI.dialer), name, hello).await?)
}

/// Asks to go on with a channel over a new link.
pub(crate) async fn resume(channel: &Channel, socket: TcpStream) -> Result<()> {
    let name = server_name("localhost", "server_name")?;
    Ok(channel.resume_over(socket, Arc::clone(&PKI.dialer), name).await?)
}

fn start(established: Established) -> Result<Channel> {
    let (channel, driver) = Channel::start(established, &Arc::default())?;
    spawn_local(driver);
    Ok(channel)
}

impl Mux for Channel {
    type Tx = SendStream;
    type Rx = RecvStream;

    async fn open(&self) -> Result<(SendStream, RecvStream)> {
        loop {
            let possible = self.opens_possible();
            match self.try_open(StreamKind::Exchange) {
                Err(cmgmux_net::OpenError::NoTicket) => possible.await,
                opened => return Ok(opened?),
            }
        }
    }

    async fn accept(&self) -> Result<(SendStream, RecvStream)> {
        let incoming = Channel::accept(self).await.context("the channel ended")?;
        Ok((incoming.send, incoming.recv))
    }
}

impl Tx for SendStream {
    async fn write(&mut self, data: Bytes, last: bool) -> Result<()> {
        Ok(SendStream::write(self, data, if last { End::Stream } else { End::None }).await?)
    }
}

impl Rx for RecvStream {
    async fn read(&mut self, _scratch: &mut [u8]) -> Result<usize> {
        loop {
            match self.chunk().await? {
                None => return Ok(0),
                Some(chunk) if chunk.data.is_empty() => {}
                Some(chunk) => return Ok(chunk.data.len()),
            }
        }
    }
}
