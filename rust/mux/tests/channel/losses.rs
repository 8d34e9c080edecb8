//! Untracked frames may be lost, any of them.

use std::time::Duration;

use bytes::Bytes;
use cmgmux_mux::frame::kind;
use cmgmux_mux::{Config, End, Expiry, Limits, StreamId, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::frames::split;
use crate::pair::{Endpoint, Pair};

/// Bytes of each half, and at most so many of them in one piece.
const BYTES: usize = 60_000;
const PIECE: usize = 9_000;
const STREAMS: usize = 3;
/// Time in which a link dies whose last probe, or its answer, was lost.
const DEATH: Duration = Duration::from_secs(10);

/// Which untracked frames are lost; beyond its end none is.
struct Losses {
    drawn: std::vec::IntoIter<bool>,
    /// When a probe or its answer was lost last.
    probe_at: Timestamp,
}

impl Losses {
    fn takes(&mut self, now: Timestamp, kind: u8) -> bool {
        let is_lost = self.drawn.next().unwrap_or(false);
        if is_lost && kind != kind::ACK {
            self.probe_at = now;
        }
        is_lost
    }
}

fn text(stream: usize, is_instance: bool) -> Bytes {
    let seed = 2 * stream + usize::from(is_instance);
    (0..BYTES).map(|i| (i.wrapping_mul(31 + seed) + i / 251) as u8).collect()
}

/// Delivers what is due, without what is lost of it; says whether something was due.
fn carry(from: &mut Endpoint, to: &mut Endpoint, now: Timestamp, losses: &mut Losses) -> bool {
    let mut is_due = false;
    while let Some(batch) = from.batch(now) {
        is_due = true;
        for (header, frame) in split(&batch) {
            if kind::is_tracked(header.kind) || !losses.takes(now, header.kind) {
                to.wire.extend_from_slice(frame);
            }
        }
    }
    to.deliver(now, usize::MAX).unwrap();
    is_due
}

/// A conversation both ways on several streams, with more said whenever there is room.
struct Scene {
    pair: Pair,
    ids: Vec<StreamId>,
    /// By stream: what the connection point, and the instance, have not said yet.
    left: Vec<[Bytes; 2]>,
}

impl Scene {
    fn new() -> Self {
        let limits = Limits { max_streams: 2, ..Limits::default() };
        let mut pair = Pair::new(&Config { local: limits, peer: limits, ..Config::default() });
        let mut ids = vec![pair.point.open().unwrap()];
        ids.extend((1..STREAMS).map(|_| pair.instance.open().unwrap()));
        pair.settle_acks();
        let left = (0..STREAMS).map(|stream| [text(stream, false), text(stream, true)]).collect();
        Self { pair, ids, left }
    }

    fn say(&mut self) {
        let Pair { point, instance, .. } = &mut self.pair;
        for (id, left) in self.ids.iter().zip(&mut self.left) {
            for (end, left) in [&mut *point, &mut *instance].into_iter().zip(left) {
                if !left.is_empty() && end.channel.has_room(*id).unwrap() {
                    let piece = left.split_to(PIECE.min(left.len()));
                    let ending = if left.is_empty() { End::Stream } else { End::Part };
                    end.channel.send(*id, piece, ending).unwrap();
                }
            }
        }
    }

    /// Lets time pass, and what becomes due happen. A link that shows no life is replaced; only a
    /// probe that was lost is a reason for that.
    fn pass(&mut self, time: Duration, losses: &mut Losses) {
        let until = self.pair.now.after(time);
        while self.pair.now < until {
            let Pair { point, instance, now } = &mut self.pair;
            let due = point.channel.next_deadline().min(instance.channel.next_deadline());
            *now = due.max(now.after(Duration::from_millis(1))).min(until);
            let expiries =
                [&mut *point, &mut *instance].map(|end| end.channel.handle_timeout(*now));
            if expiries.contains(&Some(Expiry::Link)) {
                assert!(now.since(losses.probe_at) < DEATH, "a link dies without a lost probe");
                self.pair.cut();
                self.pair.resume();
            }
            self.carry(losses);
        }
    }

    fn carry(&mut self, losses: &mut Losses) {
        let Pair { point, instance, now } = &mut self.pair;
        while carry(point, instance, *now, losses) | carry(instance, point, *now, losses) {}
    }

    fn is_complete(&self) -> bool {
        [&self.pair.point, &self.pair.instance].iter().all(|end| {
            let counters = end.channel.counters();
            (counters.live, counters.ring_bytes) == (0, 0)
        })
    }

    fn run(&mut self, times: &[u64], losses: &mut Losses) {
        for round in 0..1_000 {
            self.say();
            self.carry(losses);
            for number in 0..STREAMS {
                for end in [&mut self.pair.point, &mut self.pair.instance] {
                    end.consume_all(number);
                }
            }
            if self.is_complete() {
                return;
            }
            let ms = times.get(round).copied().unwrap_or(1_000);
            self.pass(Duration::from_millis(ms), losses);
        }
        panic!("the conversation does not end: {:?}", self.pair.point.channel.counters());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    // R-POS-4, R-LIVE-2
    #[test]
    fn whatever_untracked_frames_are_lost_everything_is_delivered_and_acknowledged_in_the_end(
        drawn in vec(any::<bool>(), 0..200),
        times in vec(prop_oneof![3 => 0..60u64, 1 => 900..1_100u64, 1 => 0..16_000u64], 0..100),
    ) {
        let mut scene = Scene::new();
        let mut losses = Losses { drawn: drawn.into_iter(), probe_at: Timestamp::ZERO };
        scene.run(&times, &mut losses);
        for (is_instance, end) in [(false, &scene.pair.point), (true, &scene.pair.instance)] {
            for seen in &end.app.streams {
                let stream = scene.ids.iter().position(|id| Some(*id) == seen.id).unwrap();
                prop_assert!(seen.data == text(stream, !is_instance), "stream {}", stream);
                prop_assert_eq!((seen.parts.len(), seen.ended), (BYTES.div_ceil(PIECE), 1));
            }
        }
    }
}

// R-POS-4
#[test]
fn streams_deliver_the_same_without_any_untracked_frame() {
    let mut scene = Scene::new();
    let mut losses = Losses { drawn: vec![true; 10_000].into_iter(), probe_at: Timestamp::ZERO };
    for _ in 0..200 {
        scene.say();
        scene.carry(&mut losses);
        for number in 0..STREAMS {
            scene.pair.point.consume_all(number);
            scene.pair.instance.consume_all(number);
        }
    }
    for (is_instance, end) in [(false, &scene.pair.point), (true, &scene.pair.instance)] {
        for seen in &end.app.streams {
            let stream = scene.ids.iter().position(|id| Some(*id) == seen.id).unwrap();
            assert!(seen.data == text(stream, !is_instance), "stream {stream}");
            assert_eq!((seen.parts.len(), seen.ended), (BYTES.div_ceil(PIECE), 1));
        }
    }
}
