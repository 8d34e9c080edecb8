//! Requests that do not pass: each has its status, its origin and its counter.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::clients::{ends, exchange, get, read_answer};
use crate::world::{World, answer, with_world};

async fn connect(world: &World) {
    world.connect(|stream| answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2", "ok")).await;
}

/// Sends `request` and expects this refusal; says whether the connection goes on.
async fn is_refused(world: &World, request: &[u8], status: &str, code: &str) -> bool {
    let before = world.refusals(code);
    let mut client = world.client(None).await;
    let (head, body) = exchange(&mut client, request).await;
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(head.contains("proxy-status: cmgmux-gateway; error="), "{head}");
    assert!(body.contains(code), "{body}");
    assert_eq!(world.refusals(code), before + 1);
    if head.contains("connection: close") {
        assert!(ends(&mut client).await);
        return false;
    }
    let (head, _) = exchange(&mut client, get("/open")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    true
}

#[test]
fn what_is_not_mapped_or_not_passed_leaves_the_connection_usable() {
    with_world(json!({}), |world| async move {
        connect(&world).await;
        assert!(is_refused(&world, get("/nowhere").as_bytes(), "404", "no-mapping").await);
        assert!(is_refused(&world, get("/openly").as_bytes(), "404", "no-mapping").await);
        let delete = b"DELETE /open HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(is_refused(&world, delete, "405", "method-not-allowed").await);
        assert!(is_refused(&world, get("/closed").as_bytes(), "403", "certificate-missing").await);
    });
}

#[test]
fn a_certificate_of_a_strange_ca_opens_nothing() {
    with_world(json!({}), |world| async move {
        connect(&world).await;
        let mut client = world.client(Some("stranger")).await;
        let (head, body) = exchange(&mut client, get("/closed")).await;
        assert!(
            head.starts_with("HTTP/1.1 403") && body.contains("certificate-untrusted"),
            "{body}"
        );
        assert!(exchange(&mut client, get("/open")).await.0.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn malformed_and_ambiguous_requests_end_the_connection() {
    with_world(json!({}), |world| async move {
        connect(&world).await;
        let post = |fields: &str| format!("POST /open HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let both = post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n");
        let twice = post("Content-Length: 3\r\nContent-Length: 4\r\n");
        let long = post(&format!("X: {}\r\n", "x".repeat(17_000)));
        for (request, status, code) in [
            ("nonsense\r\n\r\n".to_owned(), "400", "bad-head"),
            (both, "400", "ambiguous-framing"),
            (twice, "400", "ambiguous-framing"),
            (long, "431", "head-too-large"),
            ("GET /open HTTP/1.0\r\nHost: x\r\n\r\n".to_owned(), "505", "version-not-supported"),
            (post("Expect: wonders\r\nContent-Length: 1\r\n"), "417", "expectation-failed"),
        ] {
            assert!(!is_refused(&world, request.as_bytes(), status, code).await, "{request}");
        }
    });
}

#[test]
fn a_body_over_its_limit_is_refused_declared_or_not() {
    with_world(json!({}), |world| async move {
        connect(&world).await;
        let declared = "POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100001\r\n\r\n";
        assert!(!is_refused(&world, declared.as_bytes(), "413", "body-too-large").await);
        let mut chunked =
            b"POST /open HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_vec();
        for _ in 0..11 {
            chunked.extend_from_slice(b"2710\r\n");
            chunked.extend_from_slice(&[b'x'; 10_000]);
            chunked.extend_from_slice(b"\r\n");
        }
        assert!(!is_refused(&world, &chunked, "413", "body-too-large").await);
        let torn =
            b"POST /open HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
        assert!(!is_refused(&world, torn, "400", "bad-body").await);
    });
}

#[test]
fn without_a_connection_point_a_client_is_told_when_to_come_back() {
    with_world(json!({}), |world| async move {
        let channel = world.connect(|stream| answer(stream, "HTTP/1.1 204 No Content", "")).await;
        channel.close(cmgmux_net::CloseCode::SHUTDOWN, "the test is over");
        channel.ended().await;
        let mut client = world.client(None).await;
        let (head, body) = exchange(&mut client, get("/open")).await;
        assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 5"), "{head}");
        assert!(body.contains("NYC"), "{body}");
    });
}

#[test]
fn slow_clients_are_told_or_closed() {
    let settings = json!({"head_timeout_s": 1.5, "stall_timeout_s": 1.5, "idle_timeout_s": 1.5});
    with_world(settings, |world| async move {
        connect(&world).await;
        let mut slow_head = world.client(None).await;
        slow_head.write_all(b"GET /open HTTP/1.1\r\n").await.unwrap();
        assert!(read_answer(&mut slow_head).await.0.starts_with("HTTP/1.1 408"));
        let mut slow_body = world.client(None).await;
        let half = "POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf";
        let (head, body) = exchange(&mut slow_body, half).await;
        assert!(head.starts_with("HTTP/1.1 408") && body.contains("body-timeout"), "{head}");
        let mut idle = world.client(None).await;
        exchange(&mut idle, get("/open")).await;
        assert!(ends(&mut idle).await);
    });
}
