//! What a role gets.

use cmgmux_net::{End, StreamError};
use tokio::io::AsyncWriteExt;

use crate::gateway::CLIENT;
use crate::stage::with_stage;

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

#[test]
fn a_request_reaches_its_role_and_the_answer_its_client() {
    with_stage("passes", async |stage| {
        let fields = [
            CLIENT,
            ("forwarded", "for=192.0.2.1;host=cmg.example"),
            ("expect", "100-continue"),
            ("range", "bytes=0-"),
        ];
        let mut exchange = stage.link.open_with("GET", "/MP/x%20y?q=%2e", &fields, End::Stream);
        let (mut connection, head) = stage.role.request().await;
        let mut lines: Vec<_> = head.trim_end().split("\r\n").collect();
        lines[1..].sort_unstable();
        let host = format!("host: {}", stage.role.address());
        assert_eq!(
            lines,
            [
                "GET /base/x%20y?q=%2e HTTP/1.1",
                &*format!("{}: {}", CLIENT.0, CLIENT.1.to_ascii_lowercase()),
                "forwarded: for=192.0.2.1;host=cmg.example",
                &*host,
                "range: bytes=0-",
            ]
        );
        connection
            .write("HTTP/1.1 206 Partial\r\nConnection: X-Hop\r\nX-Hop: 1\r\nETag: \"e\"\r\nContent-Length: 5\r\n\r\nhello")
            .await;
        let answer = exchange.answer().await.unwrap();
        assert_eq!((answer.head.status.as_u16(), answer.text()), (206, "hello"));
        assert_eq!((answer.field("content-length"), answer.field("etag")), ("5", "\"e\""));
        assert_eq!((answer.field("x-hop"), answer.field("connection")), ("", ""));
    });
}

#[test]
fn a_connection_to_a_role_serves_one_exchange_after_the_other() {
    with_stage("reuse", async |stage| {
        let serving = async {
            let mut connection = stage.role.accept().await;
            for _ in 0..20 {
                connection.head().await;
                connection.answer("again").await;
            }
            connection
        };
        let asking = async {
            for _ in 0..20 {
                assert_eq!(stage.link.get("/mp/x").await.text(), "again");
                // Kept once the exchange is over, which is a moment after its answer.
                stage.point.until(|status| status["exchanges"]["open"] == 0).await;
            }
        };
        let (_connection, ()) = tokio::join!(serving, asking);
        let status = stage.point.status();
        assert_eq!(
            (&status["upstream"]["connects_total"], &status["upstream"]["connections"]),
            (&1.into(), &1.into())
        );
        assert_eq!(status["mappings"][0]["exchanges_total"], 20);
    });
}

#[test]
fn a_body_of_declared_length_passes_in_both_directions_at_once() {
    with_stage("declared", async |stage| {
        let body = pattern(4_000_000);
        let length = body.len().to_string();
        let mut exchange = stage.link.open_with(
            "POST",
            "/mp/echo",
            &[CLIENT, ("content-length", &length)],
            End::Part,
        );
        let echoing = async {
            let (mut connection, head) = stage.role.request().await;
            assert!(head.contains(&format!("content-length: {length}\r\n")), "{head}");
            assert!(!head.contains("transfer-encoding"), "{head}");
            connection.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).await;
            let mut echoed = 0;
            while echoed < body.len() {
                if connection.ahead.is_empty() {
                    assert!(connection.read().await > 0);
                }
                let piece = std::mem::take(&mut connection.ahead);
                echoed += piece.len();
                connection.socket.write_all(&piece).await.unwrap();
            }
        };
        let asking = async {
            // The stream's two directions are used at once.
            let mut got = Vec::new();
            let mut sent = 0;
            while got.len() < body.len() {
                tokio::select! {
                    room = exchange.send.ready(), if sent < body.len() => {
                        room.unwrap();
                        let end = body.len().min(sent + 10_000);
                        let last = if end == body.len() { End::Stream } else { End::None };
                        let piece = bytes::Bytes::copy_from_slice(&body[sent..end]);
                        exchange.send.send(piece, last).unwrap();
                        sent = end;
                    }
                    else => {}
                }
                if sent == body.len() || sent - got.len() > 200_000 {
                    use cmgmux_exchange::parts::Event;
                    match exchange.next().await.unwrap().unwrap().0 {
                        Some(Event::Data(data)) => got.extend_from_slice(&data),
                        Some(Event::Head(head)) => assert_eq!(head.status, 200),
                        _ => {}
                    }
                }
            }
            assert!(got == body, "the body came back changed");
        };
        tokio::join!(echoing, asking);
        let status = stage.point.until(|status| status["exchanges"]["open"] == 0).await;
        assert_eq!(status["exchanges"]["request_bytes"], 4_000_000);
        assert_eq!(status["exchanges"]["response_bytes"], 4_000_000);
    });
}

#[test]
fn a_request_is_complete_with_its_last_declared_byte() {
    with_stage("last-byte", async |stage| {
        let fields = [CLIENT, ("content-length", "4")];
        let mut exchange = stage.link.open_with("POST", "/mp/x", &fields, End::Part);
        exchange.say(b"some", End::None).await.unwrap();
        let (mut connection, _) = stage.role.request().await;
        connection.read_until(b"some").await;
        connection.answer("first").await;
        assert_eq!(exchange.answer().await.unwrap().text(), "first");
        stage.point.until(|status| status["exchanges"]["open"] == 0).await;
        let mut exchange = stage.link.open("GET", "/mp/x", End::Stream);
        connection.ahead.clear();
        connection.head().await;
        connection.answer("second").await;
        assert_eq!(exchange.answer().await.unwrap().text(), "second");
        assert_eq!(stage.point.status()["upstream"]["connects_total"], 1);
    });
}

#[test]
fn a_body_of_unknown_length_passes_in_chunks_even_with_get() {
    with_stage("chunks", async |stage| {
        for method in ["POST", "GET"] {
            let mut exchange = stage.link.open(method, "/mp/x", End::Part);
            exchange.say(b"hello ", End::None).await.unwrap();
            exchange.say(b"world", End::None).await.unwrap();
            exchange.say(b"", End::Stream).await.unwrap();
            let (mut connection, head) = stage.role.request().await;
            assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
            connection.read_until(b"0\r\n\r\n").await;
            let mut body = Vec::new();
            let mut rest = &connection.ahead[..];
            while let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
                let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16);
                let size = size.unwrap();
                body.extend_from_slice(&rest[at + 2..at + 2 + size]);
                rest = &rest[at + 4 + size..];
            }
            assert_eq!(body, b"hello world");
            connection.write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndone").await;
            drop(connection);
            assert_eq!(exchange.answer().await.unwrap().text(), "done");
        }
    });
}

#[test]
fn a_role_that_does_not_read_holds_its_client() {
    with_stage("unread", async |stage| {
        const WHOLE: usize = 64 << 20;
        let mut exchange = stage.link.open_with(
            "POST",
            "/mp/asleep",
            &[CLIENT, ("content-length", &WHOLE.to_string())],
            End::Part,
        );
        let (_asleep, _) = stage.role.request().await;
        let piece = vec![0; 16_384];
        let mut taken = 0;
        let filling = async {
            loop {
                exchange.say(&piece, End::None).await.unwrap();
                taken += piece.len();
                assert!(taken < WHOLE / 2, "nothing held the client back");
            }
        };
        let others = async {
            let mut awake = stage.role.accept().await;
            for _ in 0..300 {
                awake.head().await;
                awake.answer("awake").await;
            }
            awake
        };
        let asking = async {
            for _ in 0..300 {
                assert_eq!(stage.link.get("/mp/x").await.text(), "awake");
                stage.point.until(|status| status["exchanges"]["open"] == 1).await;
            }
        };
        tokio::select! {
            () = filling => {}
            _ = async { tokio::join!(others, asking) } => {}
        }
    });
}

#[test]
fn an_answer_before_the_end_of_the_request_stops_the_request() {
    with_stage("early", async |stage| {
        let mut exchange = stage.link.open("POST", "/mp/x", End::Part);
        exchange.say(b"some", End::None).await.unwrap();
        let (mut connection, _) = stage.role.request().await;
        connection.write("HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno").await;
        let answer = exchange.answer().await.unwrap();
        assert_eq!((answer.head.status.as_u16(), answer.text()), (401, "no"));
        let broken = std::future::poll_fn(|cx| exchange.send.poll_broken(cx)).await;
        assert!(matches!(broken, StreamError::Stopped(_)), "{broken:?}");
        connection.closed().await;
    });
}

#[test]
fn an_answer_passes_though_the_role_closes_with_the_request_unread() {
    with_stage("unread", async |stage| {
        for _ in 0..100 {
            let mut exchange = stage.link.open("POST", "/mp/x", End::Part);
            let (mut connection, _) = stage.role.request().await;
            let uploading = async {
                // As long as anybody takes it.
                while exchange.say(&[7; 16_384], End::None).await.is_ok() {}
            };
            let refusing = async {
                connection.read().await;
                connection.write("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno").await;
                // With what it has not read, so that the kernel resets the connection.
                drop(connection);
            };
            tokio::join!(uploading, refusing);
            let answer = exchange.answer().await.unwrap();
            assert_eq!((answer.head.status.as_u16(), answer.text()), (413, "no"));
        }
    });
}

#[test]
fn a_role_that_closes_a_kept_connection_is_asked_again_if_that_is_safe() {
    with_stage("stale", async |stage| {
        for (method, status) in [("GET", 200), ("POST", 502)] {
            let serving = async {
                let (mut connection, _) = stage.role.request().await;
                connection.answer("first").await;
                // Closes at the sight of the next request.
                connection.head().await;
                drop(connection);
                if method == "GET" {
                    let (mut connection, _) = stage.role.request().await;
                    connection.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nsecond").await;
                }
            };
            let asking = async {
                assert_eq!(stage.link.get("/mp/1").await.text(), "first");
                stage.point.until(|status| status["exchanges"]["open"] == 0).await;
                let answer = stage.link.open(method, "/mp/2", End::Stream).answer().await.unwrap();
                assert_eq!(answer.head.status.as_u16(), status);
                if status == 502 {
                    assert!(answer.text().contains("role-broke-off"), "{}", answer.text());
                }
            };
            tokio::join!(serving, asking);
            stage.point.until(|status| status["upstream"]["connections"] == 0).await;
        }
    });
}
