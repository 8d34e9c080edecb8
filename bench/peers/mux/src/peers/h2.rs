//! HTTP/2 by the h2 crate: a stream is a request with a body and an answer with a body.

use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_local;

use crate::mux::{Mux, Peer, Rx, Tx};
use crate::tls;

const WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
const STREAMS: u32 = 100_000;

pub(crate) struct H2;

pub(crate) struct Client(SendRequest<Bytes>);

pub(crate) struct Server(Mutex<mpsc::UnboundedReceiver<(RecvStream, SendResponse<Bytes>)>>);

pub(crate) struct Body(SendStream<Bytes>);

/// A body that is there, or will be with the answer's head.
pub(crate) enum Incoming {
    Awaited(ResponseFuture),
    Body(RecvStream),
}

impl Peer for H2 {
    type Listener = TcpListener;

    fn bind() -> Result<(TcpListener, SocketAddr)> {
        super::listen()
    }

    async fn accept(listener: TcpListener) -> Result<impl Mux> {
        let mut connection = h2::server::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(STREAMS)
            .handshake(tls::accept(listener, b"h2").await?)
            .await?;
        let (accept, accepted) = mpsc::unbounded_channel();
        spawn_local(async move {
            while let Some(Ok((request, respond))) = connection.accept().await {
                let _ = accept.send((request.into_body(), respond));
            }
        });
        Ok(Server(Mutex::new(accepted)))
    }

    async fn dial(address: SocketAddr) -> Result<impl Mux> {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(STREAMS as usize)
            .handshake(tls::dial(address, b"h2").await?)
            .await?;
        spawn_local(connection);
        Ok(Client(send))
    }
}

impl Mux for Client {
    type Tx = Body;
    type Rx = Incoming;

    async fn open(&self) -> Result<(Body, Incoming)> {
        let request = Request::post("https://localhost/").body(())?;
        let (response, body) = self.0.clone().ready().await?.send_request(request, false)?;
        Ok((Body(body), Incoming::Awaited(response)))
    }

    async fn accept(&self) -> Result<(Body, Incoming)> {
        bail!("an HTTP/2 client accepts nothing")
    }
}

impl Mux for Server {
    type Tx = Body;
    type Rx = Incoming;

    async fn open(&self) -> Result<(Body, Incoming)> {
        bail!("an HTTP/2 server opens nothing")
    }

    async fn accept(&self) -> Result<(Body, Incoming)> {
        let accepted = self.0.lock().await.recv().await;
        let (body, mut respond) = accepted.context("the connection ended")?;
        let answer = respond.send_response(Response::new(()), false)?;
        Ok((Body(answer), Incoming::Body(body)))
    }
}

impl Tx for Body {
    async fn write(&mut self, mut data: Bytes, last: bool) -> Result<()> {
        loop {
            self.0.reserve_capacity(data.len());
            while self.0.capacity() == 0 && !data.is_empty() {
                poll_fn(|cx| self.0.poll_capacity(cx)).await.context("the stream ended")??;
            }
            let piece = data.split_to(self.0.capacity().min(data.len()));
            let is_last = last && data.is_empty();
            if !piece.is_empty() || is_last {
                self.0.send_data(piece, is_last)?;
            }
            if data.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Rx for Incoming {
    async fn read(&mut self, _scratch: &mut [u8]) -> Result<usize> {
        if let Self::Awaited(response) = self {
            *self = Self::Body(response.await?.into_body());
        }
        let Self::Body(body) = self else { bail!("no body") };
        let Some(data) = body.data().await else { return Ok(0) };
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
        Ok(length)
    }
}
