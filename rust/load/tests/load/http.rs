//! A blocking HTTP/1.1 client, one request a connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::PATIENCE;

/// An answer: status, head and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Sends a request and leaves the answer to [`receive`].
pub(crate) fn send(address: SocketAddr, method: &str, target: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: role\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream
}

/// Reads an answer to its end.
pub(crate) fn receive(mut stream: impl Read) -> Answer {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Sends a request and waits for its answer.
pub(crate) fn request(address: SocketAddr, method: &str, target: &str, body: &[u8]) -> Answer {
    receive(send(address, method, target, body))
}

/// Pushes `message` to `client`, or to all of them by `*`.
pub(crate) fn push(address: SocketAddr, client: &str, message: &str) -> Answer {
    request(address, "POST", &format!("/push?client={client}"), message.as_bytes())
}
