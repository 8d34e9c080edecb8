//! One TLS connection to the gateway, and HTTP/1.1 on it. While it waits it holds no buffer.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmgmux_exchange::fields::PROXY_STATUS;
use cmgmux_exchange::h1::{BodyError, BodyEvent, BodyReader, Response, ResponseReader};
use cmgmux_exchange::head::HeadError;
use cmgmux_net::tls;
use http::Method;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite;

/// Bytes read at a time.
const READ_BYTES: usize = 4096;
/// The longest body that is kept.
const MAX_BODY_BYTES: u64 = 64 * 1024;
/// Longest part of a foreign text that goes into a reason.
const MAX_QUOTE_CHARS: usize = 160;

/// Why a client or a request ended without having got what it waited for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("tcp connect: {}", tls::describe(.0))]
    Tcp(io::Error),
    #[error("tls handshake: {}", tls::describe(.0))]
    Tls(io::Error),
    #[error("no connection within {} s", .0.as_secs_f64())]
    ConnectTimeout(Duration),
    #[error("no notification within {} s", .0.as_secs_f64())]
    ResponseTimeout(Duration),
    #[error("sending the request: {}", tls::describe(.0))]
    Send(io::Error),
    #[error("waiting for the answer: {}", tls::describe(.0))]
    Receive(io::Error),
    #[error("malformed answer head: {0}")]
    Head(HeadError),
    #[error("answer body: {0}")]
    Body(BodyError),
    #[error("answer body larger than {MAX_BODY_BYTES} bytes")]
    BodyTooLarge,
    #[error("connection closed before the answer")]
    NoAnswer,
    #[error("connection closed inside the answer")]
    Truncated,
    #[error("connection closed after an answer, with more to come")]
    NotKept,
    #[error("the stream ended, with more messages to come")]
    StreamEnded,
    #[error("websocket: {0}")]
    WebSocket(tungstenite::Error),
    #[error("the swarm was stopped")]
    Stopped,
    /// An answer that should not have come.
    #[error("{0}")]
    Wrong(String),
}

/// A connection to the gateway.
pub(super) struct Connection {
    stream: Box<TlsStream<TcpStream>>,
    input: BytesMut,
}

/// An answer whose body is there.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) body: Bytes,
}

impl Connection {
    pub(super) fn new(stream: Box<TlsStream<TcpStream>>) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    pub(super) fn into_stream(self) -> Box<TlsStream<TcpStream>> {
        self.stream
    }

    pub(super) async fn send(&mut self, request: &str) -> Result<(), Failure> {
        let sending = async {
            self.stream.write_all(request.as_bytes()).await?;
            self.stream.flush().await
        };
        sending.await.map_err(Failure::Send)
    }

    /// The final head of the answer to a GET, and what reads its body.
    pub(super) async fn head(&mut self) -> Result<(Response, BodyReader), Failure> {
        let mut reader = ResponseReader::new(&Method::GET, false);
        loop {
            while let Some(response) = reader.read(&mut self.input).map_err(Failure::Head)? {
                if !response.head.status.is_informational() {
                    let body = BodyReader::new(response.body, u64::MAX).map_err(Failure::Body)?;
                    return Ok((response, body));
                }
            }
            let is_first = self.input.is_empty();
            if !self.fill().await?.0 {
                return Err(if is_first { Failure::NoAnswer } else { Failure::Truncated });
            }
        }
    }

    /// The next bytes of a body; `None` at its end.
    pub(super) async fn data(&mut self, body: &mut BodyReader) -> Result<Option<Bytes>, Failure> {
        loop {
            match body.read(&mut self.input).map_err(Failure::Body)? {
                Some(BodyEvent::Data(data)) => return Ok(Some(data)),
                Some(BodyEvent::End) => return Ok(None),
                Some(BodyEvent::Trailers(_)) => {}
                None => {
                    let (has_more, is_clean) = self.fill().await?;
                    if !has_more && (!is_clean || body.handle_end().is_err()) {
                        return Err(Failure::Truncated);
                    }
                }
            }
        }
    }

    /// The whole answer to a GET. Nothing may follow it.
    pub(super) async fn answer(&mut self) -> Result<Answer, Failure> {
        let (response, mut reader) = self.head().await?;
        let mut body = BytesMut::new();
        while let Some(data) = self.data(&mut reader).await? {
            if (body.len() + data.len()) as u64 > MAX_BODY_BYTES {
                return Err(Failure::BodyTooLarge);
            }
            body.extend_from_slice(&data);
        }
        if !self.input.is_empty() {
            return Err(Failure::Wrong("bytes after the end of the answer".to_owned()));
        }
        Ok(Answer { response, body: body.freeze() })
    }

    /// Reads some more: whether there was any, and if not, whether the end is clean, so that nothing
    /// can be missing.
    async fn fill(&mut self) -> Result<(bool, bool), Failure> {
        poll_fn(|cx| {
            let mut buffer = [const { MaybeUninit::uninit() }; READ_BYTES];
            let mut read = ReadBuf::uninit(&mut buffer);
            match ready!(Pin::new(&mut *self.stream).poll_read(cx, &mut read)) {
                Ok(()) if self.input.is_empty() => self.input = BytesMut::from(read.filled()),
                Ok(()) => self.input.extend_from_slice(read.filled()),
                // The peer closed TCP without closing TLS.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok((false, false)).into();
                }
                Err(error) => return Err(Failure::Receive(error)).into(),
            }
            Ok((!read.filled().is_empty(), true)).into()
        })
        .await
    }
}

/// What a status other than the one that was expected says, with its origin.
pub(super) fn unexpected<B>(response: &http::Response<B>) -> Failure {
    refused(response.status(), response.headers())
}

/// As [`unexpected`], of the head that we read ourselves.
pub(super) fn refused(status: http::StatusCode, fields: &http::HeaderMap) -> Failure {
    let origin = fields.get(PROXY_STATUS).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let origin = origin.as_deref().unwrap_or("no Proxy-Status");
    let quoted: String = origin.chars().take(MAX_QUOTE_CHARS).collect();
    Failure::Wrong(format!("status {} ({quoted})", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn a_refusal_is_quoted_with_its_origin() {
        let text = format!("cmgmux-gateway; details=\"{}\"", "x".repeat(1000));
        let mut fields = HeaderMap::new();
        fields.insert(PROXY_STATUS, HeaderValue::from_str(&text).unwrap());
        let reason = refused(StatusCode::SERVICE_UNAVAILABLE, &fields).to_string();
        assert!(reason.starts_with("status 503 (cmgmux-gateway;"), "{reason}");
        assert!(reason.len() < 200, "{reason}");
    }
}
