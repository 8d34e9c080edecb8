//! The client front: one task a connection, HTTP/1.1 over TLS.

mod client;
mod exchange;
mod identity;
mod request;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use bytes::BytesMut;
use cmgmux_exchange::h1::{Circumstances, Request, RequestReader, ResponseWriter};
use cmgmux_exchange::refusal::{Reason, Refusal};
use cmgmux_net::tls::describe;
use http::{HeaderMap, Method};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use self::client::{Alarm, Client};
use self::exchange::Outcome;
use self::identity::Identities;
use crate::instance::Counted;
use crate::shard::ShardState;

/// What a connection brings next.
enum Next {
    /// A request head.
    Request(Box<Request>),
    /// Something that is answered with an error, and then the end.
    Refused(Box<Refusal>),
    /// The end, without a word.
    Over,
}

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
    let _open = Counted::new(&state.counters().clients_open);
    let connecting = Box::pin(handshake(&state, socket, address));
    let Some(mut client) = connecting.await else { return };
    let mut identities = Identities::default();
    let mut is_first = true;
    loop {
        match next_request(&state, &mut client, is_first).await {
            Next::Request(request) => {
                let serving = exchange::serve(&state, &mut client, &mut identities, *request);
                match serving.await {
                    Outcome::Reusable => {}
                    Outcome::Close => return client.close().await,
                    Outcome::Linger => return client.linger().await,
                    Outcome::Broken => {
                        // Dropped without a closing alert, so that the client sees a broken end.
                        state.instance.broken_answers.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    Outcome::ClientGone => return,
                }
            }
            Next::Refused(refusal) => {
                answer_refusal(&state, &mut client.output, &refusal, &Method::GET, true);
                return client.linger().await;
            }
            Next::Over => return client.close().await,
        }
        is_first = false;
    }
}

async fn handshake(
    state: &ShardState,
    socket: TcpStream,
    address: SocketAddr,
) -> Option<Box<Client>> {
    let accepting = TlsAcceptor::from(Arc::clone(&state.tls)).accept(socket);
    let failure = match timeout(state.instance.timeouts.head, accepting).await {
        Ok(Ok(io)) => return Some(Box::new(Client::new(io, address))),
        Ok(Err(error)) => describe(&error),
        Err(_) => "it took too long".to_owned(),
    };
    state.counters().tls_failed.fetch_add(1, Ordering::Relaxed);
    debug!(%address, failure, "a client's TLS handshake failed");
    None
}

/// Waits for the next request head.
async fn next_request(state: &ShardState, client: &mut Client, is_first: bool) -> Next {
    let timeouts = state.instance.timeouts;
    let mut reader = RequestReader::new();
    let mut alarm = Alarm::default();
    let waiting_since = Instant::now();
    let mut head_since = is_first.then_some(waiting_since);
    let mut stopping = std::pin::pin!(state.shard.stop().requested());
    loop {
        match reader.read(&mut client.input) {
            Ok(Some(request)) => return Next::Request(Box::new(request)),
            Ok(None) => {}
            Err(error) => return Next::Refused(Box::new(Refusal::from(&error))),
        }
        let is_idle = client.input.is_empty();
        if !is_idle {
            head_since.get_or_insert_with(Instant::now);
        }
        let deadline = match head_since {
            Some(since) => since + timeouts.head,
            None => waiting_since + timeouts.idle,
        };
        let next = poll_fn(|cx| {
            if let Poll::Ready(read) = client.poll_fill(cx) {
                // A connection that ends or breaks between requests owes nobody an answer.
                return Poll::Ready(read.ok().filter(|&read| read > 0).map(|_| None));
            }
            if is_idle && stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            alarm.poll_at(cx, Some(deadline)).map(|()| {
                (!is_idle).then(|| Some(Box::new(Refusal::by_gateway(Reason::HeadTimeout))))
            })
        });
        match next.await {
            Some(None) => {}
            Some(Some(refusal)) => return Next::Refused(refusal),
            None => return Next::Over,
        }
    }
}

/// Appends an error answer to `output` and counts it.
fn answer_refusal(
    state: &ShardState,
    output: &mut BytesMut,
    refusal: &Refusal,
    method: &Method,
    close: bool,
) {
    state.instance.refuse(refusal.reason());
    debug!(reason = refusal.reason().code(), details = refusal.details(), "request refused");
    let (head, body) = refusal.response();
    let has_body = *method != Method::HEAD;
    let circumstances = Circumstances { method, has_body, close, date: &state.date() };
    let Ok(mut writer) = ResponseWriter::start(&head, circumstances, output) else { return };
    if has_body && writer.frame(body.len()).is_ok() {
        output.extend_from_slice(&body);
        // Its length is declared, so there is nothing to add.
        let _ = writer.finish(&HeaderMap::new(), output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<F>(_: fn(Rc<ShardState>, Arrival) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_held_client_costs_a_small_task() {
        let bytes = future_bytes(serve) + size_of::<Client>();
        assert!(bytes <= 2_800, "{bytes} bytes");
    }
}
