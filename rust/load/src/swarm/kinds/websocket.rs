//! WebSocket: a text message for each notification (RFC 6455).

use futures_util::StreamExt;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::super::client::{Client, Next};
use super::super::connection::{Connection, Failure, unexpected};
use crate::websocket;

/// Reads messages until the client has all its notifications, then closes.
pub(in crate::swarm) async fn hold(
    client: &mut Client,
    connection: Connection,
) -> Result<(), Failure> {
    let blueprint = &client.blueprint;
    let url = format!("wss://{}{}?client={}", blueprint.host, blueprint.path, client.id);
    let request = url.into_client_request().map_err(Failure::WebSocket)?;
    let stream = connection.into_stream();
    let opening = async {
        let opened = client_async_with_config(request, stream, Some(websocket::config())).await;
        opened.map_err(failure)
    };
    let (mut socket, _consent) = client.in_time(opening).await?;
    client.record.connected();
    loop {
        let waiting = async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(text),
                    Some(Ok(Message::Close(_))) | None => return Err(Failure::StreamEnded),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(failure(error)),
                }
            }
        };
        let text = client.in_time(waiting).await?;
        if client.receive(text.as_bytes())? == Next::Nothing {
            break;
        }
    }
    let closing = async {
        socket.close(None).await.map_err(failure)?;
        // Up to the close of the other end.
        while let Some(Ok(_)) = socket.next().await {}
        Ok(())
    };
    client.in_time(closing).await
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Http(response) => unexpected(&response),
        Error::Io(error) => Failure::Receive(error),
        Error::ConnectionClosed | Error::AlreadyClosed => Failure::StreamEnded,
        error => Failure::WebSocket(error),
    }
}
