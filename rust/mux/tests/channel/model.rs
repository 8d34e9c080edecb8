//! Random operations on both ends, random fragmentation, against a model of what was written.

use std::collections::BTreeMap;

use bytes::Bytes;
use cmgmux_mux::{Config, End, Limits, StreamCode, StreamId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::pair::{Endpoint, Pair};

#[derive(Clone, Copy, Debug)]
enum Action {
    Open,
    Send { stream: usize, bytes: usize, end: u8 },
    Consume { stream: usize },
    Reset { stream: usize },
    Stop { stream: usize },
    Flush,
    Deliver { bytes: usize },
}

fn action() -> impl Strategy<Value = Action> {
    let stream = 0..6usize;
    prop_oneof![
        2 => Just(Action::Open),
        6 => (stream.clone(), prop_oneof![0..40usize, 900..1_200usize, 5_000..40_000usize], 0..8u8)
            .prop_map(|(stream, bytes, end)| Action::Send { stream, bytes, end }),
        4 => stream.clone().prop_map(|stream| Action::Consume { stream }),
        1 => stream.clone().prop_map(|stream| Action::Reset { stream }),
        1 => stream.prop_map(|stream| Action::Stop { stream }),
        4 => Just(Action::Flush),
        6 => prop_oneof![1..20usize, 100..3_000usize, Just(usize::MAX)]
            .prop_map(|bytes| Action::Deliver { bytes }),
    ]
}

/// What one end wrote on a stream.
#[derive(Debug, Default)]
struct Written {
    data: Vec<u8>,
    parts: Vec<usize>,
    finished: bool,
    abandoned: bool,
}

type Model = BTreeMap<(bool, StreamId), Written>;

/// The end, its peer, and whether the end is the instance.
fn ends(pair: &mut Pair, instance: bool) -> (&mut Endpoint, &mut Endpoint) {
    if instance {
        (&mut pair.instance, &mut pair.point)
    } else {
        (&mut pair.point, &mut pair.instance)
    }
}

fn apply(pair: &mut Pair, model: &mut Model, instance: bool, action: Action, seed: &mut u8) {
    let now = pair.now;
    let (end, peer) = ends(pair, instance);
    match action {
        Action::Open => drop(end.open()),
        Action::Send { stream, bytes, end: ending } => {
            let Some((_, id)) = end.app.pick(stream) else { return };
            let ending = match ending {
                0 => End::Stream,
                1 | 2 => End::Part,
                _ => End::None,
            };
            *seed = seed.wrapping_add(1);
            let data: Vec<u8> = (0..bytes).map(|i| (i as u8).wrapping_mul(31) ^ *seed).collect();
            if end.channel.send(id, Bytes::from(data.clone()), ending).is_ok() {
                let written = model.entry((instance, id)).or_default();
                written.data.extend(data);
                if ending != End::None {
                    written.parts.push(written.data.len());
                }
                written.finished |= ending == End::Stream;
            }
        }
        Action::Consume { stream } => {
            if let Some((number, _)) = end.app.pick(stream) {
                end.consume_all(number);
            }
        }
        Action::Reset { stream } => {
            let Some((_, id)) = end.app.pick(stream) else { return };
            end.channel.reset(id, StreamCode::CANCELLED);
            model.entry((instance, id)).or_default().abandoned = true;
        }
        Action::Stop { stream } => {
            let Some((_, id)) = end.app.pick(stream) else { return };
            end.stop(id, StreamCode::CANCELLED);
            model.entry((!instance, id)).or_default().abandoned = true;
        }
        Action::Flush => {
            if let Some(batch) = end.batch(now) {
                peer.wire.extend(batch);
            }
        }
        Action::Deliver { bytes } => end.deliver(now, bytes).unwrap(),
    }
}

/// Finishes every half, lets everybody read, and waits for silence.
fn finish(pair: &mut Pair, model: &mut Model) {
    for _ in 0..2_000 {
        for instance in [false, true] {
            let (end, _) = ends(pair, instance);
            for number in 0..end.app.streams.len() {
                end.consume_all(number);
                let seen = &end.app.streams[number];
                let (Some(id), false) = (seen.id, seen.retired) else {
                    continue;
                };
                if end.channel.send(id, Bytes::new(), End::Stream).is_ok() {
                    let written = model.entry((instance, id)).or_default();
                    written.parts.push(written.data.len());
                    written.finished = true;
                }
            }
        }
        pair.settle_acks();
        let done = |end: &Endpoint| end.app.streams.iter().all(|seen| seen.retired);
        if done(&pair.point) && done(&pair.instance) {
            return;
        }
    }
    panic!("streams do not end: {pair:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    // R-DATA-3, R-OPEN-3, R-STREAM-1, R-STREAM-4
    #[test]
    fn readers_see_exactly_what_was_written(
        actions in vec((any::<bool>(), action()), 0..120),
        max_streams in 1..8u32,
        window_kib in 16..40u32,
    ) {
        let limits = Limits { max_streams, window_bytes: window_kib * 1024 };
        let config = Config { local: limits, peer: limits, ..Config::default() };
        let mut pair = Pair::new(&config);
        let mut model = Model::new();
        let mut seed = 0;
        for (instance, action) in actions {
            apply(&mut pair, &mut model, instance, action, &mut seed);
        }
        finish(&mut pair, &mut model);
        for instance in [false, true] {
            let (end, _) = ends(&mut pair, instance);
            for seen in &end.app.streams {
                let id = seen.id.unwrap();
                let uses = end.app.streams.iter().filter(|other| other.id == seen.id).count();
                prop_assert_eq!(uses, 1, "an id and generation twice");
                let written = &model[&(!instance, id)];
                prop_assert!(written.data.starts_with(&seen.data));
                prop_assert!(written.parts.starts_with(&seen.parts));
                if written.finished && !written.abandoned {
                    prop_assert_eq!(seen.ended, 1);
                    prop_assert_eq!(&seen.data, &written.data);
                    prop_assert_eq!(&seen.parts, &written.parts);
                }
            }
            for _ in 0..end.channel.counters().unfinished {
                end.channel.complete();
            }
            let counters = end.channel.counters();
            prop_assert_eq!((counters.live, counters.ring_bytes), (0, 0));
            prop_assert_eq!((counters.queued_bytes, counters.unfinished), (0, 0));
        }
    }
}
