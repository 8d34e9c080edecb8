//! Making a connection to a role.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cmgmux_net::listen::{limit_receiving, set_stream_options};
use cmgmux_net::tls::describe;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::Io;
use crate::plan::RoleTls;

/// How long resolving a role's name and connecting to it may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which the kernel probes whether a role's machine is still there, the pause between
/// probes, and how many may stay unanswered: a machine that loses power is noticed within two minutes,
/// however long its exchanges are held.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// What the kernel holds of an answer that the client does not take. Roles are near: within 0.5 ms this
/// carries 1 Gbit/s.
const ROLE_RECEIVE_BYTES: usize = 64 * 1024;

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

/// Connects.
pub(super) async fn connect(
    host: &str,
    port: u16,
    tls: Option<&RoleTls>,
) -> Result<Io, ConnectError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let unreachable = |error| ConnectError::Unreachable { host: host.to_owned(), port, error };
    let connecting = async {
        let stream = reach(host, port).await?;
        set_options(&stream).map_err(unreachable)?;
        let Some(RoleTls { config, name }) = tls else {
            return Ok(Io::Left(stream));
        };
        let connecting = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream);
        let stream = connecting.await.map_err(|error| tls_error(host, port, &error))?;
        Ok(Io::Right(Box::new(stream)))
    };
    let limited = timeout(CONNECT_TIMEOUT, connecting).await;
    limited.map_err(|_| ConnectError::Timeout { host: host.to_owned(), port })?
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
    set_stream_options(stream)?;
    limit_receiving(stream, ROLE_RECEIVE_BYTES)?;
    let probing = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_INTERVAL)
        .with_retries(PROBES);
    SockRef::from(stream).set_tcp_keepalive(&probing)
}
