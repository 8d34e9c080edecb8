//! Claims and answers that are proven and lie.

use std::ops::RangeInclusive;

use bytes::Bytes;
use cmgmux_mux::frame::{Control, HEADER_BYTES, kind};
use cmgmux_mux::{
    Claim, CloseCode, Config, End, ProtocolError, ResumeCode, Resumed, StreamId, Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::abuse::Victim;
use crate::frames::{OPEN, control, frame, split};
use crate::pair::{Endpoint, Pair};

/// What either end has said and heard. Nothing of it has been acknowledged.
struct Scene {
    pair: Pair,
    ids: [StreamId; 2],
    /// The connection point's first claim, from before any of this.
    claim: Claim,
    /// What each end has said, the connection point first.
    said: [Vec<u8>; 2],
}

impl Scene {
    fn new() -> Self {
        let mut pair = Pair::new(&Config::default());
        let ids = [0; 2].map(|_| pair.instance.open().unwrap());
        pair.settle_acks();
        let claim = pair.point.channel.claim();
        let Pair { point, instance, now } = &mut pair;
        for (number, id) in ids.into_iter().enumerate() {
            for end in [&mut *point, &mut *instance] {
                let data = |length: usize| Bytes::from(vec![b'a' + number as u8; length]);
                end.channel.send(id, data(20 + number), End::Part).unwrap();
                end.channel.send(id, data(40), End::None).unwrap();
            }
        }
        let said = [point.batch(*now).unwrap(), instance.batch(*now).unwrap()];
        for (end, said) in [(instance, &said[0]), (point, &said[1])] {
            end.wire.extend_from_slice(said);
            end.deliver(*now, usize::MAX).unwrap();
        }
        Self { pair, ids, claim, said }
    }

    /// Positions of what the instance said.
    fn of_instance(&self) -> RangeInclusive<u64> {
        self.claim.rx_pos..=self.claim.rx_pos + self.said[1].len() as u64
    }

    /// Positions of what the connection point said.
    fn of_point(&self) -> RangeInclusive<u64> {
        self.claim.tx_first..=self.claim.tx_first + self.said[0].len() as u64
    }

    fn answer(&self) -> Resumed {
        let (epoch, rx_pos) = (self.claim.epoch, *self.of_point().end());
        Resumed { code: ResumeCode::ACCEPTED, epoch, rx_pos, tx_start: self.claim.rx_pos }
    }
}

/// Where the frames of `bytes` begin, and their end.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut at = 0;
    let ends = split(bytes).into_iter().map(|(header, _)| {
        at += header.frame_bytes();
        at
    });
    [0].into_iter().chain(ends.collect::<Vec<_>>()).collect()
}

fn go_away() -> Control {
    Control::GoAway { opens_accepted: 0, code: 0, grace_ms: 1 }
}

/// An end that goes on from `asked` of what it has said gives exactly that, works as before, and finds
/// that it is no boundary when it has to know.
fn goes_on(end: &mut Endpoint, ids: [StreamId; 2], said: &[u8], asked: usize) {
    let heard: Vec<_> = end.app.streams.iter().map(|seen| seen.data.clone()).collect();
    let now = Timestamp::ZERO;
    let batch = end.batch(now);
    assert_eq!(batch.as_deref().unwrap_or_default(), &said[asked..], "from {asked}");
    end.wire.extend(frame(kind::DATA, 0, ids[1], b"more"));
    end.deliver(now, usize::MAX).unwrap();
    assert_eq!(end.app.streams[0].data, heard[0]);
    assert_eq!(end.app.streams[1].data, [&heard[1][..], b"more"].concat());
    end.wire.extend(control(&go_away(), StreamId::CHANNEL));
    let result = end.deliver(now, usize::MAX).map_err(|error| error.code());
    if boundaries(said).contains(&asked) {
        assert_eq!(result, Ok(()), "from {asked}");
    } else {
        assert_eq!(result, Err(CloseCode::ACK_RANGE), "from {asked}");
        assert_eq!(end.app.draining, None);
    }
}

// R-RESUME-9, R-ACK-2
#[test]
fn j6_a_claim_from_inside_of_a_frame_gets_what_it_asks_for_and_harms_no_stream() {
    let positions = Scene::new().of_instance();
    assert!(positions.clone().count() > 150);
    for rx_pos in positions.clone() {
        let Scene { mut pair, ids, claim, said } = Scene::new();
        let claim = Claim { rx_pos, ..claim };
        let resumed = pair.instance.channel.handle_claim(pair.now, &claim).unwrap();
        assert_eq!((resumed.code, resumed.tx_start), (ResumeCode::ACCEPTED, rx_pos));
        let asked = (rx_pos - positions.start()) as usize;
        goes_on(&mut pair.instance, ids, &said[1], asked);
    }
}

// R-RESUME-9, R-ACK-2
#[test]
fn j6_an_answer_from_inside_of_a_frame_gets_what_it_asks_for_and_harms_no_stream() {
    let positions = Scene::new().of_point();
    for rx_pos in positions.clone() {
        let scene = Scene::new();
        let told = *scene.of_instance().end();
        let resumed = Resumed { rx_pos, tx_start: told, ..scene.answer() };
        let Scene { mut pair, ids, said, .. } = scene;
        assert!(pair.point.channel.handle_resumed(pair.now, &resumed).unwrap());
        let asked = (rx_pos - positions.start()) as usize;
        goes_on(&mut pair.point, ids, &said[0], asked);
    }
}

// R-RESUME-7, R-RESUME-9
#[test]
fn j6_a_replay_said_to_begin_inside_of_a_frame_is_refused_at_the_frame_that_lies_across() {
    let positions = Scene::new().of_instance();
    for tx_start in positions.clone() {
        let scene = Scene::new();
        let resumed = Resumed { tx_start, ..scene.answer() };
        let Scene { mut pair, said, .. } = scene;
        let Pair { point, now, .. } = &mut pair;
        assert!(point.channel.handle_resumed(*now, &resumed).unwrap());
        let before: Vec<_> = point.app.streams.iter().map(|seen| seen.data.clone()).collect();
        // It sends everything again, and more of it than it has said.
        let skipped = (positions.end() - tx_start) as usize;
        point.wire.extend_from_slice(&said[1]);
        let result = point.deliver(*now, usize::MAX);
        if boundaries(&said[1]).contains(&skipped) {
            assert_eq!(result, Ok(()));
            continue;
        }
        let error = result.unwrap_err();
        assert!(matches!(error, ProtocolError::ReplayBoundary { .. }), "{error}");
        assert_eq!(error.code(), CloseCode::RESUME_RANGE);
        assert!(point.app.streams.iter().map(|seen| &seen.data).eq(&before));
    }
}

/// A position by its distance from a place that means something.
#[derive(Clone, Copy, Debug)]
struct Near {
    place: usize,
    distance: i64,
}

impl Near {
    fn at(self, places: [u64; 4]) -> u64 {
        places[self.place].wrapping_add_signed(self.distance)
    }
}

fn near() -> impl Strategy<Value = Near> {
    let distance = prop_oneof![2 => Just(0), 2 => -2..=2i64, 2 => -100..=100i64, 1 => any::<i64>()];
    (0..4usize, distance).prop_map(|(place, distance)| Near { place, distance })
}

fn epoch() -> impl Strategy<Value = u32> {
    prop_oneof![1 => any::<u32>(), 6 => 0..20u32]
}

/// What follows a lie that was believed.
#[derive(Clone, Copy, Debug)]
struct Next {
    acknowledged: Near,
    drains: bool,
    /// The end writes what it has before the next lie.
    writes: bool,
}

fn next() -> impl Strategy<Value = Next> {
    (near(), proptest::bool::weighted(0.2), any::<bool>())
        .prop_map(|(acknowledged, drains, writes)| Next { acknowledged, drains, writes })
}

/// Lets it happen; says what the peer has acknowledged, unless the channel or its streams end by it.
fn follow(end: &mut Endpoint, next: Next, places: [u64; 4]) -> Option<u64> {
    let rx_pos = next.acknowledged.at(places);
    let word = if next.drains { go_away() } else { Control::Ack { rx_pos, delay_us: 0 } };
    end.wire.extend(control(&word, StreamId::CHANNEL));
    let result = end.deliver(Timestamp::ZERO, usize::MAX);
    if next.writes || result.is_ok() && next.drains {
        let batches = std::iter::from_fn(|| end.batch(Timestamp::ZERO));
        assert!(batches.take(100).count() < 100, "it never falls silent");
    }
    (result.is_ok() && !next.drains).then_some(rx_pos)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    // R-RESUME-3, R-RESUME-9, R-RESUME-11
    #[test]
    fn j6_any_claims_have_their_written_results(
        claims in vec((epoch(), near(), near(), next()), 1..12),
    ) {
        let scene = Scene::new();
        let (encoded, applied) = (*scene.of_instance().end(), *scene.of_point().end());
        let (mut newest, mut acked) = (0, *scene.of_instance().start());
        let Scene { pair: Pair { mut instance, now, .. }, .. } = scene;
        for (epoch, rx_pos, tx_first, next) in claims {
            let before = instance.channel.counters();
            let places = [0, encoded, applied, acked];
            let (rx_pos, tx_first) = (rx_pos.at(places), tx_first.at(places));
            let result = instance.channel.handle_claim(now, &Claim { epoch, rx_pos, tx_first });
            let result = result.map_err(|error| error.code());
            if epoch <= newest {
                let refusal = Resumed::refusal(epoch, ResumeCode::STALE_EPOCH);
                prop_assert_eq!(result, Ok(refusal));
            } else if rx_pos > encoded || tx_first > applied {
                prop_assert_eq!(result, Err(CloseCode::RESUME_RANGE));
            } else {
                let tx_start = rx_pos.max(encoded - before.ring_bytes);
                let code = ResumeCode::ACCEPTED;
                prop_assert_eq!(result, Ok(Resumed { code, epoch, rx_pos: applied, tx_start }));
                prop_assert_eq!(instance.channel.counters().ring_bytes, encoded - tx_start);
                let Some(position) = follow(&mut instance, next, places) else { return Ok(()) };
                (newest, acked) = (epoch, position);
                continue;
            }
            prop_assert_eq!(instance.channel.counters(), before);
        }
    }

    // R-RESUME-9, R-RESUME-10
    #[test]
    fn j6_any_answers_have_their_written_results(
        answers in vec((any::<Option<u32>>(), near(), near(), next()), 1..12),
    ) {
        let scene = Scene::new();
        let (encoded, applied) = (*scene.of_point().end(), *scene.of_instance().end());
        let (mut claim, mut acked) = (Some(scene.claim), *scene.of_point().start());
        let Scene { pair: Pair { mut point, now, .. }, .. } = scene;
        for (other, rx_pos, tx_start, next) in answers {
            let latest = *claim.get_or_insert_with(|| point.channel.claim());
            let epoch = other.unwrap_or(latest.epoch);
            let before = point.channel.counters();
            let places = [latest.rx_pos, encoded, applied, acked];
            let (rx_pos, tx_start) = (rx_pos.at(places), tx_start.at(places));
            let code = ResumeCode::ACCEPTED;
            let resumed = Resumed { code, epoch, rx_pos, tx_start };
            let result = point.channel.handle_resumed(now, &resumed);
            let result = result.map_err(|error| error.code());
            if epoch != latest.epoch {
                prop_assert_eq!(result, Ok(false));
            } else if !(acked..=encoded).contains(&rx_pos)
                || !(latest.rx_pos..=applied).contains(&tx_start)
            {
                prop_assert_eq!(result, Err(CloseCode::RESUME_RANGE));
            } else {
                prop_assert_eq!(result, Ok(true));
                let Some(position) = follow(&mut point, next, places) else { return Ok(()) };
                (claim, acked) = (None, position);
                continue;
            }
            prop_assert_eq!(point.channel.counters(), before);
        }
    }
}

// R-ACK-2, R-GOAWAY-6
#[test]
fn j6_data_that_looks_like_an_open_ends_no_stream_for_the_application_alone() {
    let mut victim = Victim::new();
    let seen = victim.end.open().unwrap();
    victim.end.acknowledged_batch(victim.now).unwrap();
    // An OPEN with the index of this stream, by the other end.
    let alike = StreamId::from_wire(seen.to_wire() | 1 << 31);
    let data = frame(kind::OPEN, 0, alike, &OPEN).freeze();
    victim.end.channel.send(seen, data, End::None).unwrap();
    let rx_pos = victim.end.tracked_bytes() + HEADER_BYTES as u64;
    victim.end.batch(victim.now).unwrap();
    let ack = Control::Ack { rx_pos, delay_us: 0 };
    victim.feed(control(&ack, StreamId::CHANNEL)).unwrap();
    if victim.feed(control(&go_away(), StreamId::CHANNEL)).is_ok() {
        let is_told = victim.end.app.streams[1].reset.is_some();
        let is_live = victim.feed(frame(kind::DATA, 0, seen, b"more")).is_ok();
        assert!(!is_told || !is_live);
    }
}
