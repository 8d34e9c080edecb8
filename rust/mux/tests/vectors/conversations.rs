//! Each conversation is replayed into two channels: what its frames make the applications see must
//! be what stands beside them.

use cmgmux_mux::Resume;
use cmgmux_mux::frame::{HEADER_BYTES, kind};
use serde_json::{Value, json};

use crate::world::World;
use crate::{folder, from_hex, read};

#[test]
fn every_conversation_shows_the_applications_what_it_says() {
    let names = std::fs::read_dir(folder().join("conversations")).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        let conversation = read(&format!("conversations/{name}"));
        let mut world = World::default();
        for (number, step) in conversation["steps"].as_array().unwrap().iter().enumerate() {
            replay(&mut world, step, &format!("{name}, step {number}"));
        }
    }
}

fn replay(world: &mut World, step: &Value, context: &str) {
    if step["call"].is_object() {
        world.call(&step["call"]);
    } else if let Some(micros) = step["advance_us"].as_u64() {
        world.advance(micros);
    } else if step["link_lost"] == true {
        world.lose_link();
    } else if step["live"].is_object() {
        assert_eq!(live(world), step["live"], "{context}");
    } else {
        replay_frame(world, step, context);
    }
}

fn replay_frame(world: &mut World, step: &Value, context: &str) {
    let (from, frame) = (&step["from"], from_hex(&step["frame"]));
    let now = world.now;
    if world.ends.is_some() && step["foreign"] != true {
        // What the sender says here need not be the same: in which order and how much at a time is
        // its own matter. Its position moves on by it.
        world.end(from).next_frame(now);
    }
    if step["lost"] == true {
        return;
    }
    if frame[3] == kind::RESUME && step["foreign"] != true {
        let resume = Resume::decode(&frame[HEADER_BYTES..]).unwrap();
        assert_eq!(Some(resume.claim), world.claim, "{context}");
    }
    match world.deliver(from, &frame) {
        Ok(events) => {
            assert_eq!(Value::from(events), step["events"], "{context}");
            assert!(step["error"].is_null(), "{context}: not refused");
        }
        Err(error) => {
            assert_eq!(step["error"], format!("{:?}", error.code()), "{context}: {error}");
        }
    }
}

/// Streams that are live at either end.
pub(crate) fn live(world: &World) -> Value {
    let [point, instance] = world.ends.as_ref().unwrap();
    json!({
        "connection_point": point.channel.counters().live,
        "instance": instance.channel.counters().live,
    })
}
