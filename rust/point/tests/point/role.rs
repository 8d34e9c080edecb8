//! A role, played by hand on a bare TCP socket.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Role {
    listener: TcpListener,
}

/// One connection of the connection point.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    /// What has been read behind the last head.
    pub(crate) ahead: Vec<u8>,
}

impl Role {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) async fn accept(&self) -> Connection {
        let (socket, _) = self.listener.accept().await.unwrap();
        Connection { socket, ahead: Vec::new() }
    }

    /// Takes a connection and the head of its first request.
    pub(crate) async fn request(&self) -> (Connection, String) {
        let mut connection = self.accept().await;
        let head = connection.head().await;
        (connection, head)
    }
}

impl Connection {
    /// The head of the next request, in lower case but for its first line.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.ahead.split_off(end + 4);
                let head = String::from_utf8(std::mem::replace(&mut self.ahead, rest)).unwrap();
                let (line, fields) = head.split_once("\r\n").unwrap();
                return format!("{line}\r\n{}", fields.to_ascii_lowercase());
            }
            assert!(self.read().await > 0, "the connection ended within a head");
        }
    }

    /// Reads some more into `ahead`; 0 at the end of the connection, however it ended.
    pub(crate) async fn read(&mut self) -> usize {
        self.socket.read_buf(&mut self.ahead).await.unwrap_or(0)
    }

    /// Reads on until `ahead` ends in `end`.
    pub(crate) async fn read_until(&mut self, end: &[u8]) {
        while !self.ahead.ends_with(end) {
            assert!(self.read().await > 0, "the connection ended too early");
        }
    }

    pub(crate) async fn write(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    /// Answers 200 with this body.
    pub(crate) async fn answer(&mut self, body: &str) {
        let length = body.len();
        self.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")).await;
    }

    /// Waits until the other end closes the connection.
    pub(crate) async fn closed(&mut self) {
        while self.read().await > 0 {}
    }
}
