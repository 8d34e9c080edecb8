//! What a client gets.

use cmgmux_exchange::code;
use cmgmux_exchange::parts::Event;
use cmgmux_net::{End, StreamCode, StreamError};
use tokio::io::AsyncWriteExt;

use crate::stage::with_stage;

#[test]
fn answers_without_a_body_end_with_their_head() {
    with_stage("bodiless", async |stage| {
        let mut kept = None;
        for (method, text, status, length) in [
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 200, "9"),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
            ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, "9"),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "0"),
        ] {
            let mut exchange = stage.link.open(method, "/mp/x", End::Stream);
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => stage.role.accept().await,
            };
            assert!(connection.head().await.starts_with(method));
            connection.write(text).await;
            let (event, is_last) = exchange.next().await.unwrap().unwrap();
            assert!(is_last, "{text}");
            let Some(Event::Head(head)) = event else {
                panic!("{event:?}");
            };
            assert_eq!(head.status.as_u16(), status);
            let got = head.fields.get("content-length").map_or("", |value| value.to_str().unwrap());
            assert_eq!(got, length, "{text}");
            stage.point.until(|status| status["exchanges"]["open"] == 0).await;
            kept = Some(connection);
        }
    });
}

#[test]
fn interim_answers_pass_as_they_come() {
    with_stage("interim", async |stage| {
        let mut exchange = stage.link.open("GET", "/mp/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        connection.write("HTTP/1.1 100 Continue\r\n\r\n").await;
        for link in ["one", "two"] {
            connection.write(&format!("HTTP/1.1 103 Early Hints\r\nLink: {link}\r\n\r\n")).await;
            let (event, is_last) = exchange.next().await.unwrap().unwrap();
            let Some(Event::Interim(head)) = event else { panic!("{event:?}") };
            assert_eq!((head.status.as_u16(), is_last), (103, false));
            assert_eq!(head.fields["link"], link);
        }
        connection.answer("at last").await;
        assert_eq!(exchange.answer().await.unwrap().text(), "at last");
        let mut next = stage.link.open("GET", "/mp/x", End::Stream);
        connection.head().await;
        connection.write(&"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17)).await;
        for _ in 0..16 {
            assert!(matches!(
                next.next().await.unwrap().unwrap(),
                (Some(Event::Interim(_)), false)
            ));
        }
        assert_eq!(next.answer().await.unwrap().head.status, 502);
        connection.closed().await;
    });
}

#[test]
fn an_answer_without_a_length_ends_with_its_connection() {
    with_stage("until_close", async |stage| {
        let mut exchange = stage.link.open("GET", "/mp/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        connection.write("HTTP/1.0 200 OK\r\nA: b\r\n\r\nall ").await;
        connection.write("of it").await;
        drop(connection);
        let answer = exchange.answer().await.unwrap();
        assert_eq!((answer.text(), answer.field("a")), ("all of it", "b"));
    });
}

#[test]
fn a_role_that_says_more_than_its_answer_is_not_asked_again_on_that_connection() {
    with_stage("talkative", async |stage| {
        let mut exchange = stage.link.open("GET", "/mp/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        connection.write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabHTTP/1.1 200").await;
        assert_eq!(exchange.answer().await.unwrap().text(), "a");
        connection.closed().await;
    });
}

#[test]
fn chunks_and_trailers_pass() {
    with_stage("trailers", async |stage| {
        let mut exchange = stage.link.open("GET", "/mp/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        connection
            .write(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n\
                 3\r\nabc\r\n4\r\ndefg\r\n0\r\nDigest: d\r\nSet-Cookie: c\r\n\r\n",
            )
            .await;
        let answer = exchange.answer().await.unwrap();
        assert_eq!(answer.text(), "abcdefg");
        assert_eq!((answer.field("transfer-encoding"), answer.field("content-length")), ("", ""));
        assert_eq!(answer.trailers.len(), 1);
        assert_eq!(answer.trailers["digest"], "d");
    });
}

#[test]
fn a_client_that_does_not_read_holds_its_role() {
    with_stage("asleep", async |stage| {
        const WHOLE: usize = 48 << 20;
        let mut asleep = stage.link.open("GET", "/mp/asleep", End::Stream);
        let (mut sleeping, _) = stage.role.request().await;
        let pouring = async {
            sleeping.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n")).await;
            for index in 0..WHOLE / 65_536 {
                let byte = u8::try_from(index % 251).unwrap();
                sleeping.socket.write_all(&[byte; 65_536]).await.unwrap();
            }
        };
        let others = async {
            let mut awake = stage.role.accept().await;
            for _ in 0..300 {
                awake.head().await;
                awake.answer("").await;
            }
            awake
        };
        let asking = async {
            asleep.head().await.unwrap();
            for _ in 0..300 {
                stage.link.get("/mp/x").await;
                stage.point.until(|status| status["exchanges"]["open"] == 1).await;
            }
            let passed = stage.point.status()["exchanges"]["response_bytes"].as_u64().unwrap();
            // The stream's window, its send queue, and the piece that was ready when it filled.
            assert!(passed <= 36 * 1024 + 64 * 1024 + 2 * 64 * 1024, "{passed} bytes were taken");
            let (body, _) = asleep.rest().await.unwrap();
            assert_eq!(body.len(), WHOLE);
            let expected = |at: usize| u8::try_from(at / 65_536 % 251).unwrap();
            assert!(body.iter().enumerate().all(|(at, &byte)| byte == expected(at)));
        };
        tokio::join!(pouring, others, asking);
    });
}

#[test]
fn a_role_that_dies_within_its_answer_breaks_the_answer() {
    with_stage("dies", async |stage| {
        for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
            let mut exchange = stage.link.open("GET", "/mp/x", End::Stream);
            let (mut connection, _) = stage.role.request().await;
            connection.write(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n")).await;
            assert_eq!(exchange.head().await.unwrap().status, 200);
            drop(connection);
            let error = exchange.rest().await.unwrap_err();
            assert_eq!(error, StreamError::Reset(StreamCode(code::ROLE_BROKEN)));
        }
        stage.point.until(|status| status["exchanges"]["broken"] == 2).await;
    });
}

#[test]
fn a_role_that_stands_still_within_its_answer_is_given_up() {
    with_stage("stalls", async |stage| {
        let mut exchange = stage.link.open("GET", "/quick/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        connection.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello").await;
        let error = exchange.answer().await.unwrap_err();
        assert_eq!(error, StreamError::Reset(StreamCode(code::TIMED_OUT)));
        connection.closed().await;
    });
}

#[test]
fn a_silent_role_is_given_up_unless_it_may_hold() {
    with_stage("silent", async |stage| {
        let mut held = stage.link.open("GET", "/held/x", End::Stream);
        let (mut holding, _) = stage.role.request().await;
        let mut quick = stage.link.open("GET", "/quick/x", End::Stream);
        let (mut silent, _) = stage.role.request().await;
        let answer = quick.answer().await.unwrap();
        assert_eq!(answer.head.status, 504);
        let proxy_status = answer.field("proxy-status");
        assert!(
            proxy_status.starts_with("cmgmux-connection-point; error=http_response_timeout"),
            "{proxy_status}"
        );
        silent.closed().await;
        holding.answer("at last").await;
        assert_eq!(held.answer().await.unwrap().text(), "at last");
    });
}

#[test]
fn what_is_no_answer_is_not_passed_on() {
    with_stage("bad", async |stage| {
        for (text, words) in [
            ("SSH-2.0-x\r\n\r\n", "role-bad-answer"),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "role-bad-answer"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                "role-bad-answer",
            ),
            (&format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(40_000)), "role-bad-answer"),
            ("HTTP/1.1 200 OK\r\n", "role-broke-off"),
            ("", "role-broke-off"),
        ] {
            let mut exchange = stage.link.open("GET", "/mp/x", End::Stream);
            let (mut connection, _) = stage.role.request().await;
            connection.write(text).await;
            drop(connection);
            let answer = exchange.answer().await.unwrap();
            assert_eq!(answer.head.status, 502, "{text:.40}");
            assert!(answer.text().contains(words), "{text:.40}: {}", answer.text());
        }
    });
}
