//! The client front: TLS, then HTTP/1.1 or HTTP/2 as the client chooses.
//!
//! | module | subject |
//! | --- | --- |
//! | `h1`, `h2` | connections of either version, and their side of an exchange |
//! | `request` | what a request must have to pass |
//! | `identity` | who the client is |
//! | `exchange` | one request and its answer, whatever the version |
//! | `passage` | its way over a stream, or a second one |

mod alarm;
mod exchange;
mod h1;
mod h2;
mod identity;
mod passage;
mod request;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use cmgmux_exchange::head::ResponseHead;
use cmgmux_exchange::refusal::Refusal;
use cmgmux_net::tls::{FRONT_ALPN_H2, describe};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::instance::Counted;
use crate::shard::ShardState;

/// How a client left that is not there any more.
const CLOSED: &str = "it closed its connection";

/// A client that has just connected.
pub(crate) struct Arrival {
    pub(crate) socket: TcpStream,
    pub(crate) address: SocketAddr,
    /// Its place among the connections that the shard may have.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

/// Serves one client connection to its end.
pub(crate) async fn serve(state: Rc<ShardState>, client: Arrival) {
    let Arrival { socket, address, place: _place } = client;
    let counted = Rc::clone(&state);
    let _open = Counted::new(&counted.counters().clients_open);
    let connecting = Box::pin(handshake(&state, socket, address));
    let Some(io) = connecting.await else { return };
    if io.get_ref().1.alpn_protocol() == Some(FRONT_ALPN_H2) {
        // Boxed, because the connections of held clients are of the other kind.
        Box::pin(h2::serve(state, io, address)).await;
    } else {
        h1::serve(state, h1::Client::new(*io, address)).await;
    }
}

async fn handshake(
    state: &ShardState,
    socket: TcpStream,
    address: SocketAddr,
) -> Option<Box<TlsStream<TcpStream>>> {
    let accepting = TlsAcceptor::from(Arc::clone(&state.tls)).accept(socket);
    let failure = match timeout(state.instance.timeouts.head, accepting).await {
        Ok(Ok(io)) => return Some(Box::new(io)),
        Ok(Err(error)) => describe(&error),
        Err(_) => "it took too long".to_owned(),
    };
    state.counters().tls_failed.fetch_add(1, Ordering::Relaxed);
    debug!(%address, failure, "a client's TLS handshake failed");
    None
}

/// The answer that a refusal is; counts it.
fn refusal_response(state: &ShardState, refusal: &Refusal) -> (ResponseHead, Bytes) {
    state.instance.refuse(refusal.reason());
    debug!(reason = refusal.reason().code(), details = refusal.details(), "request refused");
    refusal.response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<F>(_: fn(Rc<ShardState>, Arrival) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_held_client_costs_a_small_task() {
        let bytes = future_bytes(serve) + size_of::<h1::Client>();
        assert!(bytes <= 2_800, "{bytes} bytes");
    }
}
