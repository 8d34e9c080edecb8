//! Requests whose connection point fails them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cmgmux_net::{Channel, CloseCode, End, Incoming, Service, StreamCode};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use crate::clients::{exchange, get, read_answer};
use crate::world::{World, answer, with_world};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2";

/// Bytes of all requests that were answered, in the order of their answers.
type Log = Rc<RefCell<Vec<String>>>;

/// Connects `cp2`, which answers everything and notes it.
async fn connect_second(world: &World) -> (Channel, Log) {
    let log = Log::default();
    let noted = Rc::clone(&log);
    let channel = world.connect_as("cp2", move |mut stream| {
        let log = Rc::clone(&noted);
        async move {
            let mut request = Vec::new();
            while let Some(chunk) = stream.recv.chunk().await.unwrap() {
                request.extend_from_slice(&chunk.data);
            }
            log.borrow_mut().push(String::from_utf8(request).unwrap());
            answer(stream, OK, "ok").await;
        }
    });
    (channel.await, log)
}

fn refuse(stream: Incoming) {
    stream.recv.stop(StreamCode::REFUSED);
    stream.send.reset(StreamCode::REFUSED);
}

fn post(body: &str) -> String {
    let length = body.len();
    format!("POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn two_connection_points_share_requests_evenly() {
    with_world(json!({}), |world| async move {
        let first = Rc::new(Cell::new(0));
        let counted = Rc::clone(&first);
        world
            .connect(move |stream| {
                counted.set(counted.get() + 1);
                answer(stream, OK, "ok")
            })
            .await;
        let (_channel, second) = connect_second(&world).await;
        let mut client = world.client(None).await;
        for _ in 0..11 {
            exchange(&mut client, get("/open")).await;
        }
        let (first, second) = (first.get(), second.borrow().len());
        assert!(first + second == 11 && first.abs_diff(second) <= 1, "{first} and {second}");
    });
}

#[test]
fn a_refused_request_moves_with_its_body_whatever_its_method() {
    with_world(json!({}), |world| async move {
        world.connect(|stream| async { refuse(stream) }).await;
        let (_channel, log) = connect_second(&world).await;
        let mut client = world.client(None).await;
        for body in ["", "a body", &"x".repeat(40_000)] {
            let (head, _) = exchange(&mut client, post(body)).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        let log = log.borrow();
        assert_eq!(log.len(), 3, "each request is answered once");
        assert!(log.iter().all(|request| request.starts_with("POST /open ")), "{log:?}");
        assert!(log[2].ends_with(&"x".repeat(40_000)));
        assert_eq!(world.moved(), 3);
    });
}

#[test]
fn a_request_that_every_connection_point_refuses_is_told_to_come_back() {
    with_world(json!({}), |world| async move {
        world.connect(|stream| async { refuse(stream) }).await;
        let mut client = world.client(None).await;
        let (head, body) = exchange(&mut client, get("/open")).await;
        assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after"), "{head}");
        assert!(body.contains("connection-point-busy"), "{body}");
        world.connect_as("cp2", |stream| async { refuse(stream) }).await;
        let (head, _) = exchange(&mut client, get("/open")).await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    });
}

/// Sends `request` to a connection point that goes under with it while `cp2` could take it; gives
/// the answer and what `cp2` got.
async fn loses_its_channel(
    world: &World,
    request: &str,
    begin_answer: bool,
) -> (String, Vec<String>) {
    let has_it = Rc::new(Notify::new());
    let noticed = Rc::clone(&has_it);
    let first = world.connect(move |stream| {
        let has_it = Rc::clone(&noticed);
        async move {
            let Incoming { mut send, recv, .. } = stream;
            if begin_answer {
                let head = Bytes::from_static(b"HTTP/1.1 103 Early Hints\r\n\r\n");
                send.send(head, End::Part).unwrap();
            }
            has_it.notify_one();
            std::future::pending::<()>().await;
            drop((send, recv));
        }
    });
    let first = first.await;
    let mut client = world.client(None).await;
    client.write_all(request.as_bytes()).await.unwrap();
    has_it.notified().await;
    if begin_answer {
        let (head, _) = read_answer(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 103"), "{head}");
    }
    let (_second, log) = connect_second(world).await;
    first.close(CloseCode::SHUTDOWN, "the test cuts it off");
    let (head, _) = read_answer(&mut client).await;
    let log = log.borrow().clone();
    (head, log)
}

#[test]
fn a_safe_request_moves_when_its_channel_is_lost() {
    with_world(json!({}), |world| async move {
        for method in ["GET", "PROPFIND", "OPTIONS"] {
            let request = format!("{method} /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let (head, log) = loses_its_channel(&world, &request, false).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            assert_eq!(log.len(), 1, "{log:?}");
        }
        assert_eq!(world.moved(), 3);
    });
}

#[test]
fn without_a_link_a_safe_request_moves_after_a_second_and_another_fails_after_fifteen() {
    with_world(json!({}), |world| async move {
        let mut taken = world.connect_and_hand_over().await;
        let (mut safe, _safe_stream) = world.ask(&mut taken, &get("/open")).await;
        let (mut other, _other_stream) = world.ask(&mut taken, &post("once")).await;
        let (_second, log) = connect_second(&world).await;
        let cut = Instant::now();
        world.cut_first_link();
        let (head, _) = read_answer(&mut safe).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(cut.elapsed() >= Duration::from_secs(1));
        assert_eq!((log.borrow().len(), world.moved()), (1, 1));
        let (head, body) = read_answer(&mut other).await;
        assert!(head.starts_with("HTTP/1.1 502"), "{head}");
        assert!(body.contains("its link was lost and has not been replaced yet"), "{body}");
        assert!(cut.elapsed() >= Duration::from_secs(15));
        assert_eq!((log.borrow().len(), world.moved()), (1, 1), "it is not sent twice");
        assert_eq!(world.channels(), 2, "the channel still waits for a link");
    });
}

#[test]
fn j7_a_channel_that_keeps_more_than_is_allowed_without_a_link_ends_at_once() {
    const ALLOWED: u64 = 1 << 20;
    with_world(json!({"max_detached_bytes": ALLOWED}), |world| async move {
        let mut taken = world.connect_and_hand_over().await;
        let request = post(&"x".repeat(90_000));
        let mut unread = Vec::new();
        for _ in 0..24 {
            unread.push(world.ask(&mut taken, &request).await);
        }
        let queued = || world.gateway.status()["channels"][0]["queued_bytes"].as_u64().unwrap();
        while queued() <= ALLOWED {
            tokio::task::yield_now().await;
        }
        world.cut_first_link();
        for (client, _) in &mut unread {
            let (head, body) = read_answer(client).await;
            assert!(head.starts_with("HTTP/1.1 502"), "{head}");
            assert!(body.contains("too much memory waited for links"), "{body}");
        }
        let status = world.gateway.status();
        assert_eq!(status["channel_ends"]["crowded"], 1);
        assert_eq!(status["detached_bytes"], 0);
        assert_eq!(world.channels(), 0);
    });
}

#[test]
fn what_may_have_been_done_is_not_sent_twice() {
    with_world(json!({}), |world| async move {
        let (head, log) = loses_its_channel(&world, &post("once"), false).await;
        assert!(head.starts_with("HTTP/1.1 502"), "{head}");
        assert!(log.is_empty(), "{log:?}");
        assert_eq!(world.refusals("connection-point-lost"), 1);
    });
}

#[test]
fn an_answer_that_has_begun_is_not_begun_again() {
    with_world(json!({}), |world| async move {
        let (head, log) = loses_its_channel(&world, &get("/held"), true).await;
        assert!(head.starts_with("HTTP/1.1 502"), "{head}");
        assert!(log.is_empty(), "{log:?}");
    });
}
