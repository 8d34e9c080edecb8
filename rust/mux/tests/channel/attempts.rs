//! Attempts to resume a channel that fail half way, one after the other.

use std::time::Duration;

use bytes::Bytes;
use cmgmux_mux::{Config, End, ResumeCode, Resumed, StreamId, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::pair::{Endpoint, Pair};

const ATTEMPTS: usize = 100;
const STREAMS: usize = 3;
/// What each end says on a stream before each attempt, in bytes.
const WORD: usize = 700;

/// How far an attempt gets before its link dies.
#[derive(Clone, Copy, Debug)]
enum Step {
    Claimed,
    /// The instance has the claim, and its answer is lost.
    Accepted,
    Answered,
    /// So many bytes of a replay arrive, at the connection point and at the instance.
    Replayed([usize; 2]),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop_oneof![0..300usize, 0..40_000usize];
    prop_oneof![
        Just(Step::Claimed),
        Just(Step::Accepted),
        Just(Step::Answered),
        [bytes(), bytes()].prop_map(Step::Replayed),
    ]
}

/// A conversation that goes on while its links die.
struct Scene {
    pair: Pair,
    ids: Vec<StreamId>,
    /// Bytes that each end has said on each stream.
    said: usize,
    /// An answer that has not arrived yet.
    late: Option<Resumed>,
}

/// The bytes of one end on one stream.
fn text(stream: usize, is_instance: bool, from: usize, length: usize) -> Bytes {
    let seed = 7 * stream + usize::from(is_instance);
    (from..from + length).map(|i| ((i ^ seed) * 31 + i / 251) as u8).collect()
}

impl Scene {
    fn new() -> Self {
        let mut pair = Pair::new(&Config::default());
        let ids = (0..STREAMS).map(|_| pair.instance.open().unwrap()).collect();
        pair.settle_acks();
        Self { pair, ids, said: 0, late: None }
    }

    fn say(&mut self, length: usize, end: End) {
        for (stream, id) in self.ids.iter().enumerate() {
            let data = |is_instance| text(stream, is_instance, self.said, length);
            self.pair.point.channel.send(*id, data(false), end).unwrap();
            self.pair.instance.channel.send(*id, data(true), end).unwrap();
        }
        self.said += length;
    }

    /// Tries to resume after a cut, or while the old link lives.
    fn attempt(&mut self, step: Step, is_cut: bool) {
        self.say(WORD, End::Part);
        if is_cut {
            self.pair.cut();
        }
        let claim = self.pair.point.channel.claim();
        let Pair { point, instance, now } = &mut self.pair;
        *now = now.after(Duration::from_millis(100));
        for end in [&mut *point, &mut *instance] {
            assert_eq!(end.channel.handle_timeout(*now), None, "there is time for more");
        }
        if let Some(late) = self.late.take() {
            assert_eq!(point.channel.handle_resumed(*now, &late), Ok(false), "it is too late");
        }
        if matches!(step, Step::Claimed) {
            return;
        }
        let resumed = instance.channel.handle_claim(*now, &claim).unwrap();
        assert_eq!(resumed.code, ResumeCode::ACCEPTED);
        instance.lose_wire();
        if matches!(step, Step::Accepted) {
            // What it says behind its answer is lost as well; what the old link has still arrives.
            instance.batch(*now);
            point.deliver(*now, WORD).unwrap();
            self.late = Some(resumed);
            self.pair.cut();
            return;
        }
        point.lose_wire();
        assert!(point.channel.handle_resumed(*now, &resumed).unwrap());
        if let Step::Replayed([to_point, to_instance]) = step {
            carry(point, instance, *now, to_instance);
            carry(instance, point, *now, to_point);
        }
        if !is_cut {
            self.pair.cut();
        }
    }

    fn conclude(mut self) {
        self.pair.cut();
        self.pair.resume();
        self.say(0, End::Stream);
        let Self { pair, said, .. } = &mut self;
        for _ in 0..50 {
            pair.settle_acks();
            for stream in 0..STREAMS {
                pair.point.consume_all(stream);
                pair.instance.consume_all(stream);
            }
        }
        for (is_instance, end) in [(false, &pair.point), (true, &pair.instance)] {
            for (stream, seen) in end.app.streams.iter().enumerate() {
                assert_eq!(seen.ended, 1);
                assert!(seen.data == text(stream, !is_instance, 0, *said), "stream {stream}");
                let parts = (1..=*said / WORD).map(|part| part * WORD);
                assert!(seen.parts.iter().copied().eq(parts.chain([*said])), "stream {stream}");
            }
            let counters = end.channel.counters();
            assert_eq!((counters.live, counters.ring_bytes, counters.queued_bytes), (0, 0, 0));
        }
    }
}

/// Writes what is due and delivers so many bytes of it.
fn carry(from: &mut Endpoint, to: &mut Endpoint, now: Timestamp, bytes: usize) {
    while let Some(batch) = from.batch(now) {
        to.wire.extend(batch);
    }
    to.deliver(now, bytes).unwrap();
}

// R-RESUME-2, R-RESUME-10, R-RESUME-12
#[test]
fn j2_a_hundred_links_that_die_at_each_step_of_a_resume_in_turns_lose_nothing() {
    let mut scene = Scene::new();
    for number in 0..ATTEMPTS {
        let step = match number % 5 {
            0 => Step::Claimed,
            1 => Step::Accepted,
            2 => Step::Answered,
            3 => Step::Replayed([number * 3, number * 9]),
            _ => Step::Replayed([number * 200, number * 200]),
        };
        scene.attempt(step, number % 3 != 0);
    }
    let resumes = |end: &Endpoint| end.channel.counters().resumes;
    // Of five attempts, four are accepted and three answered.
    let (point, instance) = (resumes(&scene.pair.point), resumes(&scene.pair.instance));
    assert_eq!((point, instance), (60, 80));
    scene.conclude();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    // R-RESUME-2, R-RESUME-5, R-RESUME-6, R-RESUME-7
    #[test]
    fn j2_links_that_die_at_any_steps_of_a_hundred_resumes_lose_nothing(
        steps in vec((step(), any::<bool>()), ATTEMPTS),
    ) {
        let mut scene = Scene::new();
        for (step, is_cut) in steps {
            scene.attempt(step, is_cut);
        }
        scene.conclude();
    }
}
