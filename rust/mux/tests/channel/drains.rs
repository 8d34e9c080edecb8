//! GOAWAY, from a hostile peer and towards one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmgmux_mux::frame::{Control, FIN, kind};
use cmgmux_mux::{CloseCode, Config, End, StreamCode, StreamId};

use crate::abuse::Victim;
use crate::frames::{control, frame, split, theirs};
use crate::pair::Pair;

/// The frames that an end has to send, but for OPEN and DATA.
fn says(victim: &mut Victim) -> Vec<(StreamId, Control)> {
    let mut frames = Vec::new();
    while let Some(batch) = victim.end.acknowledged_batch(victim.now) {
        for (header, frame) in split(&batch) {
            let control = Control::decode(&header, &frame[8..]).unwrap();
            if !matches!(control, Control::Ack { .. }) {
                frames.push((header.stream, control));
            }
        }
    }
    frames
}

fn go_away(opens_accepted: u64) -> BytesMut {
    let go_away = Control::GoAway { opens_accepted, code: 0, grace_ms: 1_000 };
    control(&go_away, StreamId::CHANNEL)
}

// R-GOAWAY-4
#[test]
fn i17_a_go_away_that_counts_more_than_was_opened_or_than_before_is_refused() {
    let mut victim = Victim::new();
    victim.refuses(go_away(1), CloseCode::ACK_RANGE);
    assert_eq!(victim.end.app.draining, None);
    for _ in 0..2 {
        victim.end.open().unwrap();
    }
    victim.refuses(go_away(1), CloseCode::ACK_RANGE);
    while victim.end.batch(victim.now).is_some() {}
    victim.refuses(go_away(3), CloseCode::ACK_RANGE);
    for count in [2, 2, 1, 1, 0] {
        victim.feed(go_away(count)).unwrap();
    }
    victim.refuses(go_away(1), CloseCode::ACK_RANGE);
}

// R-ACK-2
#[test]
fn i17_a_go_away_from_a_peer_that_acknowledged_a_part_of_a_frame_is_refused() {
    for position in [1, 5, 12, 17] {
        let mut victim = Victim::new();
        for _ in 0..2 {
            victim.end.open().unwrap();
        }
        while victim.end.batch(victim.now).is_some() {}
        let ack = Control::Ack { rx_pos: position, delay_us: 0 };
        victim.feed(control(&ack, StreamId::CHANNEL)).unwrap();
        if position == 12 {
            victim.feed(go_away(0)).unwrap();
        } else {
            victim.refuses(go_away(0), CloseCode::ACK_RANGE);
            assert_eq!(victim.end.app.draining, None);
        }
    }
}

// R-GOAWAY-5, R-GOAWAY-6
#[test]
fn i17_each_go_away_that_counts_fewer_refuses_those_between_and_the_same_again_nothing() {
    let mut victim = Victim::new();
    for _ in 0..4 {
        victim.end.open().unwrap();
    }
    while victim.end.batch(victim.now).is_some() {}
    for (count, first_refused) in [(4, 4), (3, 3), (3, 3), (1, 1), (1, 1), (0, 0), (0, 0)] {
        victim.feed(go_away(count)).unwrap();
        let refused: Vec<bool> =
            victim.end.app.streams[1..].iter().map(|stream| stream.reset.is_some()).collect();
        let expected: Vec<bool> = (0..4).map(|number| number >= first_refused).collect();
        assert_eq!(refused, expected, "after {count}");
    }
}

// R-GOAWAY-2, R-GOAWAY-3, R-GOAWAY-4, R-GOAWAY-5
#[test]
fn i17_opens_behind_a_go_away_are_refused_once_and_never_counted() {
    let mut victim = Victim::new();
    for round in 0..3 {
        victim.end.channel.go_away(CloseCode::SHUTDOWN, Duration::from_secs(3 - round));
        let mut said = says(&mut victim);
        let late = theirs(2 + u32::try_from(round).unwrap(), 0);
        let mut bytes = frame(kind::OPEN, 0, late, &[1, 0, 0, 0, b'x']);
        bytes.unsplit(frame(kind::DATA, FIN, late, b"y"));
        victim.feed(bytes).unwrap();
        said.extend(says(&mut victim));
        let counts: Vec<_> = said
            .iter()
            .filter_map(|(_, frame)| match frame {
                Control::GoAway { opens_accepted, grace_ms, .. } => {
                    Some((*opens_accepted, *grace_ms))
                }
                _ => None,
            })
            .collect();
        assert_eq!(counts, [(1, 3_000 - 1_000 * u32::try_from(round).unwrap())]);
        let refusals = said.iter().filter(|(stream, frame)| {
            *stream == late && matches!(frame, Control::Reset { code: 2, .. })
        });
        assert_eq!(refusals.count(), 1, "{said:?}");
        assert!(said.iter().all(|(stream, _)| *stream != victim.stream));
    }
    assert_eq!(victim.end.app.streams.len(), 1, "nobody saw them");
}

// R-GOAWAY-6
#[test]
fn i17_a_go_away_refuses_the_streams_that_crossed_it_even_if_nothing_more_arrives() {
    let mut pair = Pair::new(&Config::default());
    let seen = pair.instance.open().unwrap();
    pair.instance.channel.send(seen, Bytes::from_static(b"seen"), End::None).unwrap();
    pair.settle();
    pair.point.channel.go_away(CloseCode::SHUTDOWN, Duration::from_secs(5));
    let go_away = pair.point.batch(pair.now).unwrap();
    // One half-sent, one sent to its end, one given up and let go, one with more to send.
    let ids: Vec<_> = (0..4).map(|_| pair.instance.open().unwrap()).collect();
    let data = |bytes: &'static [u8]| Bytes::from_static(bytes);
    pair.instance.channel.send(ids[0], data(b"half"), End::None).unwrap();
    // It goes first, where a count that is off by one would leave it out.
    pair.point.wire.extend(pair.instance.batch(pair.now).unwrap());
    let channel = &mut pair.instance.channel;
    channel.send(ids[1], data(b"whole"), End::Stream).unwrap();
    channel.reset(ids[2], StreamCode::CANCELLED);
    pair.instance.stop(ids[2], StreamCode::CANCELLED);
    pair.instance.channel.release(ids[2]);
    pair.instance.channel.send(ids[3], Bytes::from(vec![0; 60_000]), End::Stream).unwrap();
    while let Some(batch) = pair.instance.batch(pair.now) {
        pair.point.wire.extend(batch);
    }
    pair.instance.wire.extend(go_away);
    pair.instance.deliver(pair.now, usize::MAX).unwrap();
    let refused = Some(StreamCode::REFUSED);
    let streams = &pair.instance.app.streams;
    let outcomes: Vec<_> = streams.iter().map(|s| (s.reset, s.stopped)).collect();
    let none = (None, None);
    let expected = [none, (refused, refused), (refused, None), none, (refused, refused)];
    assert_eq!(outcomes, expected);
    assert_eq!(pair.instance.channel.counters().queued_bytes, 0);
    // The peer's own refusals change nothing any more, and both ends forget the streams.
    pair.settle();
    assert_eq!(pair.point.app.streams.len(), 1, "nobody saw them");
    assert_eq!(pair.instance.channel.counters().live, 1);
    assert_eq!(pair.point.channel.counters().live, 1);
    let resets = pair.instance.app.streams.iter().filter(|s| s.reset.is_some()).count();
    assert_eq!(resets, 3);
}

// R-GOAWAY-7
#[test]
fn a_channel_has_drained_once_its_peer_has_everything_also_over_a_second_link() {
    let mut pair = Pair::new(&Config::default());
    let id = pair.instance.open().unwrap();
    pair.instance.channel.send(id, Bytes::from_static(b"question"), End::Stream).unwrap();
    pair.settle();
    pair.point.consume_all(0);
    pair.point.channel.send(id, Bytes::from_static(b"answer"), End::Stream).unwrap();
    pair.point.channel.complete();
    pair.point.channel.go_away(CloseCode::SHUTDOWN, Duration::from_secs(5));
    assert!(!pair.point.channel.has_drained(), "nothing is written yet");
    while pair.point.batch(pair.now).is_some() {}
    assert_eq!(pair.point.channel.counters().live, 0);
    assert!(!pair.point.channel.has_drained(), "the answer may be lost with the link");
    pair.cut();
    assert!(!pair.point.channel.has_drained(), "it is kept for the next link");
    pair.resume();
    pair.settle_acks();
    assert!(pair.point.channel.has_drained());
    assert_eq!(pair.instance.app.streams[0].data, b"answer");
}

// R-GOAWAY-1
#[test]
fn i17_streams_that_a_go_away_overtakes_never_go_out_and_are_refused_once() {
    let mut victim = Victim::new();
    let ids: Vec<_> = (0..4).map(|_| victim.end.open().unwrap()).collect();
    let channel = &mut victim.end.channel;
    channel.send(ids[0], Bytes::from_static(b"lost"), End::None).unwrap();
    channel.send(ids[1], Bytes::from_static(b"lost"), End::Stream).unwrap();
    channel.reset(ids[2], StreamCode::CANCELLED);
    victim.end.stop(ids[3], StreamCode::CANCELLED);
    victim.feed(go_away(0)).unwrap();
    assert_eq!(says(&mut victim).len(), 0);
    let refused = Some(StreamCode::REFUSED);
    let seen: Vec<_> =
        victim.end.app.streams[1..].iter().map(|s| (s.reset, s.stopped, s.retired)).collect();
    assert_eq!(
        seen,
        [
            (refused, refused, true),
            (refused, refused, true),
            (refused, None, true),
            (None, refused, true)
        ]
    );
    let counters = victim.end.channel.counters();
    assert_eq!((counters.live, counters.queued_bytes), (1, 0));
}
