//! One TLS connection under a channel: plaintext in and out, many frames a record, many records a
//! system call.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::Shutdown;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustls::Connection;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::tls::describe;

/// Ciphertext taken from the socket by one system call.
const READ_BYTES: usize = 64 * 1024;
/// Unsent bytes beyond which the kernel of a new link takes no more: what waits here can still be
/// overtaken by a small message, what waits there cannot.
const UNSENT_BYTES: u32 = 128 * 1024;
/// Time after which the kernel gives up a connection whose peer acknowledges nothing.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for what was said last to be sent, and again for the peer to close the connection.
const DISMISSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// What a channel's peer may still have under way at its end: as much as its replay ring holds.
pub(crate) const MAX_REST_BYTES: u64 = 16 * 1024 * 1024;
/// Pieces of one batch that become one TLS record.
const PIECES: usize = 40;

/// A TLS connection that has finished its handshake, detached from any runtime so that it can move
/// to the thread that will own it.
pub(crate) struct FinishedTls {
    /// The socket, non-blocking.
    pub(crate) socket: std::net::TcpStream,
    /// The TLS state; it may hold plaintext that arrived with the handshake.
    pub(crate) tls: Connection,
    /// Ciphertext that arrived behind it.
    ahead: Vec<u8>,
}

impl fmt::Debug for FinishedTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinishedTls").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// A TLS connection on the current thread's runtime.
pub(crate) struct Link {
    socket: TcpStream,
    tls: Connection,
    /// Ciphertext read and not yet given to `tls`: `ahead[start..end]`.
    ahead: Box<[u8]>,
    start: usize,
    end: usize,
    /// Unsent bytes beyond which the kernel takes no more.
    unsent_bytes: u32,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Link {
    /// Takes the connection over and sets the socket's options.
    pub(crate) fn new(socket: TcpStream, tls: Connection) -> io::Result<Self> {
        let options = SockRef::from(&socket);
        options.set_tcp_nodelay(true)?;
        options.set_tcp_notsent_lowat(UNSENT_BYTES)?;
        options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        let ahead = vec![0; READ_BYTES].into_boxed_slice();
        Ok(Self { socket, tls, ahead, start: 0, end: 0, unsent_bytes: UNSENT_BYTES })
    }

    /// Attaches a connection that finished its handshake elsewhere to this thread's runtime.
    pub(crate) fn attach(finished: FinishedTls) -> io::Result<Self> {
        let mut link = Self::new(TcpStream::from_std(finished.socket)?, finished.tls)?;
        link.end = finished.ahead.len();
        link.ahead[..link.end].copy_from_slice(&finished.ahead);
        Ok(link)
    }

    /// The reverse of [`attach`](Self::attach).
    pub(crate) fn detach(self) -> io::Result<FinishedTls> {
        let ahead = self.ahead[self.start..self.end].to_vec();
        Ok(FinishedTls { socket: self.socket.into_std()?, tls: self.tls, ahead })
    }

    /// The state of the TLS connection.
    pub(crate) fn tls(&self) -> &Connection {
        &self.tls
    }

    /// Appends received plaintext to `input`; `Ok(0)` once the peer has closed the connection.
    ///
    /// # Errors
    ///
    /// A failed socket, or a TLS failure described in words.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.tls.reader().fill_buf() {
                Ok(plaintext) if !plaintext.is_empty() => {
                    let length = plaintext.len();
                    input.extend_from_slice(plaintext);
                    self.tls.reader().consume(length);
                    return Poll::Ready(Ok(length));
                }
                Ok(_) => return Poll::Ready(Ok(0)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(0));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.start == self.end {
                ready!(self.socket.poll_read_ready(cx))?;
                match self.socket.try_read(&mut self.ahead) {
                    Ok(length) => (self.start, self.end) = (0, length),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            self.feed_tls()?;
        }
    }

    /// Gives TLS some of the ciphertext read ahead; an empty buffer tells it of the connection's end.
    fn feed_tls(&mut self) -> io::Result<()> {
        let mut ahead = &self.ahead[self.start..self.end];
        self.start += self.tls.read_tls(&mut ahead)?;
        if let Err(error) = self.tls.process_new_packets() {
            // The alert is a courtesy: the connection is over whether it gets through or not.
            let _ = self.tls.write_tls(&mut TrySocket(&self.socket));
            return Err(io::Error::new(io::ErrorKind::InvalidData, describe(&error)));
        }
        Ok(())
    }

    /// Encrypts the pieces of one batch, as one record if they fit, and returns their bytes. Nothing
    /// is sent before [`poll_flush`](Self::poll_flush).
    pub(crate) fn write<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        let mut written = 0;
        let mut slices = [IoSlice::new(&[]); PIECES];
        let mut used = 0;
        for piece in pieces {
            slices[used] = IoSlice::new(piece);
            used += 1;
            if used == PIECES {
                written += write_all(&mut self.tls, &slices)?;
                used = 0;
            }
        }
        written += write_all(&mut self.tls, &slices[..used])?;
        Ok(written)
    }

    /// Hands encrypted bytes to the kernel until none are left.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, tls, .. } = self;
        poll_send(cx, socket, &mut 0, |socket| tls.write_tls(socket))
    }

    /// Sends what the socket takes at once of what was written last, and ends the connection. What has
    /// arrived is read and dropped, at most [`MAX_REST_BYTES`], as [`dismiss`] does that has time.
    pub(crate) fn farewell(mut self) {
        self.close();
        // The runtime does not know yet whether a socket that it has just been given takes anything.
        let Ok(mut socket) = self.socket.into_std() else { return };
        while self.tls.wants_write() && self.tls.write_tls(&mut socket).is_ok() {}
        // It ends where nothing more has arrived, or the connection has broken.
        let _ = socket.shutdown(Shutdown::Write);
        let _ = io::copy(&mut socket.take(MAX_REST_BYTES), &mut io::sink());
    }

    /// Sends what was written last and ends the connection so that it arrives, within twice
    /// [`DISMISSAL_TIMEOUT`]; see [`dismiss`].
    pub(crate) async fn dismiss(mut self, most: u64) {
        self.close();
        let flushing = poll_fn(|cx| self.poll_flush(cx));
        if matches!(timeout(DISMISSAL_TIMEOUT, flushing).await, Ok(Ok(()))) {
            dismiss(self.into_socket(), most).await;
        }
    }

    /// The socket alone, without the buffers of the link.
    fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Lets the kernel hold about `bytes` unsent; a change of less than half is not worth a system call.
    pub(crate) fn limit_unsent(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes.abs_diff(self.unsent_bytes) >= self.unsent_bytes / 2 {
            SockRef::from(&self.socket).set_tcp_notsent_lowat(bytes)?;
            self.unsent_bytes = bytes;
        }
        Ok(())
    }

    /// Tells the peer that nothing more will come.
    pub(crate) fn close(&mut self) {
        self.tls.send_close_notify();
    }
}

/// Ends a connection so that what was said last arrives: a socket that is closed with unread bytes
/// resets the connection, and the reset overtakes the words. So what still comes is read and dropped,
/// at most `most` bytes of it, until the peer has closed its side, for at most [`DISMISSAL_TIMEOUT`].
pub(crate) async fn dismiss(mut socket: TcpStream, most: u64) {
    let draining = async {
        socket.shutdown().await?;
        copy(&mut (&mut socket).take(most), &mut sink()).await
    };
    // Whatever goes wrong, the connection is over.
    let _ = timeout(DISMISSAL_TIMEOUT, draining).await;
}

/// Hands ciphertext to the socket until `write` has none left and returns 0, and adds the bytes taken
/// to `sent`, also when the socket takes no more for now.
///
/// # Errors
///
/// Those of the socket and of `write`.
pub fn poll_send(
    cx: &mut Context<'_>,
    socket: &TcpStream,
    sent: &mut u64,
    mut write: impl FnMut(&mut dyn Write) -> io::Result<usize>,
) -> Poll<io::Result<()>> {
    loop {
        match write(&mut TrySocket(socket)) {
            Ok(0) => return Poll::Ready(Ok(())),
            Ok(length) => *sent += length as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready!(socket.poll_write_ready(cx))?;
            }
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// The plaintext buffer of a link has no limit, so that a batch is always taken whole.
fn write_all(tls: &mut Connection, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
    if wanted == 0 {
        return Ok(0);
    }
    let written = tls.writer().write_vectored(slices)?;
    if written < wanted {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(written)
}

/// A socket as a blocking-style writer that answers `WouldBlock`.
struct TrySocket<'a>(&'a TcpStream);

impl Write for TrySocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
