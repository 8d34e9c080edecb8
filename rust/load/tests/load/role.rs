//! The sample role by plain HTTP.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use cmgmux_load::{RoleConfig, SampleRole};
use cmgmux_net::Service;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::http::{push, receive, request, send};
use crate::{Folder, PATIENCE, await_count, end, start_role};

#[test]
fn a_push_answers_the_poll_of_its_client_only() {
    let role = start_role(json!({}));
    let first = send(role.address(), "GET", "/notifications?client=first", b"");
    let second = send(role.address(), "GET", "/notifications?client=second", b"");
    await_count(&role, "held", 2);

    let pushed = push(role.address(), "second", "wake up");
    assert_eq!((pushed.status, pushed.json()["delivered"].as_u64()), (202, Some(1)));
    let answer = receive(second);
    assert_eq!(answer.status, 200);
    let notification = answer.json();
    assert_eq!(
        (&notification["client"], &notification["message"]),
        (&json!("second"), &json!("wake up"))
    );
    assert!(notification["sent_unix_us"].is_u64(), "{notification}");

    assert_eq!(role.status()["held"], 1);
    assert_eq!(push(role.address(), "first", "you too").status, 202);
    assert_eq!(receive(first).json()["message"], "you too");
    end(&role);
}

#[test]
fn a_push_to_all_reaches_polls_on_every_shard() {
    let role = start_role(json!({ "shards": 2 }));
    let polls: Vec<_> = (0..40)
        .map(|id| send(role.address(), "GET", &format!("/notifications?client={id}"), b""))
        .collect();
    await_count(&role, "held", 40);
    assert_eq!(push(role.address(), "*", "go").json()["delivered"], 40);
    for (id, poll) in polls.into_iter().enumerate() {
        let notification = receive(poll).json();
        assert_eq!(notification["client"], id.to_string());
        assert_eq!(notification["message"], format!("go {id}"));
    }
    assert_eq!(push(role.address(), "*", "go").json()["delivered"], 0);
    end(&role);
}

#[test]
fn a_push_to_nobody_is_refused() {
    let role = start_role(json!({}));
    let refused = push(role.address(), "absent", "hello?");
    assert_eq!((refused.status, refused.json()["client"].as_str()), (404, Some("absent")));
    end(&role);
}

#[test]
fn a_second_poll_supersedes_the_first() {
    let role = start_role(json!({}));
    let first = send(role.address(), "GET", "/notifications?client=a", b"");
    await_count(&role, "held", 1);
    let second = send(role.address(), "GET", "/notifications?client=a", b"");
    assert_eq!(receive(first).status, 409);
    assert_eq!(push(role.address(), "a", "x").status, 202);
    assert_eq!(receive(second).status, 200);
    end(&role);
}

#[test]
fn a_client_that_goes_away_frees_its_place() {
    let role = start_role(json!({ "max_held": 1 }));
    let poll = send(role.address(), "GET", "/notifications?client=a", b"");
    await_count(&role, "held", 1);
    let refused = request(role.address(), "GET", "/notifications?client=b", b"");
    assert_eq!(refused.status, 503);
    assert!(refused.head.to_lowercase().contains("retry-after"), "{}", refused.head);

    drop(poll);
    await_count(&role, "held", 0);
    await_count(&role, "abandoned_total", 1);
    await_count(&role, "open_connections", 0);
    assert_eq!(role.status()["streams_total"], 1);
    end(&role);
}

#[test]
fn a_poll_without_notification_ends_empty() {
    let role = start_role(json!({ "poll_timeout_s": 0.05 }));
    let answer = request(role.address(), "GET", "/notifications?client=a", b"");
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    let status = role.status();
    assert_eq!((&status["held"], &status["abandoned_total"]), (&json!(0), &json!(0)));
    end(&role);
}

#[test]
fn echo_measures_bodies_of_any_length_and_method() {
    let role = start_role(json!({}));
    let body: Vec<u8> = (0..3_000_000_u32).map(|index| index.to_le_bytes()[1]).collect();
    let sha256: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = request(role.address(), "CCM_POST", "/echo", &body);
    let expected = json!({ "method": "CCM_POST", "length": body.len(), "sha256": sha256 });
    assert_eq!(answer.json(), expected);

    let empty = request(role.address(), "POST", "/echo", b"").json();
    let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!((&empty["length"], &empty["sha256"]), (&json!(0), &json!(of_nothing)));
    end(&role);
}

#[test]
fn requests_that_make_no_sense_are_refused_with_a_reason() {
    let role = start_role(json!({}));
    let too_large = vec![b'x'; 16 * 1024 + 1];
    for (method, target, body, status) in [
        ("GET", "/nowhere", &b""[..], 404),
        ("GET", "/notifications", b"", 400),
        ("GET", "/notifications?client=*", b"", 400),
        ("POST", "/notifications?client=a", b"", 405),
        ("GET", "/push?client=a", b"", 405),
        ("POST", "/push", b"x", 400),
        ("POST", "/push?client=a", b"\xff", 400),
        ("POST", "/push?client=a", &too_large, 413),
    ] {
        let answer = request(role.address(), method, target, body);
        assert_eq!(answer.status, status, "{method} {target}");
        assert!(answer.json()["error"].is_string(), "{method} {target}: {}", answer.body);
    }
    end(&role);
}

#[test]
fn the_log_counts_requests_by_endpoint() {
    let role = start_role(json!({}));
    for target in ["/hello", "/hello", "/nowhere"] {
        request(role.address(), "GET", target, b"");
    }
    let log = request(role.address(), "GET", "/log", b"").json();
    let expected = json!({ "bytes": 0, "notifications": 0, "push": 0, "hello": 2, "echo": 0, "log": 1, "other": 1 });
    assert_eq!(log["requests"], expected);
    end(&role);
}

#[test]
fn a_stop_lets_held_polls_finish_within_the_grace() {
    let role = start_role(json!({}));
    let poll = send(role.address(), "GET", "/notifications?client=a", b"");
    // A kept connection, so that the push needs no new one.
    let mut pusher = TcpStream::connect(role.address()).unwrap();
    pusher.set_read_timeout(Some(PATIENCE)).unwrap();
    await_count(&role, "held", 1);
    await_count(&role, "open_connections", 2);
    write!(pusher, "POST /push?client=a HTTP/1.1\r\nHost: role\r\nContent-Length: 4\r\n\r\n")
        .unwrap();
    let address = role.address();
    await_requests(&role, "push", 1);
    role.request_stop(Duration::from_secs(3_600));
    write!(pusher, "last").unwrap();
    assert_eq!(receive(poll).json()["message"], "last");
    assert_eq!(receive(pusher).status, 202, "and then the connection must end");
    role.wait().unwrap();
    assert!(TcpStream::connect(address).is_err(), "a stopped role must not accept");
}

#[test]
fn the_end_of_the_grace_breaks_held_polls_off() {
    let role = start_role(json!({}));
    let mut poll = send(role.address(), "GET", "/notifications?client=a", b"");
    await_count(&role, "held", 1);
    let waiting = thread::spawn(move || {
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut poll, &mut answer).map(|_| answer)
    });
    end(&role);
    assert!(waiting.join().unwrap().is_ok_and(|answer| answer.is_empty()));
}

#[test]
fn the_admin_socket_serves_the_status() {
    let folder = Folder::new();
    let socket = folder.path("role.sock");
    let role = start_role(json!({ "admin_socket": socket }));
    let mut stream = UnixStream::connect(&socket).unwrap();
    write!(stream, "GET /status HTTP/1.1\r\nHost: role\r\n\r\n").unwrap();
    assert_eq!(receive(stream).json(), role.status());
    end(&role);
    assert!(!socket.exists());
}

#[test]
fn role_settings_are_checked_by_name() {
    for (key, value) in [
        ("listen", json!("nowhere")),
        ("shards", json!(0)),
        ("poll_timeout_s", json!(-1.0)),
        ("max_held", json!(0)),
        ("admin_socket", json!("/nonexistent/role.sock")),
    ] {
        let config: RoleConfig = serde_json::from_value(json!({ key: value })).unwrap();
        assert_eq!(SampleRole::start(config).unwrap_err().key, key);
    }
    assert!(serde_json::from_value::<RoleConfig>(json!({ "unknown": 1 })).is_err());
}

#[test]
fn role_defaults_are_what_an_empty_configuration_means() {
    let explicit: RoleConfig = serde_json::from_value(RoleConfig::defaults()).unwrap();
    let implicit: RoleConfig = serde_json::from_value(json!({})).unwrap();
    assert_eq!(format!("{explicit:?}"), format!("{implicit:?}"));
}

fn await_requests(role: &SampleRole, endpoint: &str, expected: u64) {
    let deadline = Instant::now() + PATIENCE;
    while role.status()["requests"][endpoint] != expected {
        assert!(Instant::now() < deadline, "{:#}", role.status());
        thread::yield_now();
    }
}
