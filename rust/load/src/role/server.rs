//! Accepts the role's connections and serves each on its shard.

use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cmgmux_net::listen::{AcceptCounters, Acceptor};
use cmgmux_net::shard::Shard;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::endpoints::Endpoints;

/// Connections beside those that hold streams; more wait in the system's queue.
const MAX_OTHER_CONNECTIONS: usize = 1_024;
/// How long a connection may take for a request's head, and may be idle before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The most that a connection reads ahead.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// What the shards of a role share.
#[derive(Debug)]
pub(super) struct Server {
    endpoints: Endpoints,
    places: Arc<Semaphore>,
    open: AtomicUsize,
}

impl Server {
    /// A server of `endpoints` that may hold `max_held` streams.
    pub(super) fn new(endpoints: Endpoints, max_held: usize) -> Self {
        let places = Arc::new(Semaphore::new(max_held + MAX_OTHER_CONNECTIONS));
        Self { endpoints, places, open: AtomicUsize::new(0) }
    }

    /// What the server answers.
    pub(super) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Connections open now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Serves the connections that `listener` gets until the shard stops. Errors are in words.
    pub(super) async fn accept(
        self: Arc<Self>,
        shard: Shard,
        listener: TcpListener,
        counters: Arc<AcceptCounters>,
    ) -> Result<(), String> {
        let lost = |error| format!("cannot listen: {error}");
        let acceptor = Acceptor::new(listener, counters).map_err(lost)?;
        let mut stop = pin!(shard.stop().requested());
        loop {
            let next = async {
                let place = Arc::clone(&self.places).acquire_owned().await;
                (acceptor.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                () = &mut stop => return Ok(()),
                next = next => next,
            };
            let (stream, _peer) = accepted.map_err(lost)?;
            let (server, inner) = (Arc::clone(&self), shard.clone());
            shard.spawn(async move {
                server.serve(stream, inner).await;
                drop(place);
            });
        }
    }

    async fn serve(&self, stream: TcpStream, shard: Shard) {
        let _open = Open::of(&self.open);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(|request| self.endpoints.answer(&shard, request)),
            )
            .with_upgrades();
        let mut connection = pin!(connection);
        let stopped = shard.stop().requested();
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection broken");
        }
    }
}

/// Counts a connection for as long as it lives.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
