//! Requests that ask to switch to WebSocket.

use cmgmux_exchange::code;
use cmgmux_exchange::parts::Event;
use cmgmux_net::{End, StreamCode, StreamError};
use tokio::io::AsyncWriteExt;

use crate::role::Connection;
use crate::stage::{Stage, with_stage};

const CONSENT: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
     Upgrade: WebSocket\r\nSec-WebSocket-Accept: y\r\n\r\n";

/// Has a request switch, and gives both ends.
async fn switched(stage: &Stage) -> (crate::gateway::Exchange, Connection) {
    let mut exchange = stage.link.open_switch("/quick/ws");
    let (mut connection, head) = stage.role.request().await;
    assert!(head.starts_with("GET /base/ws HTTP/1.1\r\n"), "{head}");
    for field in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-key: x\r\n"] {
        assert!(head.contains(field), "{head}");
    }
    assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
    // The role's first words come with its consent.
    connection.write(&format!("{CONSENT}hello")).await;
    let head = exchange.head().await.unwrap();
    assert_eq!(head.status, 101);
    assert_eq!(head.fields["upgrade"], "websocket");
    assert_eq!(head.fields["sec-websocket-accept"], "y");
    assert!(!head.fields.contains_key("connection"));
    assert_eq!(exchange.next().await.unwrap(), Some((Some(Event::Data("hello".into())), false)));
    (exchange, connection)
}

#[test]
fn bytes_pass_as_they_are_and_each_end_closes_for_itself() {
    with_stage("switch", async |stage| {
        let (mut exchange, mut connection) = switched(&stage).await;
        exchange.say(b"0\r\n\r\nGET /", End::None).await.unwrap();
        connection.read_until(b"0\r\n\r\nGET /").await;
        exchange.say(b"", End::Stream).await.unwrap();
        connection.closed().await;
        connection.write("last words").await;
        drop(connection);
        let (rest, _) = exchange.rest().await.unwrap();
        assert_eq!(rest, b"last words");
        stage.point.until(|status| status["exchanges"]["open"] == 0).await;
        stage.point.until(|status| status["upstream"]["connections"] == 0).await;
    });
}

#[test]
fn much_passes_both_ways_at_once() {
    with_stage("switch-bulk", async |stage| {
        let (mut exchange, mut connection) = switched(&stage).await;
        let bytes = 3_000_000;
        let noise = vec![b'n'; bytes];
        let (mut reading, mut writing) = connection.socket.split();
        let role = async {
            let copied = tokio::io::copy(&mut reading, &mut writing).await.unwrap();
            writing.shutdown().await.unwrap();
            copied
        };
        let mut send = exchange.send;
        let asking = async {
            for piece in noise.chunks(10_000) {
                send.write(bytes::Bytes::copy_from_slice(piece), End::None).await.unwrap();
            }
            send.write(bytes::Bytes::new(), End::Stream).await.unwrap();
        };
        let mut heard = 0;
        let hearing = async {
            while let Some(chunk) = exchange.recv.chunk().await.unwrap() {
                heard += chunk.data.len();
            }
        };
        let (copied, (), ()) = tokio::join!(role, asking, hearing);
        assert_eq!((copied, heard), (bytes as u64, bytes));
    });
}

#[test]
fn a_role_that_does_not_consent_answers_as_usual() {
    with_stage("switch-refused", async |stage| {
        let mut exchange = stage.link.open_switch("/mp/ws");
        let (mut connection, _) = stage.role.request().await;
        connection.write("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno").await;
        let answer = exchange.answer().await.unwrap();
        assert_eq!((answer.head.status.as_u16(), answer.text()), (403, "no"));
    });
}

#[test]
fn a_switch_to_something_else_is_a_bad_answer() {
    with_stage("switch-else", async |stage| {
        for upgrade in ["", "Upgrade: h2c\r\n"] {
            let mut exchange = stage.link.open_switch("/mp/ws");
            let (mut connection, _) = stage.role.request().await;
            connection
                .write(&format!("HTTP/1.1 101 S\r\nConnection: Upgrade\r\n{upgrade}\r\n"))
                .await;
            let answer = exchange.answer().await.unwrap();
            assert_eq!(answer.head.status, 502);
            assert!(answer.field("proxy-status").contains("cmgmux-connection-point"));
            connection.closed().await;
        }
    });
}

#[test]
fn a_role_that_breaks_after_the_switch_resets_the_stream() {
    with_stage("switch-broken", async |stage| {
        let (mut exchange, connection) = switched(&stage).await;
        // A reset instead of an end.
        connection.socket.set_zero_linger().unwrap();
        drop(connection);
        let error = exchange.rest().await.expect_err("a clean end");
        assert_eq!(error, StreamError::Reset(StreamCode(code::ROLE_BROKEN)));
    });
}

#[test]
fn a_client_that_leaves_after_the_switch_closes_the_roles_connection() {
    with_stage("switch-left", async |stage| {
        let (exchange, mut connection) = switched(&stage).await;
        drop(exchange);
        connection.closed().await;
        stage.point.until(|status| status["exchanges"]["open"] == 0).await;
    });
}
