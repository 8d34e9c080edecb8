//! Listeners: one port shared by all shards of a process and by nobody else, and accepting from it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

use crate::service::ConfigError;

/// Connections that may wait to be accepted, for each listener. The system may allow fewer
/// (`net.core.somaxconn`).
const BACKLOG: i32 = 4_096;

/// The wait before accepting again when the system has run out of something.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Unsent bytes of one connection beyond which the system takes no more.
const UNSENT_BYTES: u32 = 128 * 1024;

/// Listens on `address`, an IP address with a port such as `0.0.0.0:443` or `[::]:443`, with one
/// non-blocking listener. Port 0 takes a free port.
///
/// The port is refused if anybody listens there, even with `SO_REUSEPORT`; connections of an earlier
/// process that have not expired yet do not count.
///
/// # Errors
///
/// [`ConfigError`] about the setting `key`.
pub fn bind_one(address: &str, key: &str) -> Result<TcpListener, ConfigError> {
    let listener = bind_exclusively(parse(address, key)?);
    listener.map(Into::into).map_err(|error| refused(address, key, &error))
}

/// Listens on `address` as [`bind_one`] does, with `count` listeners (at least one) among which the
/// system spreads the connections. Port 0 takes one free port for all.
///
/// # Errors
///
/// [`ConfigError`] about the setting `key`.
pub fn bind_group(address: &str, count: usize, key: &str) -> Result<Vec<TcpListener>, ConfigError> {
    let parsed = parse(address, key)?;
    try_bind_group(parsed, count).map_err(|error| refused(address, key, &error))
}

/// The first listener takes the port alone and opens it to the others only when it listens: a second
/// process that does the same loses at its first step, however close the race.
fn try_bind_group(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let first = bind_exclusively(address)?;
    let mut address = address;
    address.set_port(TcpListener::local_addr(&first.try_clone()?.into())?.port());
    first.set_reuse_port(true)?;
    let mut listeners = vec![first.into()];
    for _ in 1..count {
        let socket = open(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

fn bind_exclusively(address: SocketAddr) -> io::Result<Socket> {
    let socket = open(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        // `[::]` means every address, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn parse(address: &str, key: &str) -> Result<SocketAddr, ConfigError> {
    address.parse().map_err(|_| {
        let wanted = "an IP address with a port, such as 0.0.0.0:443 or [::]:443";
        ConfigError::new(key, format!("{address:?} is not {wanted}"))
    })
}

fn refused(address: &str, key: &str, error: &io::Error) -> ConfigError {
    let cause = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "address already in use (another process listens there; stop it or choose another port)"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => "permission denied (ports below 1024 usually need root \
                                            or the capability CAP_NET_BIND_SERVICE)"
            .to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        _ => error.to_string(),
    };
    ConfigError::new(key, format!("cannot listen on {address}: {cause}"))
}

/// What a listener has seen. Shared between the shard that accepts and the status that reports.
#[derive(Debug, Default)]
pub struct AcceptCounters {
    accepted: AtomicU64,
    failed: AtomicU64,
}

impl AcceptCounters {
    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Times that accepting failed and was tried again: the process was out of file descriptors or
    /// memory, or the client had gone.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Accepts connections on a tokio runtime and outlives what may go wrong on the way.
#[derive(Debug)]
pub struct Acceptor {
    listener: tokio::net::TcpListener,
    counters: Arc<AcceptCounters>,
}

impl Acceptor {
    /// Takes over `listener`, which must be non-blocking, as those of this module are. Must be called
    /// on the runtime that will accept.
    ///
    /// # Errors
    ///
    /// The system's error if the runtime cannot watch the listener.
    pub fn new(listener: TcpListener, counters: Arc<AcceptCounters>) -> io::Result<Self> {
        Ok(Self { listener: tokio::net::TcpListener::from_std(listener)?, counters })
    }

    /// Waits for the next connection, which has the options of [`set_stream_options`]. Cancelling
    /// loses none.
    ///
    /// A client that has gone again is skipped. If the process has run out of file descriptors or
    /// memory, the connections wait in the system's queue and accepting is tried again 20 times a
    /// second.
    ///
    /// # Errors
    ///
    /// The system's error if the listener itself is broken; it will never accept again.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        accept_from(&self.counters, async || {
            let (stream, peer) = self.listener.accept().await?;
            set_stream_options(&stream)?;
            Ok((stream, peer))
        })
        .await
    }
}

/// Has a connection send small pieces at once, and hold back little of what the peer does not take:
/// the system would buffer up to some MiB for each peer that does not read, and its memory for all
/// connections together, `net.ipv4.tcp_mem`, would be gone with a few hundred of them.
///
/// # Errors
///
/// The system's error; the connection has been reset, then.
pub fn set_stream_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES)
}

/// Has connections on `socket` take about `bytes` more (the system's own cost included, twice that)
/// while they are not read. `socket` is a connection, or a listener whose connections inherit the limit.
///
/// Without it the system gives a connection that was read fast up to `net.ipv4.tcp_rmem`, some MiB, and
/// keeps that full when the reading stops: see [`set_stream_options`] for what then happens to all. A
/// limit bounds the rate, too, to `bytes` for each round trip.
///
/// # Errors
///
/// The system's error.
pub fn limit_receiving(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    SockRef::from(socket).set_recv_buffer_size(bytes)
}

/// Calls `accept` until it succeeds or cannot any more.
async fn accept_from<T>(
    counters: &AcceptCounters,
    accept: impl AsyncFn() -> io::Result<T>,
) -> io::Result<T> {
    let mut is_exhausted = false;
    loop {
        let error = match accept().await {
            Ok(accepted) => {
                counters.accepted.fetch_add(1, Ordering::Relaxed);
                return Ok(accepted);
            }
            Err(error) => error,
        };
        match error.kind() {
            // The socket does not listen any more.
            io::ErrorKind::InvalidInput => return Err(error),
            io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::Interrupted => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                if !is_exhausted {
                    tracing::warn!(%error, "cannot accept connections for now");
                }
                is_exhausted = true;
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
