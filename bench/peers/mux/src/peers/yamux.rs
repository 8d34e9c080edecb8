//! rust-yamux, the multiplexer of libp2p.

use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::task::Poll;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::io::{ReadHalf, WriteHalf};
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::spawn_local;
use tokio_util::compat::TokioAsyncReadCompatExt;
use yamux::{Config, Connection, Mode, Stream};

use crate::mux::{Mux, Peer, Rx, Tx};
use crate::tls;

pub(crate) struct Yamux;

pub(crate) struct End {
    opens: mpsc::UnboundedSender<oneshot::Sender<Stream>>,
    accepted: Mutex<mpsc::UnboundedReceiver<Stream>>,
}

impl Peer for Yamux {
    type Listener = TcpListener;

    fn bind() -> Result<(TcpListener, SocketAddr)> {
        super::listen()
    }

    async fn accept(listener: TcpListener) -> Result<impl Mux> {
        Ok(End::start(tls::accept(listener, b"yamux").await?.compat(), Mode::Server))
    }

    async fn dial(address: SocketAddr) -> Result<impl Mux> {
        Ok(End::start(tls::dial(address, b"yamux").await?.compat(), Mode::Client))
    }
}

impl End {
    fn start(socket: impl AsyncRead + AsyncWrite + Unpin + 'static, mode: Mode) -> Self {
        let mut config = Config::default();
        config.set_max_connection_receive_window(None);
        config.set_max_num_streams(100_000);
        let mut connection = Connection::new(socket, config, mode);
        let (opens, mut wanted) = mpsc::unbounded_channel::<oneshot::Sender<Stream>>();
        let (accept, accepted) = mpsc::unbounded_channel();
        spawn_local(async move {
            let mut opening = None;
            poll_fn(|cx| {
                loop {
                    if opening.is_none()
                        && let Poll::Ready(Some(want)) = wanted.poll_recv(cx)
                    {
                        opening = Some(want);
                    }
                    if opening.is_some()
                        && let Poll::Ready(Ok(stream)) = connection.poll_new_outbound(cx)
                    {
                        let _ = opening.take().map(|want| want.send(stream));
                        continue;
                    }
                    match connection.poll_next_inbound(cx) {
                        Poll::Ready(Some(Ok(stream))) => drop(accept.send(stream)),
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            })
            .await;
        });
        Self { opens, accepted: Mutex::new(accepted) }
    }
}

impl Mux for End {
    type Tx = WriteHalf<Stream>;
    type Rx = ReadHalf<Stream>;

    async fn open(&self) -> Result<(Self::Tx, Self::Rx)> {
        let (want, stream) = oneshot::channel();
        self.opens.send(want)?;
        let (rx, tx) = stream.await?.split();
        Ok((tx, rx))
    }

    async fn accept(&self) -> Result<(Self::Tx, Self::Rx)> {
        let stream = self.accepted.lock().await.recv().await.context("the connection ended")?;
        let (rx, tx) = stream.split();
        Ok((tx, rx))
    }
}

impl Tx for WriteHalf<Stream> {
    async fn write(&mut self, data: Bytes, last: bool) -> Result<()> {
        self.write_all(&data).await?;
        if last {
            self.close().await?;
        }
        Ok(())
    }
}

impl Rx for ReadHalf<Stream> {
    async fn read(&mut self, scratch: &mut [u8]) -> Result<usize> {
        Ok(AsyncReadExt::read(self, scratch).await?)
    }
}
