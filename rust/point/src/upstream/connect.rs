//! Making a connection to a role, and the task that it lives on.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cmgmux_net::tls::describe;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::RequestBody;
use crate::counters::{OpenConnection, UpstreamCounters};
use crate::plan::RoleTls;

/// How long resolving a role's name and connecting to it may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most of an answer that is read ahead, and its longest head.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// Silence after which the kernel probes whether a role's machine is still there, the pause between
/// probes, and how many may stay unanswered: a machine that loses power is noticed within two minutes,
/// however long its exchanges are held.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// Why a role could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The name has no address.
    #[error("cannot resolve {host}: {error}")]
    Unresolved { host: String, error: io::Error },
    /// Nobody listens there.
    #[error("connection refused by {host}, port {port}")]
    Refused { host: String, port: u16 },
    /// Not in time.
    #[error("no connection to {host}, port {port}, within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout { host: String, port: u16 },
    /// The role's certificate is not accepted.
    #[error("the certificate of {host}, port {port}, is not accepted: {why}")]
    Untrusted { host: String, port: u16, why: String },
    /// The role does not speak TLS as we do.
    #[error("the TLS handshake with {host}, port {port}, failed: {why}")]
    Tls { host: String, port: u16, why: String },
    /// Another cause, such as no route.
    #[error("cannot connect to {host}, port {port}: {error}")]
    Unreachable { host: String, port: u16, error: io::Error },
}

/// What moves a connection, to its end or to a switch of protocols. hyper gives its type no name.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// Connects and gives both ends of the connection: for requests, and for its task.
pub(super) async fn connect(
    host: &str,
    port: u16,
    tls: Option<&RoleTls>,
) -> Result<(SendRequest<RequestBody>, Driver), ConnectError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let unreachable = |error| ConnectError::Unreachable { host: host.to_owned(), port, error };
    let connecting = async {
        let stream = reach(host, port).await?;
        set_options(&stream).map_err(unreachable)?;
        match tls {
            None => speak(stream).await.map_err(unreachable),
            Some(RoleTls { config, name }) => {
                let connecting =
                    TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream);
                let stream = connecting.await.map_err(|error| tls_error(host, port, &error))?;
                speak(stream).await.map_err(unreachable)
            }
        }
    };
    let limited = timeout(CONNECT_TIMEOUT, connecting).await;
    limited.map_err(|_| ConnectError::Timeout { host: host.to_owned(), port })?
}

/// Begins HTTP/1.1 on a connection.
async fn speak<S>(stream: S) -> io::Result<(SendRequest<RequestBody>, Driver)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    let begun = builder.max_buf_size(READ_AHEAD_BYTES).handshake(TokioIo::new(stream)).await;
    let (sender, driver) = begun.map_err(io::Error::other)?;
    Ok((sender, Box::pin(driver.with_upgrades())))
}

fn tls_error(host: &str, port: u16, error: &io::Error) -> ConnectError {
    let (host, why) = (host.to_owned(), describe(error));
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => ConnectError::Untrusted { host, port, why },
        _ => ConnectError::Tls { host, port, why },
    }
}

async fn reach(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let unresolved = |error| ConnectError::Unresolved { host: host.to_owned(), error };
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(unresolved)?.collect();
    if addresses.is_empty() {
        return Err(unresolved(io::Error::other("the name has no address")));
    }
    TcpStream::connect(&addresses[..]).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused { host: host.to_owned(), port },
        io::ErrorKind::TimedOut => ConnectError::Timeout { host: host.to_owned(), port },
        _ => ConnectError::Unreachable { host: host.to_owned(), port, error },
    })
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probing = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_INTERVAL)
        .with_retries(PROBES);
    SockRef::from(stream).set_tcp_keepalive(&probing)
}

/// The task of a connection: ends with it, or when nobody owns it any more.
pub(super) struct Driven {
    driver: Driver,
    ownerless: oneshot::Receiver<Infallible>,
    _counted: OpenConnection,
}

impl Driven {
    pub(super) fn new(
        driver: Driver,
        ownerless: oneshot::Receiver<Infallible>,
        counters: &Arc<UpstreamCounters>,
    ) -> Self {
        Self { driver, ownerless, _counted: OpenConnection::of(counters) }
    }
}

impl Future for Driven {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Pin::new(&mut self.ownerless).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let ended = std::task::ready!(self.driver.as_mut().poll(cx));
        if let Err(error) = ended {
            debug!(%error, "connection to a role broke");
        }
        Poll::Ready(())
    }
}
