//! A request is held until a notification answers it.

use bytes::Bytes;
use http::StatusCode;

use super::super::client::{Client, Next};
use super::super::connection::{Connection, Failure, refused};

/// Polls until the client has all its notifications.
pub(in crate::swarm) async fn hold(
    client: &mut Client,
    mut connection: Connection,
) -> Result<(), Failure> {
    client.record.connected();
    loop {
        let (text, is_kept) = client.in_time(notification(client, &mut connection)).await?;
        if client.receive(&text)? == Next::Nothing {
            return Ok(());
        }
        if !is_kept {
            return Err(Failure::NotKept);
        }
    }
}

/// Polls until a notification comes; says whether the connection may go on.
async fn notification(
    client: &Client,
    connection: &mut Connection,
) -> Result<(Bytes, bool), Failure> {
    loop {
        connection.send(&client.request("Accept: application/json\r\n")).await?;
        let answer = connection.answer().await?;
        let head = &answer.response.head;
        match head.status {
            StatusCode::OK => return Ok((answer.body, answer.response.keep_alive)),
            StatusCode::NO_CONTENT if answer.response.keep_alive => client.record.empty_poll(),
            status => return Err(refused(status, &head.fields)),
        }
    }
}
