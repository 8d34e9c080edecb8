//! The socket of somebody who has not shown who it is.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a stranger may send until its TLS handshake is over.
pub(super) const MAX_STRANGER_BYTES: usize = 64 * 1024;

/// A socket that fails once more than [`MAX_STRANGER_BYTES`] have come.
#[derive(Debug)]
pub(super) struct Stranger {
    pub(super) socket: TcpStream,
    received: usize,
}

impl Stranger {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, received: 0 }
    }

    pub(super) fn has_sent_too_much(&self) -> bool {
        self.received > MAX_STRANGER_BYTES
    }
}

impl AsyncRead for Stranger {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        self.received += buffer.filled().len() - before;
        Poll::Ready(if self.has_sent_too_much() {
            Err(io::ErrorKind::QuotaExceeded.into())
        } else {
            Ok(())
        })
    }
}

impl AsyncWrite for Stranger {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
