//! Links to instances: what is published on them, and what happens when they fail.

use std::time::Duration;

use cmgmux_exchange::publication::PublicationAnswer;
use cmgmux_net::{CloseCode, End, EndReason, Id};
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::pki::Pki;
use crate::stage::{Point, config, run, with_stage};

#[test]
fn the_site_is_published_and_the_answer_shown() {
    run(async {
        let pki = Pki::new("published");
        let gateway = Gateway::start(&pki).await;
        let mut settings = config(&pki, &gateway);
        settings["mappings"] = json!([{"external": "/mp", "internal": "http://mp"}]);
        let point = Point::start(settings);
        let link = gateway.link(1).await;
        let accept = |publication: &_| answer(publication, &[]);
        let (publication, control) = link.publication(accept).await;
        assert_eq!((publication.serial, publication.site.as_str()), (7, "NYC"));
        assert_eq!(publication.mappings[0].external, "/mp");
        let root = std::fs::read_to_string(pki.path("site-ca.pem")).unwrap();
        assert_eq!(publication.roots[0].trim(), root.replace('\r', "").trim());
        let status = point
            .until(|status| status["instances"][0]["publication"]["state"] == "accepted")
            .await;
        assert_eq!(status["state"], "connected");
        let channel = &status["instances"][0]["channels"][0];
        assert_eq!((&channel["state"], &channel["ordinal"]), (&json!("up"), &json!(0)));
        assert_eq!(channel["stats"]["ordinal"], 0);
        drop(control);

        link.die();
        let link = gateway.link(1).await;
        let (_, _control) = link.publication(|publication| answer(publication, &["no"])).await;
        let status =
            point.until(|status| status["instances"][0]["publication"]["state"] == "refused").await;
        assert_eq!(status["instances"][0]["publication"]["reasons"], json!(["no"]));
    });
}

fn answer(
    publication: &cmgmux_exchange::publication::Publication,
    reasons: &[&str],
) -> PublicationAnswer {
    if reasons.is_empty() {
        return PublicationAnswer::accept(publication.serial);
    }
    let reasons = reasons.iter().map(|&reason| reason.to_owned());
    PublicationAnswer::refuse(publication.serial, reasons)
}

#[test]
fn an_instance_that_dies_is_dialled_and_served_again() {
    with_stage("again", async |stage| {
        stage.link.die();
        let link = stage.gateway.link(1).await;
        let _control = link.publication(|publication| answer(publication, &[])).await;
        let mut exchange = link.open("GET", "/mp/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        connection.answer("again").await;
        assert_eq!(exchange.answer().await.unwrap().text(), "again");
    });
}

// R-HELLO-12
#[test]
fn a_channel_that_drains_outlives_a_new_run_of_its_instance() {
    with_stage("upgrade", async |stage| {
        stage.link.die();
        let first = stage.gateway.link(2).await;
        let second = stage.gateway.link(2).await;
        let mut held = second.open("GET", "/held/x", End::Stream);
        let (mut connection, _) = stage.role.request().await;
        second.channel.drain(Duration::from_secs(3_600));
        stage.point.until(|status| status["instances"][0]["channels_up"] == 1).await;
        first.die();
        let run = Id([9; 16]);
        let _first = stage.gateway.link_of_run(2, run).await;
        let is_new = |status: &Value| {
            status["instances"][0]["channels"][0]["instance_boot_id"] == json!(run)
        };
        stage.point.until(is_new).await;
        connection.answer("finished").await;
        assert_eq!(held.answer().await.unwrap().text(), "finished");
    });
}

#[test]
fn a_refused_link_shows_the_words_of_the_instance() {
    run(async {
        let pki = Pki::new("words");
        let gateway = Gateway::start(&pki).await;
        let point = Point::start(config(&pki, &gateway));
        gateway.refuse(CloseCode::WRONG_INSTANCE, "this is instance 1").await;
        // The next attempt comes only once the first has been noted.
        let _second = gateway.offer().await.unwrap();
        let status = point.status();
        assert_eq!(status["state"], "connecting");
        let channel = &status["instances"][0]["channels"][0];
        let words = channel["last_error"].as_str().unwrap();
        assert!(words.contains("this is instance 1"), "{words}");
        assert_eq!((&channel["state"], &channel["attempts"]), (&json!("connecting"), &json!(2)));
    });
}

#[test]
fn an_instance_of_another_ca_is_not_trusted() {
    run(async {
        let pki = Pki::new("strange");
        let gateway = Gateway::start(&pki).await;
        let mut settings = config(&pki, &gateway);
        settings["gateway_ca"] = json!(pki.path("site-ca.pem"));
        let point = Point::start(settings);
        for _ in 0..2 {
            gateway.offer().await.unwrap_err();
        }
        let channel = &point.status()["instances"][0]["channels"][0];
        let words = channel["last_error"].as_str().unwrap();
        assert!(words.contains("certificate") && words.contains("trust"), "{words}");
    });
}

#[test]
fn an_instance_that_is_not_there_is_named_with_the_cause() {
    run(async {
        let pki = Pki::new("nobody");
        let gateway = Gateway::start(&pki).await;
        let settings = config(&pki, &gateway);
        drop(gateway);
        let point = Point::start(settings);
        let is_tried =
            |status: &Value| status["instances"][0]["channels"][0]["attempts"].as_u64() > Some(1);
        let status = point.until(is_tried).await;
        let words = status["instances"][0]["channels"][0]["last_error"].as_str().unwrap();
        assert!(words.contains("refused"), "{words}");
    });
}

#[test]
fn there_are_as_many_channels_as_the_instance_has_shards() {
    run(async {
        let pki = Pki::new("shards");
        let gateway = Gateway::start(&pki).await;
        let point = Point::start(config(&pki, &gateway));
        let mut links = Vec::new();
        for _ in 0..3 {
            links.push(gateway.link(3).await);
        }
        let mut ordinals: Vec<_> = links.iter().map(|link| link.ordinal).collect();
        assert_eq!(ordinals[0], 0, "the first channel says how many there will be");
        ordinals.sort_unstable();
        assert_eq!(ordinals, [0, 1, 2]);
        point.until(|status| status["instances"][0]["channels_up"] == 3).await;

        // The instance comes back with one shard; the channels of the others are of no use.
        links.remove(0).die();
        let first = gateway.link(1).await;
        assert_eq!(first.ordinal, 0);
        for link in &links {
            let reason = link.channel.ended().await;
            assert!(matches!(reason, EndReason::ClosedByPeer { .. }), "{reason}");
        }
        let is_alone =
            |status: &Value| status["instances"][0]["channels"].as_array().unwrap().len() == 1;
        let status = point.until(is_alone).await;
        assert_eq!(status["state"], "connected");

        // And with two.
        first.die();
        let (first, second) = (gateway.link(2).await, gateway.link(2).await);
        assert_eq!((first.ordinal, second.ordinal), (0, 1));
    });
}
