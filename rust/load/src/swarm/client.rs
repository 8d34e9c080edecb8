//! The life of one client: connect, hold a notification stream, check what comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cmgmux_net::shard::StopSignal;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Failure};
use super::kinds::{self, Kind};
use super::tally::ClientRecord;

/// What all clients of a swarm have in common.
pub(super) struct Blueprint {
    /// Where to connect: all addresses of the target, tried in order.
    pub(super) addresses: Vec<SocketAddr>,
    /// Trust, versions and the client certificate.
    pub(super) connector: TlsConnector,
    /// Whom the gateway's certificate must name.
    pub(super) server_name: ServerName<'static>,
    /// The `Host` field.
    pub(super) host: String,
    /// The path of the notification streams, without query.
    pub(super) path: String,
    /// The target of requests beside the streams.
    pub(super) request_path: String,
    /// For TCP and TLS together.
    pub(super) connect_timeout: Duration,
    /// For a notification, from the moment from which it is waited for; for an answer.
    pub(super) response_timeout: Duration,
    /// Notifications to wait for; 0 is without end.
    pub(super) messages: u64,
}

/// One client as it runs.
pub(super) struct Client {
    pub(super) blueprint: Arc<Blueprint>,
    pub(super) id: u64,
    pub(super) record: ClientRecord,
    pub(super) stop: StopSignal,
    messages: u64,
}

/// Whether a client waits for more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    Message,
    Nothing,
}

/// What the body of a notification says.
#[derive(Deserialize)]
struct Notification {
    client: String,
    message: String,
    /// When it was sent, if the role says so.
    sent_unix_us: Option<u64>,
}

impl Client {
    pub(super) fn new(
        blueprint: Arc<Blueprint>,
        id: u64,
        record: ClientRecord,
        stop: StopSignal,
    ) -> Self {
        Self { blueprint, id, record, stop, messages: 0 }
    }

    /// Runs to its end and records it. `permit` is given back as soon as the connection stands.
    /// Cancelling records the client as stopped.
    pub(super) async fn run(mut self, kind: Kind, permit: OwnedSemaphorePermit) {
        let connected = self.blueprint.connect().await;
        drop(permit);
        let result = match connected {
            Ok(connection) => match kind {
                Kind::LongPoll => kinds::long_poll::hold(&mut self, connection).await,
                Kind::Sse => kinds::sse::hold(&mut self, connection).await,
                Kind::WebSocket => Box::pin(kinds::websocket::hold(&mut self, connection)).await,
            },
            Err(failure) => Err(failure),
        };
        match result {
            Ok(()) => self.record.done(),
            Err(Failure::Stopped) => drop(self.record),
            Err(Failure::Wrong(reason)) => self.record.wrong(reason),
            Err(failure) => self.record.failed(failure.to_string()),
        }
    }

    /// The head of the request for the stream, with these further lines.
    pub(super) fn request(&self, lines: &str) -> String {
        let Blueprint { path, host, .. } = &*self.blueprint;
        let id = self.id;
        format!(
            "GET {path}?client={id} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: cmgmux-load\r\n\
             {lines}\r\n"
        )
    }

    /// Checks a notification and records it; says whether more is waited for.
    pub(super) fn receive(&mut self, text: &[u8]) -> Result<Next, Failure> {
        let sent_unix_us = check(text, self.id).map_err(Failure::Wrong)?;
        self.record.message(sent_unix_us.map(age));
        self.messages += 1;
        if self.messages == self.blueprint.messages {
            Ok(Next::Nothing)
        } else if self.stop.is_requested() {
            Err(Failure::Stopped)
        } else {
            Ok(Next::Message)
        }
    }

    /// Waits for `wanted`, as long as a notification may take.
    pub(super) async fn in_time<T>(
        &self,
        wanted: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let limit = self.blueprint.response_timeout;
        timeout(limit, wanted).await.unwrap_or(Err(Failure::ResponseTimeout(limit)))
    }
}

impl Blueprint {
    /// Opens a connection. What the handshake needs lives on the heap only until it is over.
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let opening = Box::pin(async {
            let tcp = TcpStream::connect(&*self.addresses).await.map_err(Failure::Tcp)?;
            tcp.set_nodelay(true).map_err(Failure::Tcp)?;
            let stream = self.connector.connect(self.server_name.clone(), tcp).await;
            stream.map(|stream| Connection::new(Box::new(stream))).map_err(Failure::Tls)
        });
        timeout(self.connect_timeout, opening)
            .await
            .unwrap_or(Err(Failure::ConnectTimeout(self.connect_timeout)))
    }
}

/// How long ago that was; nothing if it is still to come, as clocks of two machines may have it.
fn age(sent_unix_us: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(sent_unix_us))
}

/// Whether `text` is a notification for client `id`, and when it was sent; otherwise what it is,
/// without naming the client, so that equal reasons are counted together.
fn check(text: &[u8], id: u64) -> Result<Option<u64>, String> {
    let notification: Notification = serde_json::from_slice(text).map_err(|_| {
        "answer is no notification: not JSON with `client` and `message`".to_owned()
    })?;
    if notification.client != id.to_string() {
        return Err("answer is for another client".to_owned());
    }
    if notification.message.is_empty() {
        return Err("answer carries an empty message".to_owned());
    }
    Ok(notification.sent_unix_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_must_be_for_this_client_and_say_something() {
        assert_eq!(check(br#"{"client":"7","message":"go"}"#, 7), Ok(None));
        let timed = br#"{"client":"7","message":"go","sent_unix_us":5}"#;
        assert_eq!(check(timed, 7), Ok(Some(5)));
        for (body, reason) in [
            (r#"{"client":"8","message":"go"}"#, "another client"),
            (r#"{"client":"7","message":""}"#, "empty message"),
            (r#"{"client":"7"}"#, "no notification"),
            ("<html>", "no notification"),
        ] {
            let found = check(body.as_bytes(), 7).unwrap_err();
            assert!(found.contains(reason), "{body}: {found}");
        }
    }

    #[test]
    fn a_message_from_the_future_has_no_age() {
        assert_eq!(age(u64::MAX / 2), Duration::ZERO);
        assert!(age(0) > Duration::from_secs(1_000_000_000));
    }
}
