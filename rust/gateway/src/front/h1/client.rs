//! A client's connection: bytes in, bytes out, and how long it may take.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use cmgmux_net::poll_send;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;
/// Time that the end of a connection may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a client may go on sending a request that was answered before it was complete; while it
/// pauses, [`FAREWELL`] counts.
const LINGER: Duration = Duration::from_secs(30);

/// One client connection behind its TLS handshake. While it waits it holds no buffers of its own.
pub(in crate::front) struct Client {
    io: TlsStream<TcpStream>,
    pub(in crate::front) address: SocketAddr,
    /// Received and not yet understood.
    pub(in crate::front) input: BytesMut,
    /// To be sent.
    pub(in crate::front) output: BytesMut,
    /// Bytes that the client has sent or taken, to tell a slow client from a stalled one.
    pub(in crate::front) moved_bytes: u64,
}

impl Client {
    pub(in crate::front) fn new(io: TlsStream<TcpStream>, address: SocketAddr) -> Box<Self> {
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Box::new(Self { io, address, input, output, moved_bytes: 0 })
    }

    /// The chain that the client showed; it holds the key of the first certificate, no more is known.
    pub(in crate::front) fn certificates(&self) -> &[CertificateDer<'static>] {
        self.io.get_ref().1.peer_certificates().unwrap_or_default()
    }

    /// Appends what the client sent to `input`; `Ok(0)` if it sends no more.
    pub(in crate::front) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.reserve(READ_BYTES);
        let poll = pin!(self.io.read_buf(&mut self.input)).poll(cx);
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        let read = ready!(poll)?;
        self.moved_bytes += read as u64;
        Poll::Ready(Ok(read))
    }

    /// Whether something waits for the client to read: in `output`, or encrypted already.
    pub(in crate::front) fn has_output(&self) -> bool {
        !self.output.is_empty() || self.io.get_ref().1.wants_write()
    }

    /// Sends all of `output`. What the socket takes counts as moved even if no more of `output` could
    /// be encrypted: a client that reads slowly has not stalled.
    pub(in crate::front) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let (socket, tls) = self.io.get_mut();
            ready!(poll_send(cx, socket, &mut self.moved_bytes, |socket| tls.write_tls(socket)))?;
            if !self.output.has_remaining() {
                break;
            }
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.output))?;
            self.output.advance(written);
            self.moved_bytes += written as u64;
        }
        self.output = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Sends what is left of `output`, says that nothing more will come, and closes.
    pub(in crate::front) async fn close(mut self: Box<Self>) {
        // The client may be gone already; there is nobody left to tell.
        let _ = timeout(FAREWELL, self.say_goodbye()).await;
    }

    async fn say_goodbye(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await?;
        self.io.shutdown().await
    }

    /// As [`close`](Self::close), for a connection on which the client may still be sending: closing
    /// with unread bytes would reset the connection before its answer has been read. What still comes
    /// is thrown away as it is, encrypted.
    pub(in crate::front) async fn linger(mut self: Box<Self>) {
        if !matches!(timeout(FAREWELL, self.say_goodbye()).await, Ok(Ok(()))) {
            return;
        }
        let socket = self.io.get_mut().0;
        let mut waste = vec![0; READ_BYTES];
        let draining = async {
            while matches!(timeout(FAREWELL, socket.read(&mut waste)).await, Ok(Ok(1..))) {}
        };
        // Whoever sends for longer has had the time to read the answer.
        let _ = timeout(LINGER, draining).await;
    }
}
