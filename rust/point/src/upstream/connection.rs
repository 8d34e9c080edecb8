//! A connection to a role: bytes out, bytes in. While it waits it holds no buffer.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::counters::{OpenConnection, UpstreamCounters};

/// The most that is read at a time.
const READ_BYTES: usize = 64 * 1024;

/// What a connection runs over.
pub(crate) type Io = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection to a role. Dropping it closes it.
pub(crate) struct Connection {
    io: Io,
    /// Received and not yet understood.
    pub(super) input: BytesMut,
    /// Since when it waits for its next exchange; never, if it has not had one.
    idle_since: Option<Instant>,
    counted: OpenConnection,
}

impl Connection {
    pub(super) fn new(io: Io, counters: &Arc<UpstreamCounters>) -> Self {
        let counted = OpenConnection::of(counters);
        Self { io, input: BytesMut::new(), idle_since: None, counted }
    }

    /// Appends what the role says to `input`; `Ok(0)` if it says no more.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack, so that a silent connection holds no buffer.
        let mut buffer = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut buffer);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        if self.input.is_empty() {
            // A new one, no longer than needed: what was taken from the old one may live on.
            self.input = BytesMut::from(read.filled());
        } else {
            self.input.extend_from_slice(read.filled());
        }
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Sends some of the bytes; says how many.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Where what moves on it is counted.
    pub(super) fn counters(&self) -> &UpstreamCounters {
        self.counted.counters()
    }

    /// Notes that an exchange is over.
    pub(super) fn rest(&mut self) {
        self.idle_since = Some(Instant::now());
    }

    /// Whether an exchange went before.
    pub(super) fn was_used(&self) -> bool {
        self.idle_since.is_some()
    }

    /// Whether it has waited for less than `limit`.
    pub(super) fn is_fresh(&self, limit: Duration) -> bool {
        self.idle_since.is_none_or(|since| since.elapsed() < limit)
    }

    /// Whether the role has neither closed nor said anything, which it must not without a request.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut read = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.io).poll_read(&mut cx, &mut read).is_pending()
    }

    /// The bare connection, what the role has said so far, and what counts it.
    pub(super) fn into_parts(self) -> (Io, BytesMut, OpenConnection) {
        (self.io, self.input, self.counted)
    }
}
