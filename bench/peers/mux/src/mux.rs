//! What a multiplexer is to a measurement.

use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;

/// One way to carry streams over one connection. Its ends need not be alike.
pub(crate) trait Peer: 'static {
    /// Whether the end that accepts the connection is the one that opens streams.
    const ACCEPTOR_OPENS: bool = false;
    /// Whether the connection is UDP instead of TCP.
    const DATAGRAMS: bool = false;

    type Listener: Send;

    /// Listens on a free port of loopback.
    fn bind() -> Result<(Self::Listener, SocketAddr)>;
    async fn accept(listener: Self::Listener) -> Result<impl Mux>;
    async fn dial(address: SocketAddr) -> Result<impl Mux>;
}

/// One end of a connection; its driver runs on the same thread.
pub(crate) trait Mux: 'static {
    type Tx: Tx;
    type Rx: Rx;

    async fn open(&self) -> Result<(Self::Tx, Self::Rx)>;
    async fn accept(&self) -> Result<(Self::Tx, Self::Rx)>;
}

pub(crate) trait Tx: 'static {
    /// Writes all of `data`, and the end of the stream behind it if it is the `last`.
    async fn write(&mut self, data: Bytes, last: bool) -> Result<()>;
}

pub(crate) trait Rx: 'static {
    /// Waits for bytes and says how many have been taken; 0 at the end. Those whose interface
    /// demands a buffer read into `scratch`.
    async fn read(&mut self, scratch: &mut [u8]) -> Result<usize>;
}
