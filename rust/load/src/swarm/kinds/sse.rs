//! Server-sent events: one answer without end (WHATWG HTML, section 9.2).

use bytes::{Buf, BytesMut};
use http::StatusCode;

use super::super::client::{Client, Next};
use super::super::connection::{Connection, Failure, refused};

/// The longest event.
const MAX_EVENT_BYTES: usize = 64 * 1024;

/// Reads events until the client has all its notifications.
pub(in crate::swarm) async fn hold(
    client: &mut Client,
    mut connection: Connection,
) -> Result<(), Failure> {
    let opening = async {
        connection.send(&client.request("Accept: text/event-stream\r\n")).await?;
        connection.head().await
    };
    let (response, mut body) = client.in_time(opening).await?;
    if response.head.status != StatusCode::OK {
        return Err(refused(response.head.status, &response.head.fields));
    }
    client.record.connected();
    let mut events = Events::default();
    loop {
        let waiting = async {
            loop {
                if let Some(event) = events.next()? {
                    return Ok(event);
                }
                match connection.data(&mut body).await? {
                    Some(data) => events.input.extend_from_slice(&data),
                    None => return Err(Failure::StreamEnded),
                }
            }
        };
        let event = client.in_time(waiting).await?;
        if client.receive(&event)? == Next::Nothing {
            return Ok(());
        }
    }
}

/// Events in a stream of bytes. Holds no memory between events.
#[derive(Default)]
struct Events {
    input: BytesMut,
    data: Vec<u8>,
    has_data: bool,
}

impl Events {
    /// The data of the next event that has any.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        while let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
            let line = self.input.split_to(end);
            self.input.advance(1);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() {
                if std::mem::take(&mut self.has_data) {
                    return Ok(Some(std::mem::take(&mut self.data)));
                }
            } else if let Some(data) = line.strip_prefix(b"data:") {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
        }
        if self.input.len() + self.data.len() > MAX_EVENT_BYTES {
            return Err(Failure::Wrong(format!("an event is longer than {MAX_EVENT_BYTES} bytes")));
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str, pieces: usize) -> Vec<String> {
        let mut events = Events::default();
        let mut seen = Vec::new();
        for piece in text.as_bytes().chunks(pieces) {
            events.input.extend_from_slice(piece);
            while let Some(event) = events.next().unwrap() {
                seen.push(String::from_utf8(event).unwrap());
            }
        }
        assert_eq!(events.input.capacity(), 0);
        seen
    }

    #[test]
    fn events_are_their_data_however_the_bytes_come() {
        let text =
            ": comment\n\nevent: x\ndata: one\n\ndata:two\r\ndata:  three\r\nid: 7\r\n\r\n\n";
        for pieces in [1, 2, 3, 7, 1000] {
            assert_eq!(events(text, pieces), ["one", "two\n three"], "in pieces of {pieces}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut events = Events::default();
        events.input.extend_from_slice(&vec![b'x'; MAX_EVENT_BYTES + 1]);
        assert!(events.next().is_err());
    }
}
