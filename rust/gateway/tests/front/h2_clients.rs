//! The front over HTTP/2.

use std::rc::Rc;

use bytes::Bytes;
use cmgmux_net::{End, Incoming, StreamCode, StreamError};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::world::{World, answer, with_world};

/// A connection that is driven beside the test.
async fn connect(world: &World, certificate: Option<&str>) -> SendRequest<Bytes> {
    let (send, connection) =
        h2::client::handshake(world.h2_client(certificate).await).await.unwrap();
    spawn_local(async move { drop(connection.await) });
    send.ready().await.unwrap()
}

fn request(method: &str, path: &str) -> Request<()> {
    let uri = format!("https://localhost{path}");
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

/// Sends a request with a body and reads the answer's head.
async fn ask(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    body: &[u8],
) -> Response<RecvStream> {
    let mut client = client.clone().ready().await.unwrap();
    let (response, mut send) = client.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        send.send_data(Bytes::copy_from_slice(body), true).unwrap();
    }
    response.await.unwrap()
}

async fn text(body: &mut RecvStream) -> Result<String, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(String::from_utf8(all).unwrap())
}

/// Reads what comes and answers nothing.
async fn ignore(mut stream: Incoming) {
    while let Ok(Some(_)) = stream.recv.chunk().await {}
}

/// Reads the request's body and sends it back.
async fn echo(stream: Incoming) {
    let Incoming { mut send, mut recv, .. } = stream;
    let head = recv.chunk().await.unwrap().unwrap();
    assert!(head.data.starts_with(b"POST /open"), "{head:?}");
    send.send(Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\n"), End::Part).unwrap();
    while let Some(chunk) = recv.chunk().await.unwrap() {
        send.write(chunk.data, End::None).await.unwrap();
    }
    send.write(Bytes::new(), End::Stream).await.unwrap();
}

#[test]
fn a_connection_carries_many_requests_at_a_time() {
    with_world(json!({}), |world| async move {
        world.connect(echo).await;
        let client = connect(&world, None).await;
        let asking = (0..20).map(|number| {
            let client = client.clone();
            spawn_local(async move {
                let body = format!("{number}-").repeat(10_000);
                let mut response = ask(&client, request("POST", "/open"), body.as_bytes()).await;
                assert_eq!(response.status(), 200);
                assert!(response.headers().contains_key("date"));
                assert_eq!(text(response.body_mut()).await.unwrap(), body);
            })
        });
        for task in asking.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
}

#[test]
fn the_certificate_of_the_connection_counts_for_each_request() {
    with_world(json!({}), |world| async move {
        world
            .connect(|mut stream| async move {
                let head = stream.recv.chunk().await.unwrap().unwrap();
                let head = String::from_utf8(head.data.to_vec()).unwrap();
                assert!(head.contains("\r\nhost: localhost\r\n"), "{head}");
                assert!(head.contains("client-cert: :") && head.contains("client-17"), "{head}");
                answer(stream, "HTTP/1.1 204 No Content", "").await;
            })
            .await;
        let client = connect(&world, Some("client")).await;
        for _ in 0..2 {
            assert_eq!(ask(&client, request("GET", "/closed"), b"").await.status(), 204);
        }
        let stranger = connect(&world, Some("stranger")).await;
        assert_eq!(ask(&stranger, request("GET", "/closed"), b"").await.status(), 403);
    });
}

#[test]
fn refusals_are_those_of_http_1_1_and_leave_the_connection_usable() {
    with_world(json!({}), |world| async move {
        world.connect(echo).await;
        let client = connect(&world, None).await;
        let with = |name: &str, value: &str| {
            let mut request = request("POST", "/open");
            request.headers_mut().insert(
                http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
            request
        };
        for (request, status, code) in [
            (request("GET", "/nowhere"), 404, "no-mapping"),
            (request("DELETE", "/open"), 405, "method-not-allowed"),
            (request("GET", "/closed"), 403, "certificate-missing"),
            (request("GET", "/open/%2f"), 400, "bad-target"),
            (with("x", &"x".repeat(17_000)), 431, "head-too-large"),
            (with("expect", "wonders"), 417, "expectation-failed"),
            (with("host", "other"), 400, "bad-head"),
        ] {
            let mut response = ask(&client, request, b"").await;
            assert_eq!(response.status(), status, "{code}");
            let origin = response.headers()["proxy-status"].to_str().unwrap();
            assert!(origin.starts_with("cmgmux-gateway; error="), "{origin}");
            assert!(text(response.body_mut()).await.unwrap().contains(code), "{code}");
            assert_eq!(world.refusals(code), 1, "{code}");
        }
        assert_eq!(ask(&client, request("POST", "/open"), b"x").await.status(), 200);
    });
}

#[test]
fn a_body_over_its_limit_is_refused_declared_or_not() {
    with_world(json!({}), |world| async move {
        world.connect(ignore).await;
        let client = connect(&world, None).await;
        for declared in [true, false] {
            let mut request = request("POST", "/open");
            if declared {
                request.headers_mut().insert("content-length", 100_001.into());
            }
            let mut client = client.clone().ready().await.unwrap();
            let (response, mut send) = client.send_request(request, false).unwrap();
            let sent = send.send_data(Bytes::from(vec![b'x'; 100_001]), true);
            assert!(sent.is_ok() || declared);
            let mut response = response.await.unwrap();
            let status = response.status();
            assert_eq!(status, 413, "{:?}", text(response.body_mut()).await);
        }
        assert_eq!(world.refusals("body-too-large"), 2);
    });
}

#[test]
fn interim_heads_trailers_and_answers_without_a_body_pass() {
    with_world(json!({}), |world| async move {
        world
            .connect(|mut stream| async move {
                let head = stream.recv.chunk().await.unwrap().unwrap();
                if head.data.starts_with(b"HEAD") {
                    return answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 512", "").await;
                }
                let Incoming { mut send, mut recv, .. } = stream;
                while recv.chunk().await.unwrap().is_some() {}
                for (piece, end) in [
                    ("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", End::Part),
                    ("HTTP/1.1 200 OK\r\n\r\n", End::Part),
                    ("body", End::Part),
                    ("digest: x\r\n\r\n", End::Stream),
                ] {
                    send.write(Bytes::from_static(piece.as_bytes()), end).await.unwrap();
                }
            })
            .await;
        let client = connect(&world, None).await;
        let response = ask(&client, request("HEAD", "/open"), b"").await;
        assert_eq!(response.headers()["content-length"], "512");
        assert!(response.body().is_end_stream());
        let mut response = ask(&client, request("GET", "/open"), b"").await;
        assert_eq!(text(response.body_mut()).await.unwrap(), "body");
        let trailers: HeaderMap = response.body_mut().trailers().await.unwrap().unwrap();
        assert_eq!(trailers["digest"], "x");
    });
}

#[test]
fn an_answer_that_breaks_off_never_looks_complete() {
    with_world(json!({}), |world| async move {
        let has_half = Rc::new(Notify::new());
        let noticed = Rc::clone(&has_half);
        world
            .connect(move |stream| {
                let seen = Rc::clone(&noticed);
                async move {
                    let Incoming { mut send, recv, .. } = stream;
                    send.send(Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\n"), End::Part).unwrap();
                    send.send(Bytes::from_static(b"half"), End::None).unwrap();
                    drop(recv);
                    seen.notified().await;
                    send.reset(StreamCode(0x102));
                }
            })
            .await;
        let client = connect(&world, None).await;
        let mut response = ask(&client, request("GET", "/open"), b"").await;
        assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "half");
        has_half.notify_one();
        let error = text(response.body_mut()).await.expect_err("a clean end");
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(world.refusals("role-broke-off"), 1);
    });
}

#[test]
fn a_client_that_resets_or_leaves_ends_its_streams() {
    with_world(json!({}), |world| async move {
        let mut streams = world.connect_and_hand_over().await;
        let mut client = connect(&world, None).await;
        let (response, mut send) = client.send_request(request("GET", "/held"), true).unwrap();
        let mut stream: Incoming = streams.recv().await.unwrap();
        send.send_reset(Reason::CANCEL);
        let broken = std::future::poll_fn(|cx| stream.send.poll_broken(cx)).await;
        assert_eq!(broken, StreamError::Stopped(StreamCode(0x103)));
        drop((response, send));
        let held =
            client.clone().ready().await.unwrap().send_request(request("GET", "/held"), true);
        let mut stream = streams.recv().await.unwrap();
        drop((held, client));
        let broken = std::future::poll_fn(|cx| stream.send.poll_broken(cx)).await;
        assert_eq!(broken, StreamError::Stopped(StreamCode(0x103)));
    });
}

#[test]
fn stalled_clients_are_told_or_cut() {
    with_world(json!({"stall_timeout_s": 1.5, "idle_timeout_s": 1.5}), |world| async move {
        world.connect(ignore).await;
        let (mut client, connection) =
            h2::client::handshake(world.h2_client(None).await).await.unwrap();
        let connection = spawn_local(connection);
        let (response, _send) = client.send_request(request("POST", "/open"), false).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.status(), 408);
        assert!(text(response.body_mut()).await.unwrap().contains("body-timeout"));
        // Without a request the connection ends.
        drop(connection.await.unwrap());
    });
}

#[test]
fn a_client_that_does_not_read_loses_that_answer_alone() {
    with_world(json!({"stall_timeout_s": 0.3}), |world| async move {
        world
            .connect(|mut stream| async move {
                let head = stream.recv.chunk().await.unwrap().unwrap();
                if head.data.starts_with(b"POST") {
                    return answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2", "ok").await;
                }
                let head = Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\n");
                stream.send.send(head, End::Part).unwrap();
                // As much as it takes, until the gateway gives up.
                while stream.send.ready().await.is_ok() {
                    let noise = Bytes::from_static(&[b'x'; 16_384]);
                    if stream.send.send(noise, End::None).is_err() {
                        break;
                    }
                }
            })
            .await;
        let client = connect(&world, None).await;
        let mut unread = ask(&client, request("GET", "/open"), b"").await;
        let error = loop {
            // Received, and its window not given back.
            match unread.body_mut().data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("a clean end"),
            }
        };
        assert_eq!(error.reason(), Some(Reason::CANCEL));
        assert_eq!(ask(&client, request("POST", "/open"), b"").await.status(), 200);
    });
}
