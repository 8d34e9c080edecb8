//! Error answers of the connection point itself.

use std::future::poll_fn;

use bytes::Bytes;
use cmgmux_exchange::code;
use cmgmux_net::{End, StreamCode, StreamError};
use http::Method;
use serde_json::json;

use crate::gateway::CLIENT;
use crate::stage::with_stage;

#[test]
fn what_the_gateway_should_not_have_sent_is_refused() {
    with_stage("refused", async |stage| {
        let anonymous = ("cmgmux-identity", "anonymous");
        for (method, target, fields, status, reason) in [
            ("GET", "/elsewhere", &[CLIENT][..], 404, "no-mapping"),
            ("GET", "/mpx", &[CLIENT], 404, "no-mapping"),
            ("GET", "/mp", &[anonymous], 403, "identity-refused"),
            ("GET", "/mp", &[("cmgmux-identity", "certificate;x=1")], 403, "identity-refused"),
            ("GET", "/mp", &[], 403, "identity-refused"),
            ("PUT", "/mp", &[CLIENT], 405, "method-not-allowed"),
        ] {
            let mut exchange = stage.link.open_with(method, target, fields, End::Stream);
            let answer = exchange.answer().await.unwrap();
            assert_eq!(answer.head.status.as_u16(), status, "{method} {target}");
            assert!(answer.text().contains(reason), "{}", answer.text());
            assert!(answer.field("proxy-status").starts_with("cmgmux-connection-point; error="));
            assert_eq!(answer.field("allow").is_empty(), status != 405);
        }
        let refusals = json!({"no-mapping": 2, "identity-refused": 3, "method-not-allowed": 1});
        assert_eq!(stage.point.status()["refusals"], refusals);
    });
}

#[test]
fn a_mapping_for_all_asks_for_no_certificate() {
    with_stage("anonymous", async |stage| {
        let fields = [("cmgmux-identity", "anonymous")];
        let mut exchange = stage.link.open_with("GET", "/open", &fields, End::Stream);
        let (mut connection, head) = stage.role.request().await;
        assert!(head.starts_with("GET /base HTTP/1.1\r\n"), "{head}");
        connection.answer("open").await;
        assert_eq!(exchange.answer().await.unwrap().text(), "open");
    });
}

#[test]
fn a_body_over_the_limit_is_refused_declared_or_not() {
    with_stage("large", async |stage| {
        let mut declared =
            stage.link.open_with("POST", "/small", &[CLIENT, ("content-length", "11")], End::Part);
        let answer = declared.answer().await.unwrap();
        assert_eq!(answer.head.status, 413);
        let stopped = StreamError::Stopped(StreamCode(code::BODY_TOO_LARGE));
        let broken = std::future::poll_fn(|cx| declared.send.poll_broken(cx)).await;
        assert_eq!(broken, stopped);

        let mut streamed = stage.link.open("POST", "/small", End::Part);
        let (mut connection, _) = stage.role.request().await;
        streamed.say(b"0123456789", End::None).await.unwrap();
        streamed.say(b"0", End::None).await.unwrap();
        let answer = streamed.answer().await.unwrap();
        assert_eq!(answer.head.status, 413);
        assert!(answer.text().contains("larger than 10 bytes"), "{}", answer.text());
        let broken = std::future::poll_fn(|cx| streamed.send.poll_broken(cx)).await;
        assert_eq!(broken, stopped);
        connection.closed().await;
        assert!(!connection.ahead.ends_with(b"0\r\n\r\n"), "the request must not look complete");

        let mut exact = stage.link.open("POST", "/small", End::Part);
        exact.say(b"0123456789", End::Stream).await.unwrap();
        let (mut connection, _) = stage.role.request().await;
        connection.read_until(b"0\r\n\r\n").await;
        connection.answer("fits").await;
        assert_eq!(exact.answer().await.unwrap().text(), "fits");
    });
}

#[test]
fn a_body_of_another_length_than_declared_never_looks_complete() {
    with_stage("mismatch", async |stage| {
        let fields = [CLIENT, ("content-length", "5")];
        let mut exchange = stage.link.open_with("POST", "/mp/x", &fields, End::Part);
        exchange.say(b"ab", End::None).await.unwrap();
        let (mut connection, _) = stage.role.request().await;
        exchange.say(b"c", End::Stream).await.unwrap();
        connection.closed().await;
        assert!(connection.ahead.len() < 5);
        assert_eq!(exchange.answer().await.unwrap().head.status, 400);
    });
}

#[test]
fn a_role_that_is_not_there_is_named() {
    with_stage("down", async |stage| {
        let address = stage.role.address();
        drop(stage.role);
        let answer = stage.link.get("/mp/x").await;
        assert_eq!(answer.head.status, 502);
        assert!(answer.text().contains("role-refused"), "{}", answer.text());
        let port = format!("refused by 127.0.0.1, port {}", address.port());
        assert!(answer.text().contains(&port), "{}", answer.text());
        assert!(answer.field("proxy-status").contains("error=connection_refused"));
        let status = stage.point.status();
        assert_eq!(status["upstream"]["connect_failures_total"], 1);
    });
}

#[test]
fn what_is_no_request_resets_the_stream() {
    with_stage("garbage", async |stage| {
        for (text, end, expected) in [
            ("garbage\r\n\r\n", End::Stream, code::BAD_HEAD),
            ("GET /mp/../x HTTP/1.1\r\nhost: h\r\n\r\n", End::Stream, code::BAD_HEAD),
            (
                "GET /mp HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n",
                End::Part,
                code::BAD_HEAD,
            ),
            ("", End::Stream, code::BAD_PARTS),
        ] {
            let bytes = Bytes::from_static(text.as_bytes());
            let mut exchange = stage.link.open_raw(&Method::GET, bytes, end);
            let error = exchange.answer().await.unwrap_err();
            assert_eq!(error, StreamError::Reset(StreamCode(expected)), "{text}");
        }
    });
}

#[test]
fn i9_a_stream_without_a_head_is_given_up_and_told_so() {
    with_stage("headless", async |stage| {
        let (mut piece, mut silent) = {
            let open = |text: &'static str| {
                stage.link.open_raw(&Method::GET, Bytes::from_static(text.as_bytes()), End::None)
            };
            (open("GET /mp HTTP/1.1\r\nho"), open("G"))
        };
        for exchange in [&mut piece, &mut silent] {
            let answer = exchange.answer().await.unwrap();
            assert_eq!(answer.head.status.as_u16(), 408);
            assert!(answer.field("proxy-status").contains("http_request_error"));
            let broken = poll_fn(|cx| exchange.send.poll_broken(cx)).await;
            assert_eq!(broken, StreamError::Stopped(StreamCode(code::TIMED_OUT)));
        }
        assert_eq!(stage.point.status()["refusals"]["head-timeout"], 2);
        assert_eq!(stage.link.get("/elsewhere").await.head.status.as_u16(), 404);
    });
}

#[test]
fn an_error_answer_to_head_has_no_body() {
    with_stage("head", async |stage| {
        let mut exchange = stage.link.open("HEAD", "/elsewhere", End::Stream);
        let answer = exchange.answer().await.unwrap();
        assert_eq!((answer.head.status.as_u16(), answer.text()), (404, ""));
        assert_ne!(answer.field("content-length"), "0");
    });
}
