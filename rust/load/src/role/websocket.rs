//! Notification streams over WebSocket (RFC 6455).

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::registry::HeldStream;
use super::reply::{Reply, ReplyBody};
use crate::websocket;

/// How long the connection may take to change hands, and a client to take a message.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a request asks for a WebSocket.
pub(super) fn is_asked_for(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(SEC_WEBSOCKET_KEY)
        && request
            .headers()
            .get(UPGRADE)
            .is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The consent to switch.
pub(super) fn consent(request: &Request<Incoming>) -> Reply {
    let mut reply = Response::new(ReplyBody::Whole(None));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map_or(&b""[..], HeaderValue::as_bytes);
    let accept = HeaderValue::from_str(&derive_accept_key(key));
    let fields = reply.headers_mut();
    fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    fields.extend(accept.ok().map(|accept| (SEC_WEBSOCKET_ACCEPT, accept)));
    reply
}

/// Passes the messages of `stream` on, until the client closes or the stream is superseded.
pub(super) async fn serve(upgrade: OnUpgrade, stream: HeldStream) {
    let Ok(Ok(upgraded)) = timeout(PATIENCE, upgrade).await else {
        return;
    };
    let io = TokioIo::new(upgraded);
    let socket =
        WebSocketStream::from_raw_socket(io, Role::Server, Some(websocket::config())).await;
    if let Err(error) = pass(socket, stream).await {
        tracing::debug!(%error, "WebSocket broken");
    }
}

async fn pass(
    mut socket: WebSocketStream<TokioIo<Upgraded>>,
    mut stream: HeldStream,
) -> Result<(), Error> {
    let late = |_| Error::Io(std::io::ErrorKind::TimedOut.into());
    loop {
        tokio::select! {
            message = stream.next() => {
                let Ok(message) = message else { break };
                let text = Message::text(message.to_json(stream.client()));
                timeout(PATIENCE, socket.send(text)).await.map_err(late)??;
            }
            // Pings are answered within; what else clients say is nobody's.
            said = socket.next() => match said {
                Some(Ok(_)) => {}
                Some(Err(Error::ConnectionClosed)) | None => return Ok(()),
                Some(Err(error)) => return Err(error),
            },
        }
    }
    timeout(PATIENCE, socket.close(None)).await.map_err(late)?
}
