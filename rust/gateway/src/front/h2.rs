//! HTTP/2: many requests at a time on a connection, each in a task of its own.

mod side;

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use cmgmux_exchange::h1::{BodyLength, Request};
use cmgmux_exchange::h2 as head;
use cmgmux_exchange::refusal::Refusal;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, StatusCode};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use self::side::H2;
use super::exchange::{Ending, Exchange};
use super::identity::{Identities, Visitor};
use super::passage::Passage;
use super::refusal_response;
use super::request::{Admitted, admit, open};
use crate::instance::Counted;
use crate::shard::ShardState;

/// Requests that a client may have open on one connection; further ones wait at the client.
const MAX_STREAMS: u32 = 100;
/// What a client may send of one request's body before more is asked for.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// What a client may send of all bodies of a connection before more is asked for.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Answer bytes that wait for the connection, a request.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// The largest head that is decoded, so that one over the limit of `exchange` is still answered.
const DECODED_HEAD_BYTES: u32 = 64 * 1024;

/// One connection, as its requests see it.
struct Connection {
    state: Rc<ShardState>,
    address: SocketAddr,
    certificates: Vec<CertificateDer<'static>>,
    identities: RefCell<Identities>,
    /// Notified when a request has ended.
    quieter: Notify,
}

/// Serves one client connection to its end.
pub(super) async fn serve(
    state: Rc<ShardState>,
    io: Box<TlsStream<TcpStream>>,
    address: SocketAddr,
) {
    let certificates = io.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let timeouts = state.instance.timeouts;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(DECODED_HEAD_BYTES);
    let opening = timeout(timeouts.head, builder.handshake::<_, Bytes>(io));
    let mut incoming = match opening.await {
        Ok(Ok(incoming)) => incoming,
        Ok(Err(error)) => return debug!(%address, %error, "a client's HTTP/2 preface failed"),
        Err(_) => return debug!(%address, "a client's HTTP/2 preface took too long"),
    };
    let connection = Rc::new(Connection {
        state: Rc::clone(&state),
        address,
        certificates,
        identities: RefCell::default(),
        quieter: Notify::new(),
    });
    let mut stopping = pin!(state.shard.stop().requested());
    let mut is_over = false;
    let mut quiet_since = Instant::now();
    loop {
        // This task and each open request hold one.
        let is_quiet = Rc::strong_count(&connection) == 1;
        tokio::select! {
            accepted = incoming.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    state.shard.spawn(exchange(Rc::clone(&connection), request, respond));
                }
                Some(Err(error)) => {
                    debug!(%address, %error, "a client's HTTP/2 connection failed");
                    return;
                }
                None => return,
            },
            () = connection.quieter.notified() => quiet_since = Instant::now(),
            () = &mut stopping, if !is_over => {
                is_over = true;
                incoming.graceful_shutdown();
            }
            () = sleep_until((quiet_since + timeouts.idle).into()), if is_quiet => {
                if is_over {
                    return;
                }
                is_over = true;
                quiet_since = Instant::now();
                incoming.graceful_shutdown();
            }
        }
    }
}

/// Tells the connection that a request has ended, however it does.
struct Quieter<'a>(&'a Notify);

impl Drop for Quieter<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Carries one request to its answer, or answers it with an error.
async fn exchange(
    connection: Rc<Connection>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let _quieter = Quieter(&connection.quieter);
    let state = &*connection.state;
    state.counters().requests.fetch_add(1, Ordering::Relaxed);
    let _open = Counted::new(&state.counters().exchanges_open);
    let (parts, body) = request.into_parts();
    let method = parts.method.clone();
    let mut side = H2::new(body, respond, method, state.date());
    let request = match head::request(parts, side.is_request_over()) {
        Ok(request) => request,
        Err(error) => return refuse(state, side, &Refusal::from(&error)).await,
    };
    let expects_continue = request.expects_continue;
    let begun = unless_gone(&mut side, Box::pin(begin(&connection, request))).await;
    let (passage, admitted) = match begun {
        Some(Ok(begun)) => begun,
        Some(Err(refusal)) => return refuse(state, side, &refusal).await,
        None => return,
    };
    side.limit_body(admitted.max_body_bytes);
    if expects_continue {
        side.say_continue();
    }
    match Exchange::new(state, &mut side, passage, admitted.response_timeout).run().await {
        // A client that is still sending learns by a reset behind the answer that it need not; the
        // stream does that when it is dropped (RFC 9113, section 8.1).
        Ending::Complete { .. } => {}
        Ending::ClientGone => side.reset(Reason::CANCEL),
        Ending::Broken => side.reset(Reason::INTERNAL_ERROR),
        Ending::Refused { refusal, .. } => refuse(state, side, &refusal).await,
    }
}

/// Decides whether a request passes, and sends its head.
async fn begin(
    connection: &Connection,
    mut request: Request,
) -> Result<(Passage, Admitted), Box<Refusal>> {
    let state = &*connection.state;
    let visitor =
        Visitor { address: connection.address.ip(), certificates: &connection.certificates };
    let admitted = admit(state, visitor, &mut connection.identities.borrow_mut(), &mut request)?;
    let is_whole = matches!(request.body, BodyLength::Empty | BodyLength::Exact(0));
    let opened = open(state, &admitted.site).await?;
    let passage = Passage::begin(opened, &admitted, &request.head, is_whole)?;
    Ok((passage, admitted))
}

/// Waits for `wanted`, for as long as the client does.
async fn unless_gone<T>(side: &mut H2, wanted: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        wanted = wanted => Some(wanted),
        () = side.gone() => None,
    }
}

/// Answers with an error of our own.
async fn refuse(state: &ShardState, mut side: H2, refusal: &Refusal) {
    let (head, body) = refusal_response(state, refusal);
    let sending = side.answer(head, body);
    if !timeout(state.instance.timeouts.stall, sending).await.unwrap_or(false) {
        side.reset(Reason::CANCEL);
    }
}

/// Whether an answer to this method and of this status has no body, whatever its fields say.
fn has_no_body(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
