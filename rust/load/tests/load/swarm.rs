//! The swarm against the sample role, and against gateways that misbehave.

use std::net::TcpListener;
use std::time::Duration;

use cmgmux_load::{Kind, Swarm, SwarmConfig, SwarmReport};
use cmgmux_net::Service;
use serde_json::{Value, json};

use crate::gateway::{Behaviour, Gateway};
use crate::http::push;
use crate::{await_count, end, start_role};

/// `settings` with some of them replaced.
fn with(mut settings: Value, changes: Value) -> Value {
    let (Value::Object(settings_map), Value::Object(changes)) = (&mut settings, changes) else {
        panic!("settings are objects");
    };
    settings_map.extend(changes);
    settings
}

fn start_swarm(settings: Value) -> Swarm {
    let config: SwarmConfig = serde_json::from_value(settings).unwrap();
    Swarm::start(config).unwrap()
}

/// The report of a swarm of three that runs until it ends by itself.
fn outcome(gateway: &Gateway, changes: Value) -> SwarmReport {
    let swarm = start_swarm(with(with(gateway.swarm_settings(), json!({ "clients": 3 })), changes));
    swarm.wait().unwrap();
    swarm.report()
}

fn assert_only_reason(report: &SwarmReport, words: &str, clients: u64) {
    let reasons: Vec<_> = report.reasons.iter().collect();
    assert!(
        matches!(&reasons[..], [(reason, count)] if reason.contains(words) && **count == clients),
        "expected {clients} times {words:?}: {reasons:?}"
    );
}

#[test]
fn two_hundred_clients_all_get_their_own_message() {
    let role = start_role(json!({}));
    let gateway = Gateway::start(Behaviour::Forward(role.address()));
    let settings = with(
        gateway.swarm_settings(),
        json!({
            "clients": 200,
            "first_client": 1_000,
            "shards": 2,
            "certificate": gateway.folder.path("client.pem"),
            "key": gateway.folder.path("client.key"),
        }),
    );
    let swarm = start_swarm(settings);
    await_count(&role, "held", 200);
    assert_eq!(swarm.status()["phase"], "holding");
    assert_eq!(push(role.address(), "1199", "just you").status, 202);
    assert_eq!(push(role.address(), "*", "everybody").json()["delivered"], 199);

    swarm.wait().unwrap();
    let report = swarm.report();
    assert_eq!((report.clients, report.answered, report.messages), (200, 200, 200));
    assert_eq!((report.wrong, report.failed, report.stopped), (0, 0, 0), "{report:?}");
    assert!(report.connect_s.is_some_and(|connected| connected <= report.elapsed_s));
    assert!(report.answer_times.is_some_and(|times| times.min_s <= times.max_s));
    assert_eq!(swarm.status()["phase"], "ended");
    assert_eq!((gateway.connections(), gateway.with_certificate()), (200, 200));
    end(&role);
}

#[test]
fn a_killed_swarm_frees_the_places_of_the_role() {
    let role = start_role(json!({}));
    let gateway = Gateway::start(Behaviour::Forward(role.address()));
    let swarm = start_swarm(with(gateway.swarm_settings(), json!({ "clients": 20 })));
    await_count(&role, "held", 20);
    end(&swarm);
    assert_eq!(swarm.report().stopped, 20);
    await_count(&role, "abandoned_total", 20);
    await_count(&role, "held", 0);
    end(&role);
}

#[test]
fn several_polls_go_over_one_connection() {
    let role = start_role(json!({}));
    let gateway = Gateway::start(Behaviour::Forward(role.address()));
    let settings = json!({ "clients": 10, "messages_per_client": 3 });
    let swarm = start_swarm(with(gateway.swarm_settings(), settings));
    for round in 1..=3 {
        await_count(&role, "streams_total", round * 10);
        await_count(&role, "held", 10);
        assert_eq!(push(role.address(), "*", "again").json()["delivered"], 10);
    }
    swarm.wait().unwrap();
    let report = swarm.report();
    assert_eq!((report.answered, report.messages, gateway.connections()), (10, 30, 10));
    end(&role);
}

#[test]
fn an_endless_swarm_polls_until_it_is_stopped() {
    let role = start_role(json!({}));
    let gateway = Gateway::start(Behaviour::Forward(role.address()));
    let settings = json!({ "clients": 5, "messages_per_client": 0 });
    let swarm = start_swarm(with(gateway.swarm_settings(), settings));
    for round in 1..=3 {
        await_count(&role, "streams_total", round * 5);
        await_count(&role, "held", 5);
        push(role.address(), "*", "again");
        await_count(&swarm, "messages", round * 5);
    }
    await_count(&role, "held", 5);
    // Within the grace the clients get the answers that they wait for, but poll no more.
    swarm.request_stop(Duration::from_secs(60));
    assert_eq!(push(role.address(), "*", "last").json()["delivered"], 5);
    swarm.wait().unwrap();
    let report = swarm.report();
    assert_eq!((report.answered, report.stopped, report.messages), (0, 5, 20));
    assert_eq!(role.status()["streams_total"], 20);
    end(&role);
}

#[test]
fn empty_polls_are_repeated() {
    let role = start_role(json!({ "poll_timeout_s": 0.05 }));
    let gateway = Gateway::start(Behaviour::Forward(role.address()));
    let swarm = start_swarm(with(gateway.swarm_settings(), json!({ "clients": 1 })));
    while swarm.report().empty_polls < 2 {
        assert_eq!(swarm.report().failed, 0, "{:?}", swarm.report());
        std::thread::yield_now();
    }
    while push(role.address(), "0", "at last").status != 202 {}
    swarm.wait().unwrap();
    assert_eq!(swarm.report().answered, 1);
    end(&role);
}

#[test]
fn a_gateway_of_another_authority_is_refused_in_words() {
    let gateway = Gateway::start(Behaviour::Mute);
    let report = outcome(&gateway, json!({ "ca": gateway.folder.path("other-ca.pem") }));
    assert_eq!(report.failed, 3);
    assert_only_reason(&report, "not issued by a trusted CA", 3);
}

#[test]
fn a_gateway_of_another_name_is_refused_in_words() {
    let gateway = Gateway::start(Behaviour::Mute);
    let report = outcome(&gateway, json!({ "server_name": "other.test" }));
    assert_only_reason(&report, "not valid for other.test", 3);
}

#[test]
fn each_kind_of_stream_gets_its_messages() {
    let role = start_role(json!({ "shards": 2 }));
    let gateway = Gateway::start(Behaviour::Forward(role.address()));
    let settings = json!({
        "clients": 30,
        "kinds": ["long-poll", "sse", "websocket"],
        "messages_per_client": 3,
        "shards": 2,
    });
    let swarm = start_swarm(with(gateway.swarm_settings(), settings));
    for round in 1..=3 {
        await_count(&role, "held", 30);
        await_count(&swarm, "holding", 30);
        assert_eq!(push(role.address(), "*", "to all").json()["delivered"], 30);
        await_count(&swarm, "messages", round * 30);
    }
    swarm.wait().unwrap();
    let report = swarm.report();
    assert_eq!((report.answered, report.messages), (30, 90), "{report:?}");
    let kinds: Vec<_> =
        report.kinds.iter().map(|(kind, of)| (*kind, of.clients, of.messages)).collect();
    assert_eq!(kinds, [(Kind::LongPoll, 10, 30), (Kind::Sse, 10, 30), (Kind::WebSocket, 10, 30)]);
    assert_eq!(report.notification_latency.total(), 90);
    let in_timeline = report.timeline.iter().map(|point| point.messages).sum::<u64>();
    assert_eq!(in_timeline, 90);
    await_count(&role, "held", 0);
    end(&role);
}

#[test]
fn a_stream_of_each_kind_that_is_refused_names_its_origin() {
    for kind in ["sse", "websocket"] {
        let answer = "HTTP/1.1 503 No\r\nProxy-Status: cmgmux-gateway\r\nContent-Length: 0\r\n\r\n";
        let gateway = Gateway::start(Behaviour::Say(answer.to_owned()));
        let report = outcome(&gateway, json!({ "kinds": [kind] }));
        assert_eq!(report.wrong, 3, "{report:?}");
        assert_only_reason(&report, "status 503 (cmgmux-gateway)", 3);
    }
}

#[test]
fn a_stream_that_ends_before_its_messages_has_failed() {
    let message = |client: u8| format!("data: {{\"client\":\"{client}\",\"message\":\"go\"}}\n\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    let gateway = Gateway::start(Behaviour::Say(format!("{head}{}", message(0))));
    let report =
        outcome(&gateway, json!({ "kinds": ["sse"], "clients": 1, "messages_per_client": 2 }));
    assert_eq!((report.failed, report.messages), (1, 1));
    assert_only_reason(&report, "the stream ended, with more messages to come", 1);
    let report = outcome(&gateway, json!({ "kinds": ["sse"], "clients": 1, "first_client": 5 }));
    assert_only_reason(&report, "another client", 1);
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let gateway = Gateway::start(Behaviour::Say(switch.to_owned()));
    let report = outcome(&gateway, json!({ "kinds": ["websocket"], "clients": 1 }));
    assert_only_reason(&report, "websocket: ", 1);
}

#[test]
fn requests_are_sent_beside_the_streams_until_these_end() {
    let role = start_role(json!({}));
    let gateway = Gateway::start(Behaviour::Forward(role.address()));
    let settings = json!({
        "clients": 3,
        "requests_per_s": 500.0,
        "request_path": "/hello",
        "request_connections": 2,
    });
    let swarm = start_swarm(with(gateway.swarm_settings(), settings));
    let requests = |status: serde_json::Value| status["requests"]["answered"].as_u64();
    while requests(swarm.status()) < Some(20) {
        assert_eq!(swarm.status()["requests"]["failed"], 0, "{:#}", swarm.status());
        std::thread::yield_now();
    }
    assert_eq!(push(role.address(), "*", "end").json()["delivered"], 3);
    swarm.wait().unwrap();
    let report = swarm.report();
    let requests = report.requests.unwrap();
    assert_eq!((report.answered, requests.failed), (3, 0), "{requests:?}");
    assert!(requests.due >= requests.sent && requests.sent >= requests.answered);
    assert_eq!(requests.latency.total(), requests.answered);
    assert_eq!(gateway.connections(), 5);
    end(&role);
}

#[test]
fn requests_alone_end_after_their_duration() {
    let role = start_role(json!({}));
    let gateway = Gateway::start(Behaviour::Forward(role.address()));
    let settings = json!({
        "clients": 0,
        "requests_per_s": 200.0,
        "request_path": "/bytes?n=100000",
        "duration_s": 0.5,
    });
    let swarm = start_swarm(with(gateway.swarm_settings(), settings));
    swarm.wait().unwrap();
    let requests = swarm.report().requests.unwrap();
    assert_eq!((requests.due, requests.failed), (100, 0), "{requests:?}");
    end(&role);
}

#[test]
fn latency_runs_from_the_time_due_even_if_the_request_left_later() {
    let role = start_role(json!({}));
    let gateway = Gateway::start(Behaviour::Forward(role.address()));
    // Each request is held until a push, all on one connection, ten milliseconds apart.
    let settings = json!({
        "clients": 0,
        "requests_per_s": 100.0,
        "request_path": "/notifications?client=x",
        "request_connections": 1,
    });
    let swarm = start_swarm(with(gateway.swarm_settings(), settings));
    while swarm.status()["requests"]["due"].as_u64() < Some(51) {
        std::thread::yield_now();
    }
    // At least half a second after the first was due.
    for answered in 1..=2 {
        await_count(&role, "held", 1);
        assert_eq!(push(role.address(), "x", "go").status, 202);
        while swarm.status()["requests"]["answered"].as_u64() < Some(answered) {
            std::thread::yield_now();
        }
    }
    end(&swarm);
    let requests = swarm.report().requests.unwrap();
    assert_eq!(requests.latency.at_least(Duration::from_millis(450)), 2, "{requests:?}");
    assert!(requests.generator_lag.total() <= 1, "only the first found its connection free");
    end(&role);
}

#[test]
fn a_stall_counts_for_every_request_that_was_due_meanwhile() {
    // One connection whose server never answers: all that is due waits for it.
    let gateway = Gateway::start(Behaviour::Mute);
    let settings = json!({
        "clients": 0,
        "requests_per_s": 100.0,
        "request_path": "/hello",
        "request_connections": 1,
        "response_timeout_s": 0.5,
        "duration_s": 1.0,
    });
    let swarm = start_swarm(with(gateway.swarm_settings(), settings));
    swarm.wait().unwrap();
    let requests = swarm.report().requests.unwrap();
    assert_eq!(requests.due, 100);
    assert!(requests.sent < 5 && requests.failed >= 1, "{requests:?}");
    let reasons: Vec<_> = requests.reasons.keys().collect();
    assert_eq!(reasons, ["no notification within 0.5 s"]);
}

#[test]
fn an_answer_for_another_client_is_wrong() {
    let body = r#"{"client":"2","message":"go"}"#;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let report = outcome(&Gateway::start(Behaviour::Say(answer)), json!({}));
    assert_eq!((report.answered, report.wrong, report.failed), (1, 2, 0));
    assert_only_reason(&report, "another client", 2);
}

#[test]
fn a_refusal_is_wrong_and_names_its_origin() {
    let answer = "HTTP/1.1 503 No\r\nProxy-Status: cmgmux-gateway; error=destination_unavailable\r\n\
        Content-Length: 0\r\n\r\n";
    let report = outcome(&Gateway::start(Behaviour::Say(answer.to_owned())), json!({}));
    assert_eq!(report.wrong, 3);
    let words = "status 503 (cmgmux-gateway; error=destination_unavailable)";
    assert_only_reason(&report, words, 3);
}

#[test]
fn connections_that_break_off_are_told_apart() {
    for (said, words) in [
        ("", "connection closed before the answer"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "connection closed inside the answer"),
        ("SSH-2.0-x\r\n\r\n", "malformed answer head"),
    ] {
        let report = outcome(&Gateway::start(Behaviour::Say(said.to_owned())), json!({}));
        assert_eq!(report.failed, 3);
        assert_only_reason(&report, words, 3);
    }
}

#[test]
fn silence_ends_at_the_deadlines() {
    let mute = Gateway::start(Behaviour::Mute);
    let report = outcome(&mute, json!({ "response_timeout_s": 0.05 }));
    assert_only_reason(&report, "no notification within 0.05 s", 3);

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = silent.local_addr().unwrap().to_string();
    let report = outcome(&mute, json!({ "connect_timeout_s": 0.05, "target": target }));
    assert_only_reason(&report, "no connection within 0.05 s", 3);

    drop(silent);
    let report = outcome(&mute, json!({ "target": target }));
    assert_only_reason(&report, "connection refused", 3);
    assert_eq!((report.connect_s, report.answer_times), (None, None));
}

#[test]
fn a_stop_ends_the_ramp() {
    let gateway = Gateway::start(Behaviour::Mute);
    let settings = json!({ "clients": 1_000, "connect_rate_per_s": 0.1 });
    let swarm = start_swarm(with(gateway.swarm_settings(), settings));
    await_count(&swarm, "holding", 1);
    end(&swarm);
    assert_eq!(swarm.report().stopped, 1_000);
    assert_eq!(gateway.connections(), 1);
}

#[test]
fn swarm_settings_are_checked_by_name() {
    let gateway = Gateway::start(Behaviour::Mute);
    for (key, changes) in [
        ("target", json!({ "target": "nowhere" })),
        ("server_name", json!({ "server_name": "not a name" })),
        ("ca", json!({ "ca": "/nonexistent/ca.pem" })),
        ("key", json!({ "certificate": gateway.folder.path("client.pem") })),
        ("certificate", json!({ "key": gateway.folder.path("client.key") })),
        ("path", json!({ "path": "poll" })),
        ("path", json!({ "path": "/notifications?x=1" })),
        ("path", json!({ "path": "/a b\r\n" })),
        ("clients", json!({ "clients": 0 })),
        ("first_client", json!({ "first_client": u64::MAX })),
        ("connect_rate_per_s", json!({ "connect_rate_per_s": 0.0 })),
        ("connect_timeout_s", json!({ "connect_timeout_s": 0.0 })),
        ("response_timeout_s", json!({ "response_timeout_s": -1.0 })),
        ("shards", json!({ "shards": 17 })),
        ("kinds", json!({ "kinds": [] })),
        ("requests_per_s", json!({ "requests_per_s": -1.0 })),
        ("requests_per_s", json!({ "requests_per_s": 1e-300 })),
        ("request_path", json!({ "requests_per_s": 1.0 })),
        ("request_path", json!({ "requests_per_s": 1.0, "request_path": "hello" })),
        ("request_connections", json!({ "request_connections": 0 })),
        ("duration_s", json!({ "duration_s": -1.0 })),
        ("admin_socket", json!({ "admin_socket": "/nonexistent/swarm.sock" })),
    ] {
        let settings = with(gateway.swarm_settings(), changes.clone());
        let config: SwarmConfig = serde_json::from_value(settings).unwrap();
        assert_eq!(Swarm::start(config).unwrap_err().key, key, "{changes}");
    }
    assert_eq!(gateway.connections(), 0);
}

#[test]
fn swarm_defaults_are_what_leaving_them_out_means() {
    let required = json!({ "target": "a:1", "server_name": "a", "ca": "ca.pem", "path": "/" });
    let implicit: SwarmConfig = serde_json::from_value(required.clone()).unwrap();
    let explicit: SwarmConfig =
        serde_json::from_value(with(required, SwarmConfig::defaults())).unwrap();
    assert_eq!(format!("{explicit:?}"), format!("{implicit:?}"));
}
