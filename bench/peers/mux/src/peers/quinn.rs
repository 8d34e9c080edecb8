//! QUIC by quinn.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};

use crate::mux::{Mux, Peer, Rx, Tx};
use crate::tls;

const ALPN: &[u8] = b"bench";
const WINDOW: u32 = 8 << 20;

pub(crate) struct Quinn;

/// The endpoint lives as long as its connection.
pub(crate) struct End(
    Connection,
    #[allow(dead_code, reason = "keeps the connection's driver")] Endpoint,
);

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(100_000))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(8 * WINDOW))
        .send_window(u64::from(8 * WINDOW))
        .max_idle_timeout(Some(Duration::from_secs(60).try_into().expect("short")));
    Arc::new(transport)
}

impl Peer for Quinn {
    const DATAGRAMS: bool = true;

    type Listener = UdpSocket;

    fn bind() -> Result<(UdpSocket, SocketAddr)> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    }

    async fn accept(listener: UdpSocket) -> Result<impl Mux> {
        let tls = Arc::new(tls::server_config(ALPN)?);
        let crypto = QuicServerConfig::try_from(tls)?;
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(transport());
        let config = EndpointConfig::default();
        let endpoint = Endpoint::new(config, Some(server), listener, Arc::new(TokioRuntime))?;
        let connection = endpoint.accept().await.context("no connection")?.await?;
        Ok(End(connection, endpoint))
    }

    async fn dial(address: SocketAddr) -> Result<impl Mux> {
        let tls = Arc::new(tls::client_config(ALPN)?);
        let crypto = QuicClientConfig::try_from(tls)?;
        let mut client = ClientConfig::new(Arc::new(crypto));
        client.transport_config(transport());
        let endpoint = Endpoint::client("127.0.0.1:0".parse()?)?;
        let connection = endpoint.connect_with(client, address, "localhost")?.await?;
        Ok(End(connection, endpoint))
    }
}

impl Mux for End {
    type Tx = SendStream;
    type Rx = RecvStream;

    async fn open(&self) -> Result<(SendStream, RecvStream)> {
        Ok(self.0.open_bi().await?)
    }

    async fn accept(&self) -> Result<(SendStream, RecvStream)> {
        Ok(self.0.accept_bi().await?)
    }
}

impl Tx for SendStream {
    async fn write(&mut self, data: Bytes, last: bool) -> Result<()> {
        self.write_chunk(data).await?;
        if last {
            self.finish()?;
        }
        Ok(())
    }
}

impl Rx for RecvStream {
    async fn read(&mut self, _scratch: &mut [u8]) -> Result<usize> {
        Ok(self.read_chunk(usize::MAX, true).await?.map_or(0, |chunk| chunk.bytes.len()))
    }
}
