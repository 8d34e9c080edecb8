//! Rules of `docs/protocol.md` that no other test has for its subject.

use std::time::Duration;

use bytes::Bytes;
use cmgmux_mux::frame::{Control, EOM, FIN, IGNORABLE, kind};
use cmgmux_mux::{
    CloseCode, Config, End, Expiry, FRAME_CHARGE, Limits, ProtocolError, ResumeCode, Resumed, Side,
    StreamCode, StreamId, Timestamp, UsageError,
};

use crate::frames::{OPEN, WINDOW, control, frame, split, theirs};
use crate::pair::{Endpoint, Pair};

fn decoded(batch: &[u8], kind: u8) -> Vec<Control> {
    split(batch)
        .into_iter()
        .filter(|(header, _)| header.kind == kind)
        .map(|(header, frame)| Control::decode(&header, &frame[8..]).unwrap())
        .collect()
}

/// A connection point and what its peer, played by the test, says to it.
struct Played {
    end: Endpoint,
    now: Timestamp,
}

impl Played {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(local: Limits) -> Self {
        let config = Config { local, ..Config::default() };
        Self { end: Endpoint::new(Side::ConnectionPoint, config), now: Timestamp::ZERO }
    }

    fn says(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.end.wire.extend_from_slice(bytes);
        self.end.deliver(self.now, usize::MAX)
    }

    fn opens(&mut self, stream: StreamId) {
        self.says(&frame(kind::OPEN, 0, stream, &OPEN)).unwrap();
    }

    fn hears(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(batch) = self.end.batch(self.now) {
            all.extend(batch);
        }
        all
    }

    fn waits(&mut self, time: Duration) -> Option<Expiry> {
        self.now = self.now.after(time);
        self.end.channel.handle_timeout(self.now)
    }
}

fn code(result: Result<(), ProtocolError>) -> Option<CloseCode> {
    result.err().map(|error| error.code())
}

// R-FRAME-4
#[test]
fn a_skipped_tracked_frame_counts_towards_the_position() {
    let mut peer = Played::new();
    let skipped = frame(0x0e, IGNORABLE | FIN, theirs(7, 3), b"a later version's");
    peer.says(&skipped).unwrap();
    assert_eq!(peer.end.app.streams.len(), 0);
    assert_eq!(peer.waits(Duration::from_millis(25)), None);
    let [Control::Ack { rx_pos, .. }] = decoded(&peer.hears(), kind::ACK)[..] else { panic!() };
    assert_eq!(rx_pos, skipped.len() as u64);
    let untracked = frame(0x1e, IGNORABLE, StreamId::CHANNEL, b"whatever");
    peer.says(&untracked).unwrap();
    assert_eq!(peer.waits(Duration::from_millis(25)), None);
    assert!(peer.hears().is_empty(), "it is acknowledged to nobody");
}

// R-FRAME-8
#[test]
fn nothing_behind_a_refused_frame_is_applied() {
    let mut peer = Played::new();
    peer.opens(theirs(1, 0));
    let mut bytes = frame(kind::DATA, 0, theirs(1, 0), b"fine");
    bytes.extend(frame(kind::DATA, 0, theirs(2, 0), b"not opened"));
    bytes.extend(frame(kind::DATA, 0, theirs(1, 0), b"behind it"));
    assert_eq!(code(peer.says(&bytes)), Some(CloseCode::STREAM_STATE));
    assert_eq!(peer.end.app.streams[0].data, b"fine");
}

// R-POS-1, R-POS-2, R-ACK-1
#[test]
fn the_position_is_the_end_of_the_last_whole_tracked_frame() {
    let mut peer = Played::new();
    let mut tracked = frame(kind::OPEN, 0, theirs(1, 0), &[1, 0, 0, 0, b'x']);
    tracked.extend(frame(kind::DATA, EOM, theirs(1, 0), &[9; 700]));
    tracked.extend(control(&Control::Tickets { max_opens: 70_000 }, StreamId::CHANNEL));
    let ping = control(&Control::Ping { id: 77 }, StreamId::CHANNEL);
    let partial = &frame(kind::DATA, EOM, theirs(1, 0), &[9; 700])[..707];
    peer.says(&[&ping[..], &tracked, partial].concat()).unwrap();
    let [Control::Pong { id, rx_pos }] = decoded(&peer.hears(), kind::PONG)[..] else { panic!() };
    assert_eq!((id, rx_pos), (77, tracked.len() as u64));
}

// R-ACK-3, R-ACK-4
#[test]
fn acknowledgements_wait_for_company_32_kib_or_25_ms_and_never_for_the_reader() {
    let mut peer = Played::with(Limits { window_bytes: 1 << 20, ..Limits::default() });
    peer.opens(theirs(1, 0));
    assert!(peer.hears().is_empty(), "not at once");
    peer.waits(Duration::from_millis(25));
    assert_eq!(decoded(&peer.hears(), kind::ACK).len(), 1, "after 25 ms");
    for _ in 0..4 {
        peer.says(&frame(kind::DATA, 0, theirs(1, 0), &[0; 8_184])).unwrap();
    }
    assert_eq!(decoded(&peer.hears(), kind::ACK).len(), 1, "after 32 KiB");
    peer.says(&frame(kind::DATA, 0, theirs(1, 0), b"x")).unwrap();
    peer.end.channel.send(theirs(1, 0), Bytes::from_static(b"y"), End::None).unwrap();
    assert_eq!(decoded(&peer.hears(), kind::ACK).len(), 1, "with the next batch");
}

// R-OPEN-6
#[test]
fn an_open_costs_its_data_s_charge_and_nothing_if_it_has_neither_data_nor_an_end() {
    for (flags, data, charge) in [(0, &b""[..], 0), (EOM, b"", 32), (0, b"abc", 35)] {
        for (offset, expected) in [(charge, None), (charge + 1, Some(CloseCode::STREAM_STATE))] {
            let mut peer = Played::new();
            peer.says(&frame(kind::OPEN, flags, theirs(1, 0), &[&OPEN, data].concat())).unwrap();
            let reset = control(&Control::Reset { code: 1, offset }, theirs(1, 0));
            assert_eq!(code(peer.says(&reset)), expected, "flags {flags}, {} bytes", data.len());
        }
    }
}

// R-DATA-2
#[test]
fn fin_ends_the_part_with_the_half() {
    let mut peer = Played::new();
    peer.opens(theirs(1, 0));
    peer.says(&frame(kind::DATA, FIN, theirs(1, 0), b"the end")).unwrap();
    let seen = &peer.end.app.streams[0];
    assert_eq!((&seen.parts[..], seen.ended), (&[7][..], 1));
}

// R-STREAM-1, R-STREAM-2, R-DATA-4, R-OPEN-2
#[test]
fn frames_for_ids_that_are_not_live_have_their_results() {
    let over = theirs(1, 0);
    let unopened = StreamId::from_wire(1);
    let mut peer = Played::new();
    peer.says(&frame(kind::OPEN, FIN, over, &OPEN)).unwrap();
    peer.end.channel.send(over, Bytes::new(), End::Stream).unwrap();
    assert_eq!(peer.end.channel.counters().live, 1, "its end is not encoded");
    peer.hears();
    assert_eq!(peer.end.channel.counters().live, 0);
    assert_eq!(peer.end.open(), Ok(unopened));
    let state = Some(CloseCode::STREAM_STATE);
    for (id, ignores) in [(over, true), (theirs(9, 0), false), (unopened, false)] {
        let late = if ignores { None } else { state };
        for (bytes, expected) in [
            (frame(kind::DATA, 0, id, b"x"), state),
            (control(&Control::Reset { code: 1, offset: 0 }, id), state),
            (control(&Control::Credit { max: u64::MAX }, id), late),
            (control(&Control::Stop { code: 1 }, id), late),
        ] {
            assert_eq!(code(peer.says(&bytes)), expected, "{id}: {bytes:02x?}");
            peer.end.lose_wire();
        }
    }
    assert_eq!(code(peer.says(&frame(kind::OPEN, 0, over, &OPEN))), state);
    peer.end.lose_wire();
    peer.opens(theirs(1, 1));
}

// R-STREAM-3
#[test]
fn the_128_generations_behind_the_next_are_over_and_others_were_never_opened() {
    let mut peer = Played::new();
    for generation in 0..130 {
        let stream = theirs(1, generation);
        peer.says(&frame(kind::OPEN, FIN, stream, &OPEN)).unwrap();
        peer.end.channel.send(stream, Bytes::new(), End::Stream).unwrap();
        peer.hears();
        peer.end.channel.complete();
    }
    let mut stops = |generation| {
        let result = peer.says(&control(&Control::Stop { code: 1 }, theirs(1, generation)));
        peer.end.lose_wire();
        code(result)
    };
    let unknown = Some(CloseCode::STREAM_STATE);
    assert_eq!([stops(2), stops(129)], [None, None]);
    assert_eq!([stops(0), stops(1), stops(130), stops(255)], [unknown; 4]);
}

// R-CREDIT-3, R-CREDIT-5, R-CREDIT-6
#[test]
fn credit_follows_use_once_less_than_half_the_window_is_left() {
    let mut peer = Played::new();
    let stream = theirs(1, 0);
    peer.opens(stream);
    let half = usize::try_from(WINDOW / 2 - FRAME_CHARGE).unwrap();
    peer.says(&frame(kind::DATA, 0, stream, &vec![0; half - 9_000])).unwrap();
    peer.says(&frame(kind::DATA, 0, stream, &vec![0; 9_000 - 32])).unwrap();
    peer.end.channel.consume(stream, half - 9_000);
    assert!(decoded(&peer.hears(), kind::CREDIT).is_empty(), "half of it is left");
    peer.says(&frame(kind::DATA, 0, stream, b"x")).unwrap();
    assert!(decoded(&peer.hears(), kind::CREDIT).is_empty(), "nothing was used since");
    peer.end.channel.consume(stream, 9_000 - 32);
    let unread = u64::from(1 + FRAME_CHARGE);
    let max = u64::from(WINDOW / 2) + unread + u64::from(WINDOW) - unread;
    assert_eq!(decoded(&peer.hears(), kind::CREDIT), [Control::Credit { max }]);
}

// R-CREDIT-7
#[test]
fn without_any_credit_every_frame_without_data_goes_out() {
    let mut pair = Pair::new(&Config::default());
    let ids: Vec<_> = (0..50).map(|_| pair.instance.open().unwrap()).collect();
    for id in &ids {
        pair.instance.channel.send(*id, vec![0; 60_000].into(), End::None).unwrap();
    }
    pair.settle();
    let stalled = pair.instance.channel.counters().queued_bytes;
    assert!(stalled > 50 * 20_000, "{stalled}");
    pair.instance.channel.reset(ids[0], StreamCode(0x111));
    pair.instance.stop(ids[1], StreamCode(0x112));
    pair.point.channel.send(ids[2], vec![7; 30_000].into(), End::Part).unwrap();
    pair.settle();
    pair.instance.consume_all(2);
    pair.point.channel.go_away(CloseCode::SHUTDOWN, Duration::from_secs(1));
    pair.settle();
    assert_eq!(pair.point.app.streams[0].reset, Some(StreamCode(0x111)));
    assert_eq!(pair.point.app.streams[1].stopped, Some(StreamCode(0x112)));
    assert_eq!(pair.instance.app.streams[2].data.len(), 30_000);
    assert_eq!(pair.instance.app.draining, Some(CloseCode::SHUTDOWN));
}

// R-TICKET-1, R-TICKET-3
#[test]
fn tickets_that_are_fewer_than_before_change_nothing() {
    let config =
        Config { peer: Limits { max_streams: 2, ..Limits::default() }, ..Config::default() };
    let mut peer =
        Played { end: Endpoint::new(Side::ConnectionPoint, config), now: Timestamp::ZERO };
    let tickets = |max_opens| control(&Control::Tickets { max_opens }, StreamId::CHANNEL);
    for fewer in [0, 1, 2] {
        peer.says(&tickets(fewer)).unwrap();
    }
    assert_eq!(peer.end.app.tickets, 0);
    let first = peer.end.open().unwrap();
    peer.end.open().unwrap();
    assert_eq!(peer.end.open(), Err(UsageError::NoTicket));
    peer.says(&tickets(3)).unwrap();
    peer.says(&tickets(0)).unwrap();
    assert_eq!(peer.end.app.tickets, 1);
    assert_eq!(peer.end.open(), Err(UsageError::NoTicket), "as many are open as may be");
    peer.end.channel.reset(first, StreamCode::CANCELLED);
    peer.hears();
    peer.says(&frame(kind::DATA, FIN, first, b"")).unwrap();
    peer.end.open().unwrap();
    assert_eq!(peer.end.open(), Err(UsageError::NoTicket));
}

// R-TICKET-2, R-TICKET-4
#[test]
fn tickets_go_out_by_the_eighth_or_when_the_opener_has_none_left() {
    let limits = Limits { max_streams: 16, ..Limits::default() };
    let mut peer = Played::with(limits);
    let end_one = |peer: &mut Played, index| {
        let stream = theirs(index, 0);
        peer.says(&frame(kind::OPEN, FIN, stream, &OPEN)).unwrap();
        peer.end.channel.reset(stream, StreamCode::CANCELLED);
        peer.hears()
    };
    let heard = end_one(&mut peer, 1);
    assert!(decoded(&heard, kind::TICKETS).is_empty(), "its handler has not ended");
    peer.end.channel.complete();
    assert!(decoded(&peer.hears(), kind::TICKETS).is_empty(), "fifteen are left");
    end_one(&mut peer, 2);
    peer.end.channel.complete();
    assert_eq!(decoded(&peer.hears(), kind::TICKETS), [Control::Tickets { max_opens: 18 }]);
    for index in 3..=16 {
        peer.opens(theirs(index, 0));
    }
    peer.opens(theirs(1, 1));
    peer.opens(theirs(2, 1));
    assert!(decoded(&peer.hears(), kind::TICKETS).is_empty());
    peer.says(&frame(kind::DATA, FIN, theirs(3, 0), b"")).unwrap();
    peer.end.channel.reset(theirs(3, 0), StreamCode::CANCELLED);
    peer.hears();
    peer.end.channel.complete();
    assert_eq!(decoded(&peer.hears(), kind::TICKETS), [Control::Tickets { max_opens: 19 }]);
}

// R-LIVE-1
#[test]
fn the_last_of_several_pings_is_answered() {
    let mut peer = Played::new();
    let pings: Vec<u8> =
        (1..=1_000).flat_map(|id| control(&Control::Ping { id }, StreamId::CHANNEL)).collect();
    peer.says(&pings).unwrap();
    assert_eq!(decoded(&peer.hears(), kind::PONG), [Control::Pong { id: 1_000, rx_pos: 0 }]);
}

// R-LIVE-2, R-LIVE-3
#[test]
fn while_bytes_wait_an_answer_without_progress_does_not_save_the_link() {
    let mut peer = Played::new();
    peer.opens(theirs(1, 0));
    peer.end.channel.send(theirs(1, 0), Bytes::from_static(b"x"), End::None).unwrap();
    peer.hears();
    let wait = peer.end.channel.next_deadline().since(peer.now);
    assert_eq!(peer.waits(wait), None);
    let [Control::Ping { id }] = decoded(&peer.hears(), kind::PING)[..] else { panic!() };
    peer.says(&control(&Control::Pong { id, rx_pos: 0 }, StreamId::CHANNEL)).unwrap();
    let wait = peer.end.channel.next_deadline().since(peer.now);
    assert_eq!(peer.waits(wait), Some(Expiry::Link));
}

// R-LIVE-4
#[test]
fn a_frame_that_dribbles_takes_its_link_with_it_and_not_the_channel() {
    let mut peer = Played::new();
    peer.opens(theirs(1, 0));
    let slow = frame(kind::DATA, FIN, theirs(1, 0), &[7; 500]);
    for byte in &slow[..300] {
        peer.says(&[*byte]).unwrap();
        assert_eq!(peer.waits(Duration::from_millis(100) - Duration::from_micros(1)), None);
        peer.hears();
    }
    assert_eq!(peer.waits(Duration::from_micros(300)), Some(Expiry::Frame));
    peer.end.lose_wire();
    peer.end.channel.handle_link_lost(peer.now);
    let claim = peer.end.channel.claim();
    let (tx_start, epoch) = (claim.rx_pos, claim.epoch);
    let resumed = Resumed { code: ResumeCode::ACCEPTED, epoch, rx_pos: 0, tx_start };
    assert!(peer.end.channel.handle_resumed(peer.now, &resumed).unwrap());
    assert_eq!(peer.waits(Duration::from_millis(1)), None);
    peer.says(&slow).unwrap();
    assert_eq!(peer.end.app.streams[0].data, [7; 500]);
}
