//! Clients that leave, and the end of the process.

use std::time::Duration;

use cmgmux_exchange::parts::Event;
use cmgmux_net::{Arrival, End, EndReason};

use crate::stage::with_stage;

#[test]
fn a_client_that_leaves_while_it_waits_closes_the_connection_to_the_role() {
    with_stage("leaves", async |stage| {
        let held = stage.link.open("GET", "/held/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        drop(held);
        connection.closed().await;
        let status = stage.point.until(|status| status["exchanges"]["open"] == 0).await;
        assert_eq!(status["exchanges"]["abandoned"], 1);
        stage.point.until(|status| status["upstream"]["connections"] == 0).await;
    });
}

#[test]
fn a_client_that_leaves_within_its_answer_closes_the_connection_to_the_role() {
    with_stage("leaves-late", async |stage| {
        let mut held = stage.link.open("GET", "/held/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        connection
            .write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n")
            .await;
        held.head().await.unwrap();
        while !matches!(held.next().await.unwrap().unwrap().0, Some(Event::Data(_))) {}
        drop(held);
        connection.closed().await;
        stage.point.until(|status| status["exchanges"]["abandoned"] == 1).await;
    });
}

#[test]
fn a_client_that_leaves_within_its_request_closes_the_connection_to_the_role() {
    with_stage("leaves-early", async |stage| {
        let mut upload = stage.link.open("POST", "/mp/x", End::Part);
        upload.say(b"some", End::None).await.unwrap();
        let (mut connection, _) = stage.role.request().await;
        drop(upload);
        connection.closed().await;
        stage.point.until(|status| status["exchanges"]["abandoned"] == 1).await;
    });
}

#[test]
fn a_channel_that_its_instance_has_forgotten_closes_the_connections_of_its_exchanges() {
    with_stage("lost", async |stage| {
        let _held = stage.link.open("GET", "/held/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        stage.link.die();
        let _next = stage.gateway.offer().await.unwrap();
        connection.closed().await;
    });
}

#[test]
fn a_lost_link_is_replaced_at_once_and_its_exchanges_go_on() {
    with_stage("resumed", async |stage| {
        let mut held = stage.link.open("GET", "/held/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        for resumes in 1..=5 {
            stage.gateway.cut_links();
            let Arrival::Resume(offer) = stage.gateway.arrival().await.unwrap() else { panic!() };
            assert!(stage.link.channel.is_offered(&offer));
            stage.link.channel.resume(offer).unwrap();
            let status = stage
                .point
                .until(|status| {
                    status["instances"][0]["channels"][0]["stats"]["resumes"] == resumes
                })
                .await;
            assert_eq!(status["instances"][0]["channels"][0]["state"], "up");
        }
        connection.answer("finished").await;
        assert_eq!(held.answer().await.unwrap().text(), "finished");
    });
}

#[test]
fn a_stop_lets_open_exchanges_finish() {
    with_stage("stop", async |stage| {
        let mut held = stage.link.open("GET", "/held/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        stage.point.request_stop(Duration::from_secs(3_600));
        assert_eq!(stage.point.status()["state"], "draining");
        while stage.link.channel.is_usable() {
            tokio::task::yield_now().await;
        }
        connection.answer("finished").await;
        assert_eq!(held.answer().await.unwrap().text(), "finished");
        drop(held);
        let reason = stage.link.channel.ended().await;
        assert!(matches!(reason, EndReason::ClosedByPeer { .. }), "{reason}");
        stage.point.wait();
    });
}

#[test]
fn a_stop_without_grace_ends_at_once() {
    with_stage("stop-now", async |stage| {
        let _held = stage.link.open("GET", "/held/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        stage.point.request_stop(Duration::ZERO);
        stage.point.wait();
        connection.closed().await;
        stage.link.channel.ended().await;
    });
}
