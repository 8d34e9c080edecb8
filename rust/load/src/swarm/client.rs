//! The life of one client: connect, hold a poll, check what comes back.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;

use cmgmux_net::shard::StopSignal;
use cmgmux_net::tls;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::answer::{Answer, AnswerError, AnswerReader};
use super::tally::ClientRecord;

/// Bytes read from a connection at a time, into memory that no waiting client owns.
const READ_BYTES: usize = 4096;
/// Longest part of a foreign text that goes into a reason.
const MAX_QUOTE_CHARS: usize = 160;

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
    /// The request path, without query.
    pub(super) path: String,
    /// For TCP and TLS together.
    pub(super) connect_timeout: Duration,
    /// For the notification, from the moment the poll is sent.
    pub(super) response_timeout: Duration,
    /// Notifications to wait for; 0 is without end.
    pub(super) polls: u64,
}

/// Why a client ended without having got what it waited for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("tcp connect: {}", tls::describe(.0))]
    Tcp(io::Error),
    #[error("tls handshake: {}", tls::describe(.0))]
    Tls(io::Error),
    #[error("no connection within {} s", .0.as_secs_f64())]
    ConnectTimeout(Duration),
    #[error("no notification within {} s", .0.as_secs_f64())]
    ResponseTimeout(Duration),
    #[error("sending the poll: {}", tls::describe(.0))]
    Send(io::Error),
    #[error("waiting for the answer: {}", tls::describe(.0))]
    Receive(io::Error),
    #[error("{0}")]
    Broken(AnswerError),
    #[error("connection closed after an answer, with more polls to come")]
    NotKept,
    #[error("the swarm was stopped")]
    Stopped,
    #[error("{0}")]
    Wrong(String),
}

/// The body of a right answer.
#[derive(Deserialize)]
struct Notification {
    client: String,
    message: String,
}

impl Blueprint {
    /// Runs one client to its end and records it. `permit` is given back as soon as the connection
    /// stands. Cancelling records the client as stopped.
    pub(super) async fn run(
        self: Arc<Self>,
        id: u64,
        mut record: ClientRecord,
        permit: OwnedSemaphorePermit,
        stop: StopSignal,
    ) {
        let connected = self.connect().await;
        drop(permit);
        let result = match connected {
            Ok(mut stream) => self.hold(id, &mut stream, &mut record, &stop).await,
            Err(failure) => Err(failure),
        };
        match result {
            Ok(()) => record.done(),
            Err(Failure::Stopped) => drop(record),
            Err(Failure::Wrong(reason)) => record.wrong(reason),
            Err(failure) => record.failed(failure.to_string()),
        }
    }

    /// Opens the connection. What the handshake needs lives on the heap only until it is over.
    async fn connect(&self) -> Result<Box<TlsStream<TcpStream>>, Failure> {
        let opening = Box::pin(async {
            let tcp = TcpStream::connect(&*self.addresses).await.map_err(Failure::Tcp)?;
            tcp.set_nodelay(true).map_err(Failure::Tcp)?;
            let stream = self.connector.connect(self.server_name.clone(), tcp).await;
            stream.map(Box::new).map_err(Failure::Tls)
        });
        timeout(self.connect_timeout, opening)
            .await
            .unwrap_or(Err(Failure::ConnectTimeout(self.connect_timeout)))
    }

    /// Polls over `stream` until the client has all its notifications.
    async fn hold(
        &self,
        id: u64,
        stream: &mut TlsStream<TcpStream>,
        record: &mut ClientRecord,
        stop: &StopSignal,
    ) -> Result<(), Failure> {
        record.connected();
        let mut answers = 0;
        loop {
            let keep_alive = self.wait_for_notification(id, stream, record).await?;
            record.answer();
            answers += 1;
            if answers == self.polls {
                return Ok(());
            }
            if stop.is_requested() {
                return Err(Failure::Stopped);
            }
            if !keep_alive {
                return Err(Failure::NotKept);
            }
        }
    }

    /// Polls until a notification comes and is right; says whether the connection may go on.
    async fn wait_for_notification(
        &self,
        id: u64,
        stream: &mut TlsStream<TcpStream>,
        record: &ClientRecord,
    ) -> Result<bool, Failure> {
        let deadline = Instant::now() + self.response_timeout;
        loop {
            let polled = timeout_at(deadline, async {
                self.send_poll(id, stream).await.map_err(Failure::Send)?;
                read_answer(stream).await
            });
            let late = Failure::ResponseTimeout(self.response_timeout);
            let answer = polled.await.unwrap_or(Err(late))?;
            if answer.status == 204 && answer.keep_alive {
                record.empty_poll();
            } else {
                return check(&answer, id).map(|()| answer.keep_alive).map_err(Failure::Wrong);
            }
        }
    }

    async fn send_poll(&self, id: u64, stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
        let request = format!(
            "GET {}?client={id} HTTP/1.1\r\nHost: {}\r\nUser-Agent: cmgmux-load\r\n\
             Accept: application/json\r\n\r\n",
            self.path, self.host,
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await
    }
}

/// Waits for one answer. Owns no buffer until its first byte arrives.
async fn read_answer(stream: &mut TlsStream<TcpStream>) -> Result<Answer, Failure> {
    let mut reader = AnswerReader::default();
    poll_fn(|cx| {
        loop {
            let mut bytes = [0; READ_BYTES];
            let mut input = ReadBuf::new(&mut bytes);
            let received = ready!(Pin::new(&mut *stream).poll_read(cx, &mut input));
            let answer = match received {
                Ok(()) if input.filled().is_empty() => {
                    std::mem::take(&mut reader).handle_end(true).map(Some)
                }
                Ok(()) => reader.handle_input(input.filled()),
                // The peer closed TCP without closing TLS.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    std::mem::take(&mut reader).handle_end(false).map(Some)
                }
                Err(error) => return Err(Failure::Receive(error)).into(),
            };
            if let Some(answer) = answer.map_err(Failure::Broken).transpose() {
                return answer.into();
            }
        }
    })
    .await
}

/// Whether `answer` is a notification for client `id`; otherwise what it is, without naming the
/// client, so that equal reasons are counted together.
fn check(answer: &Answer, id: u64) -> Result<(), String> {
    if answer.status != 200 {
        let origin = answer.proxy_status.as_deref().unwrap_or("no Proxy-Status");
        return Err(format!("status {} ({})", answer.status, quote(origin)));
    }
    let notification: Notification = serde_json::from_slice(&answer.body).map_err(|_| {
        "answer is no notification: not JSON with `client` and `message`".to_owned()
    })?;
    if notification.client != id.to_string() {
        return Err("answer is for another client".to_owned());
    }
    if notification.message.is_empty() {
        return Err("answer carries an empty message".to_owned());
    }
    Ok(())
}

fn quote(text: &str) -> String {
    text.chars().take(MAX_QUOTE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, proxy_status: None, body: body.as_bytes().to_vec(), keep_alive: true }
    }

    #[test]
    fn a_notification_must_be_for_this_client_and_say_something() {
        assert_eq!(check(&answer(200, r#"{"client":"7","message":"go"}"#), 7), Ok(()));
        for (body, reason) in [
            (r#"{"client":"8","message":"go"}"#, "another client"),
            (r#"{"client":"7","message":""}"#, "empty message"),
            (r#"{"client":"7"}"#, "no notification"),
            ("<html>", "no notification"),
        ] {
            let found = check(&answer(200, body), 7).unwrap_err();
            assert!(found.contains(reason), "{body}: {found}");
        }
    }

    #[test]
    fn a_refusal_is_quoted_with_its_origin() {
        let mut refusal = answer(503, "sorry");
        refusal.proxy_status = Some(format!("cmgmux-gateway; details=\"{}\"", "x".repeat(1000)));
        let reason = check(&refusal, 7).unwrap_err();
        assert!(reason.starts_with("status 503 (cmgmux-gateway;"), "{reason}");
        assert!(reason.len() < 200, "{reason}");
    }
}
