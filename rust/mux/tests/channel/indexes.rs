//! I11: the indexes of streams, up to the highest one and again from below.

use std::collections::BTreeSet;

use bytes::Bytes;
use cmgmux_mux::frame::{FIN, kind};
use cmgmux_mux::{
    CloseCode, Config, End, Limits, Side, StreamCode, StreamId, Timestamp, UsageError,
};

use crate::abuse::Victim;
use crate::frames::{OPEN, frame, theirs};
use crate::pair::{Endpoint, Pair};

/// More than a page of slots.
const STREAMS: u32 = 300;

fn index(id: StreamId) -> u32 {
    id.to_wire() & 0x7f_ffff
}

/// Lets both halves of a stream of the instance's say something and end, and its handler end.
fn conclude(pair: &mut Pair, id: StreamId) {
    let text = Bytes::from(id.to_string());
    pair.instance.channel.send(id, text.clone(), End::Stream).unwrap();
    pair.point.channel.send(id, text.clone(), End::Stream).unwrap();
    pair.settle();
    for end in [&mut pair.point, &mut pair.instance] {
        let number = end.app.streams.iter().rposition(|seen| seen.id == Some(id)).unwrap();
        end.consume_all(number);
        let seen = &end.app.streams[number];
        assert_eq!((&seen.data[..], seen.ended, seen.retired), (&text[..], 1, true), "{id}");
    }
    pair.point.channel.complete();
}

/// Opens a stream; the last tickets come once there are no others.
fn open_one(pair: &mut Pair) -> StreamId {
    if let Ok(id) = pair.instance.open() {
        return id;
    }
    pair.settle_acks();
    pair.instance.open().unwrap()
}

// R-OPEN-2, R-OPEN-3, R-TICKET-1
#[test]
fn i11_all_indexes_are_used_and_those_that_are_free_again_like_fresh_ones() {
    let limits = Limits { max_streams: STREAMS, ..Limits::default() };
    let mut pair = Pair::new(&Config { local: limits, peer: limits, ..Config::default() });
    let mut open: Vec<StreamId> = Vec::new();
    let mut ever = BTreeSet::new();
    for round in 0..5 {
        let ended: BTreeSet<u32> = match round {
            0 => (1..=STREAMS).collect(),
            // Another third of them in each round, the highest one among them, from anywhere.
            _ => {
                let goes =
                    |id: &StreamId| (index(*id) + round).is_multiple_of(3) || index(*id) == STREAMS;
                let (going, staying): (Vec<_>, Vec<_>) = open.into_iter().partition(goes);
                open = staying;
                let (first, last) = going.split_at(going.len() / 2);
                last.iter().chain(first.iter().rev()).for_each(|id| conclude(&mut pair, *id));
                pair.settle_acks();
                going.into_iter().map(index).collect()
            }
        };
        assert!(ended.len() >= 100 && ended.contains(&STREAMS), "round {round}");
        let fresh: Vec<_> = ended.iter().map(|_| open_one(&mut pair)).collect();
        assert_eq!(fresh.iter().map(|id| index(*id)).collect::<BTreeSet<_>>(), ended);
        assert_eq!(pair.instance.open(), Err(UsageError::NoTicket));
        assert!(fresh.iter().all(|id| ever.insert(*id)), "an id means two streams");
        open.extend(fresh);
        pair.settle_acks();
        let counters = pair.point.channel.counters();
        assert_eq!((counters.live, counters.accepted), (STREAMS, ever.len() as u64));
    }
    open.into_iter().for_each(|id| conclude(&mut pair, id));
    assert_eq!(pair.point.channel.counters().live, 0);
}

// R-OPEN-2
#[test]
fn i11_a_peer_may_begin_with_the_highest_index_and_none_is_beyond_it() {
    for highest in [2, 255, 256, 257, 1_000, Limits::MAX_STREAMS] {
        let limits = Limits { max_streams: highest, ..Limits::default() };
        let config = Config { local: limits, ..Config::default() };
        let end = Endpoint::new(Side::ConnectionPoint, config);
        let mut victim = Victim { end, stream: theirs(highest, 0), now: Timestamp::ZERO };
        let open = |index, generation| frame(kind::OPEN, 0, theirs(index, generation), &OPEN);
        victim.feed(open(highest, 0)).unwrap();
        for beyond in [highest + 1, Limits::MAX_STREAMS, 0] {
            if beyond != highest {
                victim.refuses(open(beyond, 0), CloseCode::STREAM_STATE);
            }
        }
        victim.refuses(open(highest, 1), CloseCode::STREAM_STATE);
        let lower: BTreeSet<u32> = [1, highest / 2, highest - 1].into();
        for index in lower.into_iter().rev().filter(|index| (1..highest).contains(index)) {
            victim.feed(open(index, 0)).unwrap();
        }
    }
}

// R-OPEN-2, R-STREAM-4
#[test]
fn i11_the_highest_index_wraps_its_generations_and_its_neighbour_does_not_notice() {
    let highest = Limits::MAX_STREAMS;
    let limits = Limits { max_streams: highest, ..Limits::default() };
    let config = Config { local: limits, ..Config::default() };
    let end = Endpoint::new(Side::ConnectionPoint, config);
    let mut victim = Victim { end, stream: theirs(1, 0), now: Timestamp::ZERO };
    for neighbour in [1, highest - 1] {
        victim.feed(frame(kind::OPEN, 0, theirs(neighbour, 0), &OPEN)).unwrap();
    }
    for round in 0..600 {
        let id = theirs(highest, round % 256);
        let body = [&OPEN[..], id.to_string().as_bytes()].concat();
        victim.refuses(
            frame(kind::OPEN, FIN, theirs(highest, (round + 1) % 256), &body),
            CloseCode::STREAM_STATE,
        );
        victim.feed(frame(kind::OPEN, FIN, id, &body)).unwrap();
        let number = victim.end.app.streams.len() - 1;
        let seen = &victim.end.app.streams[number];
        assert_eq!((&seen.data[..], seen.ended), (id.to_string().as_bytes(), 1));
        victim.end.consume_all(number);
        victim.end.channel.reset(id, StreamCode::CANCELLED);
        while victim.end.acknowledged_batch(victim.now).is_some() {}
        victim.end.channel.complete();
    }
    for (number, neighbour) in [1, highest - 1].into_iter().enumerate() {
        victim.feed(frame(kind::DATA, FIN, theirs(neighbour, 0), b"unharmed")).unwrap();
        assert_eq!(victim.end.app.streams[number].data, b"unharmed");
    }
}
