//! The multiplexers, one adapter each.

pub(crate) mod cmgmux;
pub(crate) mod h2;
pub(crate) mod quinn;
pub(crate) mod tokio_yamux;
pub(crate) mod yamux;

use std::net::{SocketAddr, TcpListener};

use anyhow::Result;

fn listen() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
