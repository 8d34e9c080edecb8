//! A client that speaks raw bytes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Sends `request` and reads one answer: its head, and its body by `Content-Length` or chunks.
pub(crate) async fn exchange(
    client: &mut TlsStream<TcpStream>,
    request: impl AsRef<[u8]>,
) -> (String, String) {
    client.write_all(request.as_ref()).await.unwrap();
    client.flush().await.unwrap();
    read_answer(client).await
}

/// Reads one answer, as [`exchange`] does.
pub(crate) async fn read_answer(client: &mut TlsStream<TcpStream>) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("a whole head"));
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map(|length| length.parse::<usize>().unwrap());
    let mut body = Vec::new();
    if let Some(length) = length {
        body.resize(length, 0);
        client.read_exact(&mut body).await.unwrap();
    } else if head.contains("transfer-encoding: chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(client.read_u8().await.expect("a whole body"));
        }
    }
    (head, String::from_utf8(body).unwrap())
}

/// A request for `path` without a body.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Whether the connection ends without another byte.
pub(crate) async fn ends(client: &mut TlsStream<TcpStream>) -> bool {
    client.read_u8().await.is_err()
}
