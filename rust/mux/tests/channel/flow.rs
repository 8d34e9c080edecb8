//! What is in flight, what is granted, and what the application may leave unread.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use cmgmux_mux::frame::{Header, kind};
use cmgmux_mux::{Config, End, FRAME_CHARGE, Limits, StreamCode, StreamId, UsageError};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::frames::split;
use crate::pair::{Endpoint, Pair};

const BUDGET: u64 = 256 * 1024;

/// Much to send, and credit for it.
fn wide() -> Config {
    let limits = Limits { window_bytes: 1 << 24, ..Limits::default() };
    Config { queue_bytes: 1 << 22, local: limits, peer: limits, ..Config::default() }
}

/// A small receive budget.
fn tight() -> Config {
    Config { budget_bytes: BUDGET, ..Config::default() }
}

fn in_flight(end: &Endpoint) -> u64 {
    end.channel.counters().ring_bytes
}

#[test]
fn without_an_acknowledgement_bulk_stops_and_small_messages_go_on_for_a_while() {
    let mut pair = Pair::new(&wide());
    let bulk = pair.instance.open().unwrap();
    let small = pair.instance.open().unwrap();
    pair.instance.channel.send(bulk, Bytes::from(vec![0; 1 << 20]), End::None).unwrap();
    while pair.instance.batch(pair.now).is_some() {}
    let held = in_flight(&pair.instance);
    assert!((240 * 1024..272 * 1024).contains(&held), "{held}");
    pair.instance.channel.send(small, Bytes::from(vec![1; 300]), End::Part).unwrap();
    let batch = pair.instance.batch(pair.now).unwrap();
    assert_eq!(Header::decode(&batch).unwrap().unwrap().stream, small);
    pair.instance.channel.stop(bulk, StreamCode::CANCELLED);
    for _ in 0..1_000 {
        let message = pair.instance.channel.send(small, Bytes::from(vec![1; 300]), End::Part);
        message.unwrap();
        while pair.instance.batch(pair.now).is_some() {}
    }
    let held = in_flight(&pair.instance);
    assert!((310 * 1024..340 * 1024).contains(&held), "the reserve has an end: {held}");
}

#[test]
fn the_window_of_a_stream_that_is_read_at_once_grows_and_is_small_again_after_a_pause() {
    let delay = Duration::from_millis(20);
    let mut pair = Pair::new(&Config { queue_bytes: 1 << 24, ..Config::default() });
    let id = pair.instance.open().unwrap();
    pair.instance.channel.send(id, Bytes::from(vec![0; 12 << 20]), End::None).unwrap();
    assert!(pair.round_trip(delay, 0) <= 40 * 1024);
    let carried: Vec<usize> = (0..20).map(|_| pair.round_trip(delay, 0)).collect();
    assert!(carried.iter().any(|bytes| *bytes > 250 * 1024), "{carried:?}");
    pair.now = pair.now.after(Duration::from_secs(10));
    pair.round_trip(delay, 0);
    pair.round_trip(delay, 0);
    let carried = pair.round_trip(delay, 0);
    assert!(carried <= 80 * 1024, "{carried}");
}

/// Opens a stream and sends on it what most of its window holds; the reader gets it and sleeps.
fn leave_unread(pair: &mut Pair, end: End) -> StreamId {
    let id = pair.instance.open().unwrap();
    pair.instance.channel.send(id, Bytes::from(vec![7; 30_000]), end).unwrap();
    pair.settle();
    id
}

fn given_up(pair: &Pair) -> Vec<usize> {
    let seen = pair.point.app.streams.iter().enumerate();
    seen.filter(|(_, seen)| seen.too_slow).map(|(number, _)| number).collect()
}

#[test]
fn windows_grow_while_a_quarter_of_the_budget_is_not_unread() {
    let delay = Duration::from_millis(20);
    for (sleepers, grows) in [(8, true), (9, false)] {
        let config = Config { budget_bytes: 1 << 20, queue_bytes: 1 << 24, ..Config::default() };
        let mut pair = Pair::new(&config);
        for _ in 0..sleepers {
            leave_unread(&mut pair, End::None);
        }
        let id = pair.instance.open().unwrap();
        pair.instance.channel.send(id, Bytes::from(vec![0; 4 << 20]), End::None).unwrap();
        let carried: Vec<usize> = (0..20).map(|_| pair.round_trip(delay, sleepers)).collect();
        let has_grown = carried.iter().any(|bytes| *bytes > 40 * 1024);
        assert_eq!(has_grown, grows, "{sleepers} sleepers: {carried:?}");
    }
}

#[test]
fn beyond_the_budget_the_streams_unread_for_longest_are_given_up() {
    let mut pair = Pair::new(&tight());
    for round in 0..20 {
        leave_unread(&mut pair, End::None);
        let unread = pair.point.channel.counters().unread_bytes;
        assert!(unread <= BUDGET, "round {round}: {unread}");
    }
    assert_eq!(given_up(&pair), (0..12).collect::<Vec<_>>());
    assert_eq!(pair.point.channel.counters().slow_consumers, 12);
    for (number, seen) in pair.instance.app.streams.iter().enumerate() {
        let expected = (number < 12).then_some(StreamCode::SLOW_CONSUMER);
        assert_eq!(seen.stopped, expected, "{number}");
    }
    let refused = pair.instance.channel.send(
        pair.instance.app.streams[0].id.unwrap(),
        Bytes::from_static(b"more"),
        End::None,
    );
    assert_eq!(refused, Err(UsageError::Closed));
}

#[test]
fn a_stream_that_was_read_meanwhile_is_not_the_slowest() {
    let mut pair = Pair::new(&tight());
    for _ in 0..8 {
        leave_unread(&mut pair, End::None);
    }
    let piece = pair.point.app.streams[0].unread.remove(0);
    pair.point.channel.consume(pair.point.app.streams[0].id.unwrap(), piece);
    leave_unread(&mut pair, End::None);
    leave_unread(&mut pair, End::None);
    assert_eq!(given_up(&pair), [1]);
}

#[test]
fn what_streams_hold_that_have_ended_counts_as_well() {
    let mut pair = Pair::new(&tight());
    for _ in 0..20 {
        let id = leave_unread(&mut pair, End::Stream);
        pair.point.channel.send(id, Bytes::new(), End::Stream).unwrap();
        pair.settle();
    }
    assert!(pair.point.app.streams.iter().all(|seen| seen.retired));
    assert_eq!(given_up(&pair), (0..12).collect::<Vec<_>>());
    for stream in 0..20 {
        pair.point.consume_all(stream);
    }
    assert_eq!(pair.point.channel.counters().unread_bytes, 0);
}

#[test]
fn what_still_arrives_for_a_stream_that_was_given_up_is_dropped_and_holds_nothing() {
    let mut pair = Pair::new(&tight());
    let slow = leave_unread(&mut pair, End::None);
    let batch = |pair: &mut Pair| pair.instance.batch(pair.now).unwrap();
    let mut crossing = Vec::new();
    for _ in 0..8 {
        let id = pair.instance.open().unwrap();
        pair.instance.channel.send(id, Bytes::from(vec![7; 15_000]), End::None).unwrap();
        crossing.extend(batch(&mut pair));
        pair.instance.channel.send(id, Bytes::from(vec![7; 15_000]), End::None).unwrap();
        crossing.extend(batch(&mut pair));
    }
    pair.instance.channel.send(slow, Bytes::from(vec![7; 5_000]), End::Stream).unwrap();
    let late = batch(&mut pair);
    pair.point.wire.extend(crossing);
    pair.point.deliver(pair.now, usize::MAX).unwrap();
    assert_eq!(given_up(&pair), [0]);
    let before = pair.point.channel.counters().unread_bytes;
    pair.point.wire.extend(late);
    pair.settle();
    assert_eq!(pair.point.channel.counters().unread_bytes, before);
    assert_eq!(pair.point.app.streams[0].data.len(), 30_000);
}

#[test]
fn a_reset_a_stop_and_a_release_return_exactly_what_was_unread() {
    let mut pair = Pair::new(&Config::default());
    let held = |pair: &Pair| pair.point.channel.counters().unread_bytes;
    let reset = leave_unread(&mut pair, End::None);
    let stopped = leave_unread(&mut pair, End::None);
    let released = leave_unread(&mut pair, End::Stream);
    let each = 30_000 + 2 * u64::from(FRAME_CHARGE);
    assert_eq!(held(&pair), 3 * each);
    pair.instance.channel.reset(reset, StreamCode::CANCELLED);
    pair.settle();
    assert_eq!(held(&pair), 2 * each);
    pair.point.stop(stopped, StreamCode::CANCELLED);
    assert_eq!(held(&pair), each);
    pair.point.channel.reset(released, StreamCode::CANCELLED);
    pair.point.channel.release(released);
    assert_eq!(held(&pair), 0);
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Send { stream: usize, bytes: usize },
    Consume { stream: usize },
    Flush { instance: bool },
    Deliver { instance: bool, bytes: usize },
    Wait { ms: u64 },
}

const STREAMS: usize = 5;

fn action() -> impl Strategy<Value = Action> {
    let bytes = || prop_oneof![1..20usize, 100..3_000usize, 10_000..60_000usize, Just(usize::MAX)];
    prop_oneof![
        4 => (0..STREAMS, prop_oneof![1..300usize, 5_000..60_000usize])
            .prop_map(|(stream, bytes)| Action::Send { stream, bytes }),
        4 => (0..STREAMS).prop_map(|stream| Action::Consume { stream }),
        4 => any::<bool>().prop_map(|instance| Action::Flush { instance }),
        6 => (any::<bool>(), bytes())
            .prop_map(|(instance, bytes)| Action::Deliver { instance, bytes }),
        1 => (1..11_000u64).prop_map(|ms| Action::Wait { ms }),
    ]
}

/// What the wire has shown of the credit of each stream that the instance sends on.
#[derive(Default)]
struct Ledger {
    ids: Vec<StreamId>,
    sent: Vec<u64>,
    granted: Vec<u64>,
    /// Granted, and arrived at the sender.
    allowed: Vec<u64>,
    /// Under way to the sender: bytes up to a CREDIT's end, its stream and limit.
    coming: VecDeque<(usize, usize, u64)>,
    /// Bytes written to the sender, and arrived there.
    written: usize,
    arrived: usize,
}

impl Ledger {
    fn look(&mut self, bytes: &[u8], instance: bool) {
        for (header, frame) in split(bytes) {
            self.written += if instance { 0 } else { frame.len() };
            let Some(stream) = self.ids.iter().position(|id| *id == header.stream) else {
                continue;
            };
            if header.kind == kind::DATA {
                self.sent[stream] += u64::from(header.length + FRAME_CHARGE);
                assert!(self.sent[stream] <= self.allowed[stream], "sent beyond the credit");
            }
            if header.kind == kind::CREDIT {
                let max = u64::from_le_bytes(frame[8..].try_into().unwrap());
                assert!(max >= self.granted[stream], "a limit was taken back");
                self.granted[stream] = max;
                self.coming.push_back((self.written, stream, max));
            }
        }
    }

    fn flush(&mut self, pair: &mut Pair, instance: bool) {
        let end = if instance { &mut pair.instance } else { &mut pair.point };
        let Some(batch) = end.batch(pair.now) else { return };
        self.look(&batch, instance);
        let peer = if instance { &mut pair.point } else { &mut pair.instance };
        peer.wire.extend(batch);
    }

    fn deliver(&mut self, pair: &mut Pair, instance: bool, bytes: usize) {
        let end = if instance { &mut pair.instance } else { &mut pair.point };
        end.deliver(pair.now, bytes).unwrap();
        if instance {
            self.arrived = self.written - end.wire.len();
            while let Some((at, stream, max)) = self.coming.front().copied() {
                if at > self.arrived {
                    break;
                }
                self.coming.pop_front();
                self.allowed[stream] = max;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn credit_is_kept_never_taken_back_and_sleepers_stop_nobody_else(
        actions in vec(action(), 0..200),
        asleep in 0..1usize << STREAMS,
        window_kib in 16..64u32,
    ) {
        let limits = Limits { window_bytes: window_kib * 1024, ..Limits::default() };
        let config = Config { local: limits, peer: limits, ..Config::default() };
        let mut pair = Pair::new(&config);
        let ids: Vec<_> = (0..STREAMS).map(|_| pair.instance.open().unwrap()).collect();
        pair.settle_acks();
        let window = vec![u64::from(limits.window_bytes); STREAMS];
        let mut ledger =
            Ledger { ids, granted: window.clone(), allowed: window, ..Ledger::default() };
        ledger.sent = vec![0; STREAMS];
        let mut written = [0; STREAMS];
        let sleeps = |stream: usize| asleep >> stream & 1 == 1;
        for action in actions {
            match action {
                Action::Send { stream, bytes } => {
                    let data = Bytes::from(vec![0; bytes]);
                    if pair.instance.channel.send(ledger.ids[stream], data, End::None).is_ok() {
                        written[stream] += bytes;
                    }
                }
                Action::Consume { stream } if !sleeps(stream) => pair.point.consume_all(stream),
                Action::Consume { .. } => {}
                Action::Flush { instance } => ledger.flush(&mut pair, instance),
                Action::Deliver { instance, bytes } => ledger.deliver(&mut pair, instance, bytes),
                Action::Wait { ms } => pair.now = pair.now.after(Duration::from_millis(ms)),
            }
        }
        for woken in [false, true] {
            for _ in 0..100 {
                for stream in (0..STREAMS).filter(|stream| woken || !sleeps(*stream)) {
                    pair.point.consume_all(stream);
                }
                pair.settle_acks();
            }
            for stream in (0..STREAMS).filter(|stream| woken || !sleeps(*stream)) {
                prop_assert_eq!(pair.point.app.streams[stream].data.len(), written[stream]);
            }
        }
        prop_assert_eq!(pair.point.channel.counters().unread_bytes, 0);
    }
}
