//! A peer that floods, or reads nothing.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmgmux_mux::frame::{Control, FIN, kind};
use cmgmux_mux::{CloseCode, Config, End, StreamCode, StreamId};

use crate::abuse::Victim;
use crate::frames::{OPEN, WINDOW, control, frame, split, theirs};

/// Feeds `frame` until it is refused, or `most` times, and says how often it was not.
fn flood(victim: &mut Victim, most: u32, mut frame: impl FnMut(u32) -> BytesMut) -> u32 {
    for number in 0..most {
        if let Err(error) = victim.feed(frame(number)) {
            assert_eq!(error.code(), CloseCode::CHURN, "{error}");
            return number;
        }
    }
    most
}

// R-CHURN-1
#[test]
fn i7_more_pings_than_the_churn_limit_end_the_channel() {
    let ping = |number| control(&Control::Ping { id: u64::from(number) }, StreamId::CHANNEL);
    assert_eq!(flood(&mut Victim::new(), 70_000, ping), 65_536);
    let mut patient = Victim::new();
    for number in 0..200_000 {
        patient.now = patient.now.after(Duration::from_micros(100));
        patient.feed(ping(number)).unwrap();
    }
    patient.feed(frame(kind::DATA, FIN, patient.stream, b"unharmed")).unwrap();
    assert_eq!(patient.end.app.streams[0].data, b"unharmed");
}

// R-CHURN-1, R-CREDIT-8
#[test]
fn i7_stops_and_credits_that_change_nothing_are_churn() {
    let mut victim = Victim::new();
    let stream = victim.stream;
    let stop = |_| control(&Control::Stop { code: 1 }, stream);
    assert_eq!(flood(&mut victim, 140_000, stop), 2 * 65_536);
    let max = |number| u64::from(WINDOW + number * 4_095);
    let credit = |number| control(&Control::Credit { max: max(number) }, stream);
    assert_eq!(flood(&mut Victim::new(), 70_000, credit), 65_536);
    let max = |number| u64::from(WINDOW) + (u64::from(number) + 1) * 4_096;
    let credit = |number| control(&Control::Credit { max: max(number) }, stream);
    assert_eq!(flood(&mut Victim::new(), 70_000, credit), 70_000, "credit that matters is not");
}

#[test]
fn a_queue_takes_what_belongs_to_the_last_piece_and_no_parts_without_end() {
    let mut victim = Victim::new();
    let (stream, channel) = (victim.stream, &mut victim.end.channel);
    for _ in 0..1_985 {
        channel.send(stream, Bytes::from_static(b"x"), End::None).unwrap();
    }
    assert_eq!(channel.has_room(stream), Ok(true), "31 of 65,536 are left");
    channel.send(stream, Bytes::new(), End::Part).unwrap();
    assert_eq!(channel.has_room(stream), Ok(false));
    let more = (0..10_000).take_while(|_| channel.send(stream, Bytes::new(), End::Part).is_ok());
    assert_eq!(more.count(), 4_096 - 2_048);
}

// R-CHURN-2
#[test]
fn credits_that_cross_the_end_of_their_stream_are_no_churn() {
    let mut victim = Victim::new();
    for number in 0..100_000u32 {
        let id = theirs(number % 1_000 + 2, number / 1_000 % 256);
        victim.feed(frame(kind::OPEN, FIN, id, &OPEN)).unwrap();
        victim.end.channel.send(id, Bytes::new(), End::Stream).unwrap();
        while victim.end.acknowledged_batch(victim.now).is_some() {}
        victim.end.channel.complete();
        for more in 1..=2 {
            let max = u64::from(WINDOW) * (1 + more);
            victim.feed(control(&Control::Credit { max }, id)).unwrap();
        }
    }
    let late = |_| control(&Control::Credit { max: u64::MAX }, theirs(2, 0));
    assert_eq!(flood(&mut victim, 70_000, late), 65_536);
}

// R-CHURN-1, R-TICKET-2
#[test]
fn i8_streams_opened_and_reset_at_once_are_neither_free_nor_many() {
    let mut victim = Victim::new();
    let open_and_reset = |number: u32| {
        // The connection point opens what a cancelled stream has taken its ticket from.
        let id = theirs(number % 1_000 + 2, number / 1_000 % 256);
        let mut bytes = frame(kind::OPEN, 0, id, &OPEN);
        bytes.unsplit(control(&Control::Reset { code: 1, offset: 0 }, id));
        bytes
    };
    let mut taken = 0;
    let error = loop {
        if let Err(error) = victim.feed(open_and_reset(taken)) {
            break error;
        }
        taken += 1;
        let counters = victim.end.channel.counters();
        assert!(u64::from(counters.live) + counters.unfinished <= 65_536, "{counters:?}");
        // The handler notices and ends.
        let id = victim.end.app.streams.last().unwrap().id.unwrap();
        victim.end.channel.reset(id, StreamCode::CANCELLED);
        while victim.end.acknowledged_batch(victim.now).is_some() {}
        victim.end.channel.complete();
    };
    assert_eq!((error.code(), taken), (CloseCode::CHURN, 2 * 65_536));
}

const RING_BYTES: u64 = 100_000;
const BATCH: u64 = 16 * 1024;

/// A peer that acknowledges nothing, whose stream has all the credit that there is, once data has filled the
/// ring; and `others` more streams, which it has acknowledged.
fn full_ring(others: usize) -> (Victim, Vec<StreamId>) {
    let mut victim = Victim::with(&Config { ring_bytes: RING_BYTES, ..Config::default() });
    let others = (0..others).map(|_| victim.end.open().unwrap()).collect();
    while victim.end.acknowledged_batch(victim.now).is_some() {}
    let stream = victim.stream;
    victim.feed(control(&Control::Credit { max: u64::MAX }, stream)).unwrap();
    let piece = Bytes::from(vec![7; 60_000]);
    loop {
        let before = victim.end.channel.counters().ring_bytes;
        while victim.end.channel.has_room(stream).unwrap() {
            victim.end.channel.send(stream, piece.clone(), End::None).unwrap();
        }
        while victim.end.batch(victim.now).is_some() {}
        let after = victim.end.channel.counters().ring_bytes;
        if before == after {
            assert!((RING_BYTES..RING_BYTES + BATCH).contains(&after), "{after}");
            return (victim, others);
        }
    }
}

// R-ACK-5
#[test]
fn j7_a_peer_that_never_acknowledges_holds_its_writers_at_the_cap() {
    let (mut victim, _) = full_ring(0);
    let held = victim.end.channel.counters().ring_bytes;
    assert!(victim.end.channel.counters().queued_bytes <= 64 * 1024 + 60_000);
    for _ in 0..100 {
        let id = victim.end.open().unwrap();
        victim.end.channel.send(id, vec![1; 1_000].into(), End::None).unwrap();
        while victim.end.batch(victim.now).is_some() {}
    }
    let counters = victim.end.channel.counters();
    assert_eq!(counters.ring_bytes, held);
    victim.end.channel.handle_link_lost(victim.now);
    assert_eq!(victim.end.channel.has_room(victim.stream), Ok(false), "nor without a link");
}

// R-ACK-5
#[test]
fn j7_frames_without_data_stop_behind_their_own_share_of_the_ring() {
    let (mut victim, others) = full_ring(12_000);
    for id in others {
        victim.end.channel.reset(id, StreamCode::CANCELLED);
        victim.end.stop(id, StreamCode::CANCELLED);
    }
    while victim.end.batch(victim.now).is_some() {}
    let held = victim.end.channel.counters().ring_bytes;
    let most = RING_BYTES + 256 * 1024;
    assert!((most..most + BATCH).contains(&held), "{held}");
}

// R-CREDIT-7, R-ACK-5
#[test]
fn i16_with_all_data_stalled_every_frame_without_data_goes_out() {
    let (mut victim, _) = full_ring(0);
    let stream = victim.stream;
    let other = theirs(2, 0);
    victim.feed(frame(kind::OPEN, 0, other, &OPEN)).unwrap();
    let half = vec![0; (WINDOW / 2) as usize];
    for part in half.chunks(16_000) {
        victim.feed(frame(kind::DATA, 0, other, part)).unwrap();
    }
    victim.end.consume_all(1);
    victim.feed(control(&Control::Ping { id: 5 }, StreamId::CHANNEL)).unwrap();
    victim.end.channel.reset(stream, StreamCode(0x111));
    victim.end.stop(stream, StreamCode(0x112));
    let batch = victim.end.batch(victim.now).unwrap();
    let kinds: Vec<u8> = split(&batch).iter().map(|(header, _)| header.kind).collect();
    assert_eq!(kinds, [kind::PONG, kind::ACK, kind::CREDIT, kind::RESET, kind::STOP]);
}
