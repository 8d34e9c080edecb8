//! Exchanges that pass.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use cmgmux_exchange::code;
use cmgmux_net::{End, Incoming, StreamCode, StreamError};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::clients::{ends, exchange, get, read_answer};
use crate::world::{answer, with_world};

/// Reads a request to its end and gives its bytes.
async fn request_of(stream: &mut Incoming) -> String {
    let mut all = Vec::new();
    while let Some(chunk) = stream.recv.chunk().await.unwrap() {
        all.extend_from_slice(&chunk.data);
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn a_connection_carries_one_request_after_the_other() {
    with_world(json!({}), |world| async move {
        world.connect(|stream| answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2", "ok")).await;
        let mut client = world.client(None).await;
        for _ in 0..3 {
            let (head, body) = exchange(&mut client, get("/open/x")).await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.contains("\r\ndate: ") && !head.contains("proxy-status"), "{head}");
            assert_eq!(body, "ok");
        }
        // Both requests at once, answered in order.
        let both = format!("{}{}", get("/open/1"), get("/open/2"));
        exchange(&mut client, both).await;
        assert_eq!(read_answer(&mut client).await.1, "ok");
    });
}

#[test]
fn the_role_is_told_who_asks_by_fields_that_clients_cannot_set() {
    with_world(json!({}), |world| async move {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let requests = Rc::clone(&seen);
        world
            .connect(move |mut stream| {
                let requests = Rc::clone(&requests);
                async move {
                    let request = request_of(&mut stream).await;
                    requests.borrow_mut().push(request);
                    answer(stream, "HTTP/1.1 204 No Content", "").await;
                }
            })
            .await;
        let forged = "Client-Cert: :AAAA:\r\nCmgmux-Identity: forged\r\nForwarded: for=forged\r\n";
        let request = |path| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{forged}\r\n");
        let mut client = world.client(Some("client")).await;
        let (head, _) = exchange(&mut client, request("/closed")).await;
        assert!(head.starts_with("HTTP/1.1 204"), "{head}");
        exchange(&mut client, request("/open")).await;
        let [closed, open] = &seen.borrow()[..] else { panic!("two requests") };
        assert!(!closed.contains("forged") && !closed.contains(":AAAA:"), "{closed}");
        assert!(closed.contains("client-cert: :") && closed.contains("client-17"), "{closed}");
        assert!(closed.contains("forwarded: for=127.0.0.1"), "{closed}");
        assert!(closed.contains("traceparent: 00-"), "{closed}");
        assert!(!open.contains("forged") && !open.contains("client-cert"), "{open}");
    });
}

#[test]
fn a_body_of_undeclared_length_arrives_whole_in_both_directions() {
    with_world(json!({}), |world| async move {
        world
            .connect(|mut stream| async move {
                let request = request_of(&mut stream).await;
                assert!(request.ends_with("hello world"), "{request}");
                assert!(!request.contains("chunked"), "{request}");
                answer(stream, "HTTP/1.1 200 OK", "as it comes").await;
            })
            .await;
        let mut client = world.client(None).await;
        let request = "POST /open HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
        let (head, body) = exchange(&mut client, request).await;
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        assert_eq!(body, "b\r\nas it comes\r\n0\r\n\r\n");
        exchange(&mut client, request).await;
    });
}

#[test]
fn an_expectation_is_answered_by_the_gateway() {
    with_world(json!({}), |world| async move {
        world.connect(|stream| answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2", "ok")).await;
        let mut client = world.client(None).await;
        let head = "POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\
             Expect: 100-continue\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let mut interim = [0; 25];
        client.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(exchange(&mut client, "abc").await.1, "ok");
    });
}

#[test]
fn a_head_request_gets_the_head_alone() {
    with_world(json!({}), |world| async move {
        world.connect(|stream| answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 512", "")).await;
        let mut client = world.client(None).await;
        let request = "HEAD /open HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        for _ in 0..2 {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            assert!(String::from_utf8(head).unwrap().contains("content-length: 512"));
        }
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
                    send.ready().await.unwrap();
                    // A reset overtakes data that waits, so the client says when it has it.
                    seen.notified().await;
                    send.reset(StreamCode(0x102));
                }
            })
            .await;
        let mut client = world.client(None).await;
        client.write_all(get("/open").as_bytes()).await.unwrap();
        let mut all = Vec::new();
        while !all.ends_with(b"half\r\n") {
            all.push(client.read_u8().await.unwrap());
        }
        has_half.notify_one();
        // The end without a closing alert is an error to a TLS client.
        let end = client.read_to_end(&mut all).await;
        assert!(end.is_err(), "a clean end");
        assert!(all.ends_with(b"4\r\nhalf\r\n"), "more than was sent");
        assert_eq!(world.refusals("role-broke-off"), 1);
    });
}

#[test]
fn i14_an_answer_that_breaks_a_rule_ends_its_exchange_alone() {
    use End::{Part, Stream};
    const EARLY: &str = "HTTP/1.1 103 Early Hints\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";
    const OK_5: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    // With whether the client has the head before the rest comes.
    const ANSWERS: [(&[(&str, End)], bool); 9] = [
        (&[("garbage\r\n\r\n", Stream)], false),
        (&[("", Stream)], false),
        (&[(OK_5, Stream)], false),
        (&[(EARLY, Stream)], false),
        (&[(EARLY, Part); 17], false),
        (&[(OK_5, Part), ("abcdef", Stream)], true),
        (&[(OK_5, Part), ("abcd", Stream)], true),
        (&[(OK, Part), ("a", Part), (OK, Part)], true),
        (&[(OK, Part), ("a", Part), ("b: c\r\n\r\n", Part), ("d", End::None)], true),
    ];
    with_world(json!({}), |world| async move {
        let has_head = Rc::new(Notify::new());
        let noticed = Rc::clone(&has_head);
        world
            .connect(move |mut stream| {
                let noticed = Rc::clone(&noticed);
                async move {
                    let request = request_of(&mut stream).await;
                    let path = request.split(' ').nth(1).unwrap().trim_start_matches("/open/");
                    let Ok(number) = path.parse::<usize>() else {
                        return answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2", "ok").await;
                    };
                    let (pieces, has_begun) = ANSWERS[number];
                    for (place, (data, end)) in pieces.iter().enumerate() {
                        if has_begun && place == 1 {
                            noticed.notified().await;
                        }
                        if stream.send.ready().await.is_err() {
                            break; // refused already
                        }
                        let _ = stream.send.send(Bytes::from_static(data.as_bytes()), *end);
                    }
                    std::future::poll_fn(|cx| stream.send.poll_broken(cx)).await;
                }
            })
            .await;
        let mut canary = world.client(None).await;
        for (number, (_, has_begun)) in ANSWERS.into_iter().enumerate() {
            let mut client = world.client(None).await;
            let request = get(&format!("/open/{number}"));
            client.write_all(request.as_bytes()).await.unwrap();
            if has_begun {
                let mut all = Vec::new();
                while !all.ends_with(b"\r\n\r\n") {
                    all.push(client.read_u8().await.unwrap());
                }
                assert!(all.starts_with(b"HTTP/1.1 200"), "{number}");
                has_head.notify_one();
                // The end without a closing alert is an error to a TLS client.
                assert!(client.read_to_end(&mut all).await.is_err(), "{number}: a clean end");
            } else {
                let (mut head, mut body) = read_answer(&mut client).await;
                while head.starts_with("HTTP/1.1 103") {
                    (head, body) = read_answer(&mut client).await;
                }
                assert!(head.starts_with("HTTP/1.1 502"), "{number}: {head}");
                assert!(body.contains("connection-point-bad-answer"), "{number}: {body}");
            }
            let (_, body) = exchange(&mut canary, get("/open/canary")).await;
            assert_eq!(body, "ok", "{number}");
            assert_eq!(world.refusals("connection-point-bad-answer"), number as u64 + 1);
        }
    });
}

#[test]
fn i9_a_connection_point_that_is_silent_after_the_request_is_given_up() {
    with_world(json!({}), |world| async move {
        let mut streams = world.connect_and_hand_over().await;
        let (mut client, mut stream) = world.ask(&mut streams, &get("/quick")).await;
        let (head, body) = read_answer(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 504") && body.contains("role-silent"), "{head}{body}");
        let broken = std::future::poll_fn(|cx| stream.send.poll_broken(cx)).await;
        assert_eq!(broken, StreamError::Stopped(StreamCode(code::TIMED_OUT)));
        assert_eq!(world.refusals("role-silent"), 1);
    });
}

#[test]
fn a_client_that_leaves_ends_its_stream() {
    with_world(json!({}), |world| async move {
        let mut streams = world.connect_and_hand_over().await;
        let (client, mut stream) = world.ask(&mut streams, &get("/held")).await;
        drop(client);
        let broken = std::future::poll_fn(|cx| stream.send.poll_broken(cx)).await;
        assert_eq!(broken, StreamError::Stopped(StreamCode(0x103)));
    });
}

#[test]
fn an_answer_before_the_end_of_the_body_ends_the_connection_after_it() {
    with_world(json!({}), |world| async move {
        world
            .connect(|stream| async move {
                let Incoming { mut send, recv, .. } = stream;
                recv.stop(StreamCode::CANCELLED);
                let head =
                    Bytes::from_static(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n");
                send.send(head, End::Part).unwrap();
                send.send(Bytes::from_static(b"no"), End::Stream).unwrap();
            })
            .await;
        let mut client = world.client(None).await;
        let request = "POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\npart";
        let (head, body) = exchange(&mut client, request).await;
        assert!(head.starts_with("HTTP/1.1 401") && head.contains("connection: close"), "{head}");
        assert_eq!(body, "no");
        assert!(ends(&mut client).await);
    });
}

const ASK: &str = "GET /held HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

/// Answers a wish to switch with `head`, and then with what the client says until its end.
async fn switch(stream: Incoming, head: &'static str) {
    let Incoming { mut send, mut recv, .. } = stream;
    let asked = recv.chunk().await.unwrap().unwrap();
    assert_eq!(asked.end, End::Part);
    let asked = String::from_utf8(asked.data.to_vec()).unwrap();
    assert!(asked.contains("upgrade: websocket\r\n") && !asked.contains("connection"), "{asked}");
    send.send(Bytes::from_static(head.as_bytes()), End::Part).unwrap();
    while let Some(chunk) = recv.chunk().await.unwrap() {
        send.write(chunk.data, End::None).await.unwrap();
    }
    send.write(Bytes::from_static(b"bye"), End::Stream).await.unwrap();
}

#[test]
fn after_a_switch_bytes_pass_as_they_are_and_each_end_closes_for_itself() {
    // A held mapping has no limit on silence; the other timeouts must not count either.
    with_world(json!({"stall_timeout_s": 1, "head_timeout_s": 1}), |world| async move {
        world
            .connect(|stream| {
                switch(stream, "HTTP/1.1 101 S\r\nupgrade: websocket\r\nx: y\r\n\r\n")
            })
            .await;
        let mut client = world.client(None).await;
        // What follows the head at once is the new protocol's, too.
        let (head, _) = exchange(&mut client, format!("{ASK}\x00early")).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("x: y\r\nconnection: upgrade\r\nupgrade: websocket\r\n"), "{head}");
        let mut echoed = [0; 6];
        client.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"\x00early");
        // It is silent for longer than a client may be that has not switched.
        let mut slow = world.client(None).await;
        slow.write_all(b"GET /open HTTP/1.1\r\n").await.unwrap();
        assert!(read_answer(&mut slow).await.0.starts_with("HTTP/1.1 408"));
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"GET / HTTP/1.1\r\n\r\nbye");
    });
}

#[test]
fn a_role_that_does_not_switch_answers_as_usual() {
    with_world(json!({}), |world| async move {
        world
            .connect(|stream| switch(stream, "HTTP/1.1 403 No\r\ncontent-length: 3\r\n\r\n"))
            .await;
        let mut client = world.client(None).await;
        for _ in 0..2 {
            let (head, body) = exchange(&mut client, ASK).await;
            assert!(head.starts_with("HTTP/1.1 403"), "{head}");
            assert_eq!(body, "bye");
        }
    });
}

#[test]
fn nobody_is_switched_who_did_not_ask() {
    with_world(json!({}), |world| async move {
        let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket";
        world.connect(move |stream| answer(stream, head, "")).await;
        let mut client = world.client(None).await;
        let (head, body) = exchange(&mut client, get("/open")).await;
        assert!(head.starts_with("HTTP/1.1 502"), "{head}");
        assert!(body.contains("connection-point-bad-answer"), "{body}");
    });
}

#[test]
fn a_client_that_leaves_after_a_switch_ends_its_stream() {
    with_world(json!({}), |world| async move {
        let mut streams = world.connect_and_hand_over().await;
        let (mut client, mut stream) = world.ask(&mut streams, ASK).await;
        let head = "HTTP/1.1 101 S\r\nupgrade: websocket\r\n\r\n";
        stream.send.send(Bytes::from_static(head.as_bytes()), End::Part).unwrap();
        assert!(read_answer(&mut client).await.0.starts_with("HTTP/1.1 101"));
        // Without a closing alert, as a machine that loses its network.
        drop(client.into_inner().0);
        let broken = std::future::poll_fn(|cx| stream.send.poll_broken(cx)).await;
        assert_eq!(broken, StreamError::Stopped(StreamCode(0x103)));
    });
}
