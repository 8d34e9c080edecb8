//! tokio-yamux, the multiplexer of Tentacle.
//!
//! A stream takes its credit in only while somebody reads it, so whoever writes has to read, too.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, Result};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_local;
use tokio_yamux::session::Session;
use tokio_yamux::{Config, Control, StreamHandle};

use crate::mux::{Mux, Peer, Rx, Tx};
use crate::tls;

pub(crate) struct TokioYamux;

pub(crate) struct End {
    control: Control,
    accepted: Mutex<mpsc::UnboundedReceiver<StreamHandle>>,
}

/// A half of a stream.
pub(crate) struct Half(Rc<RefCell<Whole>>);

struct Whole {
    handle: StreamHandle,
    /// What came while somebody wrote.
    unread: BytesMut,
    ended: bool,
}

impl Peer for TokioYamux {
    type Listener = TcpListener;

    fn bind() -> Result<(TcpListener, SocketAddr)> {
        super::listen()
    }

    async fn accept(listener: TcpListener) -> Result<impl Mux> {
        Ok(End::start(Session::new_server(tls::accept(listener, b"yamux").await?, config())))
    }

    async fn dial(address: SocketAddr) -> Result<impl Mux> {
        Ok(End::start(Session::new_client(tls::dial(address, b"yamux").await?, config())))
    }
}

fn config() -> Config {
    Config { max_stream_count: 100_000, ..Config::default() }
}

impl End {
    fn start(mut session: Session<impl AsyncRead + AsyncWrite + Unpin + 'static>) -> Self {
        let control = session.control();
        let (accept, accepted) = mpsc::unbounded_channel();
        spawn_local(async move {
            while let Some(Ok(stream)) = session.next().await {
                let _ = accept.send(stream);
            }
        });
        Self { control, accepted: Mutex::new(accepted) }
    }
}

fn halves(handle: StreamHandle) -> (Half, Half) {
    let whole = Whole { handle, unread: BytesMut::new(), ended: false };
    let whole = Rc::new(RefCell::new(whole));
    (Half(Rc::clone(&whole)), Half(whole))
}

impl Mux for End {
    type Tx = Half;
    type Rx = Half;

    async fn open(&self) -> Result<(Half, Half)> {
        Ok(halves(self.control.clone().open_stream().await?))
    }

    async fn accept(&self) -> Result<(Half, Half)> {
        let stream = self.accepted.lock().await.recv().await.context("the connection ended")?;
        Ok(halves(stream))
    }
}

impl Whole {
    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<()>> {
        let mut scratch = [0; 1024];
        while !self.ended
            && let Poll::Ready(length) = self.poll_read(cx, &mut scratch)?
        {
            self.unread.extend_from_slice(&scratch[..length]);
        }
        while !data.is_empty() {
            let length = ready!(Pin::new(&mut self.handle).poll_write(cx, data))?;
            data.advance(length);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<usize>> {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.handle).poll_read(cx, &mut buffer))?;
        let length = buffer.filled().len();
        self.ended = length == 0;
        Poll::Ready(Ok(length))
    }
}

impl Tx for Half {
    async fn write(&mut self, mut data: Bytes, last: bool) -> Result<()> {
        poll_fn(|cx| self.0.borrow_mut().poll_write(cx, &mut data)).await?;
        if last {
            poll_fn(|cx| Pin::new(&mut self.0.borrow_mut().handle).poll_shutdown(cx)).await?;
        }
        Ok(())
    }
}

impl Rx for Half {
    async fn read(&mut self, scratch: &mut [u8]) -> Result<usize> {
        poll_fn(|cx| {
            let whole = &mut *self.0.borrow_mut();
            if whole.unread.is_empty() {
                return whole.poll_read(cx, scratch);
            }
            let length = whole.unread.len().min(scratch.len());
            whole.unread.split_to(length).copy_to_slice(&mut scratch[..length]);
            Poll::Ready(Ok(length))
        })
        .await
    }
}
