//! A peer that breaks the rules: each breach has its error and its code, and changes nothing else.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmgmux_mux::frame::{Control, EOM, FIN, Header, IGNORABLE, MAX_BODY, kind};
use cmgmux_mux::{
    CloseCode, Config, End, FRAME_CHARGE, Limits, ProtocolError, Side, StreamCode, StreamId,
    Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::pair::{Endpoint, Pair};

const WINDOW: u32 = 36 * 1024;

fn frame(kind: u8, flags: u8, stream: StreamId, body: &[u8]) -> BytesMut {
    let length = u32::try_from(body.len()).unwrap();
    let mut frame = BytesMut::from(&Header { length, kind, flags, stream }.encode()[..]);
    frame.extend_from_slice(body);
    frame
}

fn control(control: &Control, stream: StreamId) -> BytesMut {
    let mut frame = BytesMut::new();
    control.encode(stream, &mut frame);
    frame
}

/// A connection point with one stream, opened by the instance, as a hostile instance sees it.
struct Victim {
    end: Endpoint,
    stream: StreamId,
    now: Timestamp,
}

impl Victim {
    fn new() -> Self {
        let mut pair = Pair::new(&Config::default());
        let stream = pair.instance.open().unwrap();
        pair.settle();
        Self { end: pair.point, stream, now: pair.now }
    }

    fn feed(&mut self, mut bytes: BytesMut) -> Result<(), ProtocolError> {
        self.end.channel.handle_input(self.now, &mut bytes, &mut self.end.app)
    }

    /// The frames that it has to send, but for OPEN and DATA.
    fn says(&mut self) -> Vec<(StreamId, Control)> {
        let mut frames = Vec::new();
        while let Some(batch) = self.end.acknowledged_batch(self.now) {
            let mut rest = &batch[..];
            while let Some(header) = Header::decode(rest).unwrap() {
                let (frame, behind) = rest.split_at(header.frame_bytes());
                let control = Control::decode(&header, &frame[8..]).unwrap();
                if !matches!(control, Control::Ack { .. }) {
                    frames.push((header.stream, control));
                }
                rest = behind;
            }
        }
        frames
    }

    fn refuses(&mut self, bytes: BytesMut, code: CloseCode) {
        let before = (self.end.channel.counters(), self.end.app.streams[0].data.clone());
        let error = self.feed(bytes).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        let after = (self.end.channel.counters(), self.end.app.streams[0].data.clone());
        assert_eq!(after, before, "a refused frame changed something: {error}");
    }
}

/// The id that an instance's open number `index` has.
fn theirs(index: u32, generation: u32) -> StreamId {
    StreamId::from_wire(1 << 31 | generation << 23 | index)
}

// R-FRAME-1
#[test]
fn i2_a_frame_longer_than_allowed_is_refused_from_its_header() {
    let header = Header { length: 16_377, kind: kind::DATA, flags: 0, stream: theirs(1, 0) };
    Victim::new().refuses(BytesMut::from(&header.encode()[..]), CloseCode::FRAME_SIZE);
}

// R-FRAME-3, R-FRAME-5, R-FRAME-6, R-FRAME-7, R-FRAME-8, R-OPEN-5, R-CLOSE-3
#[test]
fn i3_malformed_frames_are_refused() {
    let mut victim = Victim::new();
    let stream = victim.stream;
    let channel = StreamId::CHANNEL;
    for bytes in [
        frame(kind::CREDIT, 0, stream, &[0; 7]),
        frame(kind::CREDIT, 0, stream, &[0; 9]),
        frame(kind::CREDIT, FIN, stream, &[0; 8]),
        frame(kind::CREDIT, 0, channel, &[0; 8]),
        frame(kind::ACK, 0, stream, &[0; 12]),
        frame(kind::PING, 0, channel, &[]),
        frame(kind::DATA, IGNORABLE, stream, b"x"),
        frame(kind::OPEN, 0, theirs(2, 0), &[1, 0, 0]),
        frame(kind::OPEN, 0, theirs(2, 0), &[2, 0, 0, 0]),
        frame(kind::OPEN, 0, theirs(2, 0), &[1, 0, 1, 0]),
        frame(kind::CLOSE, 0, channel, &[0; 4 + 257]),
    ] {
        victim.refuses(bytes, CloseCode::MALFORMED);
    }
    for kind in [0x00, 0x08, 0x0f, kind::HELLO, kind::HELLO_OK, 0x15, 0x1f] {
        victim.refuses(frame(kind, 0, channel, &[]), CloseCode::UNKNOWN_FRAME);
    }
}

#[test]
fn i3_an_unknown_ignorable_frame_is_skipped() {
    let mut victim = Victim::new();
    let mut bytes = frame(0x1f, IGNORABLE, StreamId::CHANNEL, b"whatever");
    bytes.unsplit(frame(kind::DATA, FIN, victim.stream, b"x"));
    victim.feed(bytes).unwrap();
    assert_eq!(victim.end.app.streams[0].data, b"x");
}

// R-OPEN-7
#[test]
fn i4_an_open_with_more_data_than_the_window_is_never_half_registered() {
    let limits = Limits { window_bytes: 16 * 1024, ..Limits::default() };
    let config = Config { local: limits, ..Config::default() };
    let mut end = Endpoint::new(Side::ConnectionPoint, config);
    let mut body = vec![0; MAX_BODY];
    body[0] = 1;
    let mut bytes = frame(kind::OPEN, 0, theirs(1, 0), &body);
    let error = end.channel.handle_input(Timestamp::ZERO, &mut bytes, &mut end.app).unwrap_err();
    assert_eq!(error.code(), CloseCode::FLOW);
    assert_eq!((end.channel.counters().live, end.app.streams.len()), (0, 0));
}

// R-CREDIT-3, R-CREDIT-4
#[test]
fn i5_credit_that_shrinks_or_names_nothing_is_refused() {
    let mut victim = Victim::new();
    let stream = victim.stream;
    let credit = |max| Control::Credit { max };
    victim.feed(control(&credit(u64::MAX), stream)).unwrap();
    victim.refuses(control(&credit(u64::MAX - 1), stream), CloseCode::STREAM_STATE);
    victim.refuses(control(&credit(1), theirs(7, 0)), CloseCode::STREAM_STATE);
    victim.refuses(control(&credit(1), StreamId::from_wire(1)), CloseCode::STREAM_STATE);
}

#[test]
fn i5_a_limit_that_repeats_is_fine() {
    let mut victim = Victim::new();
    let repeated = Control::Credit { max: u64::from(WINDOW) };
    victim.feed(control(&repeated, victim.stream)).unwrap();
}

#[test]
fn i5_credit_without_bound_wraps_nowhere() {
    let mut victim = Victim::new();
    let stream = victim.stream;
    for max in [u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
        victim.feed(control(&Control::Credit { max }, stream)).unwrap();
        victim.end.channel.send(stream, vec![1; 100_000].into(), End::Part).unwrap();
        while victim.end.acknowledged_batch(victim.now).is_some() {}
    }
    assert_eq!(victim.end.channel.counters().queued_bytes, 0);
}

// R-CREDIT-2
#[test]
fn i6_data_one_byte_over_the_credit_is_refused() {
    let mut victim = Victim::new();
    let stream = victim.stream;
    let mut left = WINDOW;
    while left > 10_000 + FRAME_CHARGE {
        victim.feed(frame(kind::DATA, 0, stream, &[0; 10_000])).unwrap();
        left -= 10_000 + FRAME_CHARGE;
    }
    let last = vec![0; (left - FRAME_CHARGE) as usize + 1];
    victim.refuses(frame(kind::DATA, 0, stream, &last), CloseCode::FLOW);
    victim.feed(frame(kind::DATA, 0, stream, &last[1..])).unwrap();
}

// R-OPEN-4, R-TICKET-1
#[test]
fn i8_more_opens_than_tickets_are_refused() {
    let limits = Limits { max_streams: 8, ..Limits::default() };
    let config = Config { local: limits, ..Config::default() };
    let mut end = Endpoint::new(Side::ConnectionPoint, config);
    for index in 1..=8 {
        let mut open = frame(kind::OPEN, 0, theirs(index, 0), &[1, 0, 0, 0]);
        open.unsplit(control(&Control::Reset { code: 1, offset: 0 }, theirs(index, 0)));
        end.channel.handle_input(Timestamp::ZERO, &mut open, &mut end.app).unwrap();
    }
    let mut open = frame(kind::OPEN, 0, theirs(1, 1), &[1, 0, 0, 0]);
    let error = end.channel.handle_input(Timestamp::ZERO, &mut open, &mut end.app).unwrap_err();
    assert_eq!(error, ProtocolError::OpenLimit { opened: 9, allowed: 8 });
}

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

// R-CHURN-1, R-TICKET-2
#[test]
fn i8_streams_opened_and_reset_at_once_are_neither_free_nor_many() {
    let mut victim = Victim::new();
    let open_and_reset = |number: u32| {
        // The connection point opens what a cancelled stream has taken its ticket from.
        let id = theirs(number % 1_000 + 2, number / 1_000 % 256);
        let mut bytes = frame(kind::OPEN, 0, id, &[1, 0, 0, 0]);
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

// R-OPEN-1, R-OPEN-2, R-DATA-4, R-STREAM-2
#[test]
fn i10_frames_on_dead_ids_are_refused_but_for_those_that_may_cross() {
    let mut victim = Victim::new();
    let stream = victim.stream;
    let over = FIN | EOM;
    victim.feed(frame(kind::DATA, over, stream, b"bye")).unwrap();
    victim.refuses(frame(kind::DATA, 0, stream, b"more"), CloseCode::STREAM_STATE);
    let reset = Control::Reset { code: 1, offset: 35 };
    victim.refuses(control(&reset, stream), CloseCode::STREAM_STATE);
    victim.end.channel.send(stream, Bytes::new(), End::Stream).unwrap();
    victim.end.batch(Timestamp::ZERO).unwrap();
    assert!(victim.end.app.streams[0].retired);
    victim.feed(control(&Control::Credit { max: u64::MAX }, stream)).unwrap();
    victim.feed(control(&Control::Stop { code: 1 }, stream)).unwrap();
    victim.refuses(frame(kind::DATA, 0, stream, b"more"), CloseCode::STREAM_STATE);
    victim.refuses(control(&Control::Stop { code: 1 }, theirs(1, 1)), CloseCode::STREAM_STATE);
    victim.refuses(control(&Control::Stop { code: 1 }, theirs(1, 2)), CloseCode::STREAM_STATE);
    let open = [1, 0, 0, 0];
    victim.refuses(frame(kind::OPEN, 0, stream, &open), CloseCode::STREAM_STATE);
    victim.refuses(frame(kind::OPEN, 0, StreamId::from_wire(1), &open), CloseCode::STREAM_STATE);
    victim.refuses(frame(kind::OPEN, 0, theirs(0, 0), &open), CloseCode::STREAM_STATE);
    victim.refuses(frame(kind::OPEN, 0, theirs(65_537, 0), &open), CloseCode::STREAM_STATE);
    victim.feed(frame(kind::OPEN, 0, theirs(1, 1), &open)).unwrap();
}

// R-OPEN-2
#[test]
fn i11_generations_wrap_without_notice() {
    let mut pair = Pair::new(&Config::default());
    let mut ids = Vec::new();
    for round in 0..600usize {
        let id = pair.instance.open().unwrap();
        ids.push(id);
        pair.instance.channel.send(id, Bytes::from_static(b"q"), End::Stream).unwrap();
        pair.settle();
        pair.point.channel.send(id, Bytes::from_static(b"a"), End::Stream).unwrap();
        pair.settle();
        assert_eq!(pair.instance.app.streams[round].data, b"a");
        pair.point.channel.complete();
    }
    assert_eq!(ids[0], ids[256]);
    assert_ne!(ids[0], ids[1]);
}

// R-CREDIT-1, R-DATA-1
#[test]
fn i12_tiny_frames_are_bounded_by_their_charge() {
    let mut victim = Victim::new();
    let stream = victim.stream;
    victim.refuses(frame(kind::DATA, 0, stream, b""), CloseCode::MALFORMED);
    for _ in 0..WINDOW / (1 + FRAME_CHARGE) {
        victim.feed(frame(kind::DATA, 0, stream, b"x")).unwrap();
    }
    victim.refuses(frame(kind::DATA, 0, stream, b"x"), CloseCode::FLOW);
}

/// A peer that reads and acknowledges nothing, and whose streams have all the credit that there is.
fn full_ring() -> (Victim, u64) {
    let mut victim = Victim::new();
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
            return (victim, after);
        }
    }
}

// R-ACK-5
#[test]
fn j7_a_peer_that_never_acknowledges_holds_its_writers_at_the_cap() {
    let (mut victim, held) = full_ring();
    let most = Config::default().ring_bytes + 16 * 1024;
    assert!(held <= most, "{held}");
    assert!(victim.end.channel.counters().queued_bytes <= 64 * 1024 + 60_000);
    for _ in 0..100 {
        let id = victim.end.open().unwrap();
        victim.end.channel.send(id, vec![1; 1_000].into(), End::None).unwrap();
        while victim.end.batch(victim.now).is_some() {}
    }
    let counters = victim.end.channel.counters();
    assert!(counters.ring_bytes <= most + 64 * 1024, "{counters:?}");
    victim.end.channel.handle_link_lost(victim.now);
    assert_eq!(victim.end.channel.has_room(victim.stream), Ok(false), "nor without a link");
}

// R-CREDIT-7, R-ACK-5
#[test]
fn i16_with_all_data_stalled_every_frame_without_data_goes_out() {
    let (mut victim, _) = full_ring();
    let stream = victim.stream;
    let half = vec![0; (WINDOW / 2) as usize];
    for part in half.chunks(16_000) {
        victim.feed(frame(kind::DATA, 0, stream, part)).unwrap();
    }
    victim.end.consume_all(0);
    victim.feed(control(&Control::Ping { id: 5 }, StreamId::CHANNEL)).unwrap();
    victim.end.channel.reset(stream, StreamCode(0x111));
    victim.end.stop(stream, StreamCode(0x112));
    let batch = victim.end.batch(victim.now).unwrap();
    let mut kinds = Vec::new();
    let mut rest = &batch[..];
    while let Some(header) = Header::decode(rest).unwrap() {
        kinds.push(header.kind);
        rest = &rest[header.frame_bytes()..];
    }
    assert_eq!(kinds, [kind::PONG, kind::ACK, kind::RESET, kind::STOP]);
}

// R-ACK-2
#[test]
fn j6_acknowledgements_outside_of_what_is_in_flight_are_refused() {
    let mut victim = Victim::new();
    let channel = StreamId::CHANNEL;
    let ack = |rx_pos| control(&Control::Ack { rx_pos, delay_us: 0 }, channel);
    victim.refuses(ack(1), CloseCode::ACK_RANGE);
    let stream = victim.stream;
    victim.end.channel.send(stream, Bytes::from_static(b"abc"), End::None).unwrap();
    victim.end.batch(Timestamp::ZERO).unwrap();
    victim.feed(ack(11)).unwrap();
    victim.refuses(ack(10), CloseCode::ACK_RANGE);
    victim.refuses(control(&Control::Pong { id: 1, rx_pos: 12 }, channel), CloseCode::ACK_RANGE);
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

// R-GOAWAY-2, R-GOAWAY-3, R-GOAWAY-4, R-GOAWAY-5
#[test]
fn i17_opens_behind_a_go_away_are_refused_once_and_never_counted() {
    let mut victim = Victim::new();
    for round in 0..3 {
        victim.end.channel.go_away(CloseCode::SHUTDOWN, Duration::from_secs(3 - round));
        let late = theirs(2 + u32::try_from(round).unwrap(), 0);
        let mut bytes = frame(kind::OPEN, 0, late, &[1, 0, 0, 0, b'x']);
        bytes.unsplit(frame(kind::DATA, FIN, late, b"y"));
        victim.feed(bytes).unwrap();
        let said = victim.says();
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
    assert_eq!(victim.says().len(), 0);
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

// R-RESET-1
#[test]
fn i18_a_reset_must_name_what_arrived() {
    let mut victim = Victim::new();
    let stream = victim.stream;
    victim.feed(frame(kind::DATA, 0, stream, b"abc")).unwrap();
    let reset = |offset| control(&Control::Reset { code: 9, offset }, stream);
    victim.refuses(reset(34), CloseCode::STREAM_STATE);
    victim.feed(reset(35)).unwrap();
}

fn any_control() -> impl Strategy<Value = Control> {
    prop_oneof![
        any::<u64>().prop_map(|max| Control::Credit { max }),
        any::<(u32, u64)>().prop_map(|(code, offset)| Control::Reset { code, offset }),
        any::<u32>().prop_map(|code| Control::Stop { code }),
        any::<u64>().prop_map(|max_opens| Control::Tickets { max_opens }),
        any::<(u64, u32, u32)>().prop_map(|(opens_accepted, code, grace_ms)| {
            Control::GoAway { opens_accepted, code, grace_ms }
        }),
        any::<(u64, u32)>().prop_map(|(rx_pos, delay_us)| Control::Ack { rx_pos, delay_us }),
        any::<u64>().prop_map(|id| Control::Ping { id }),
        any::<(u64, u64)>().prop_map(|(id, rx_pos)| Control::Pong { id, rx_pos }),
        (any::<u32>(), ".{0,60}").prop_map(|(code, text)| Control::Close { code, text }),
    ]
}

proptest! {
    #[test]
    fn every_frame_survives_the_wire(sent in any_control(), stream in 1..u32::MAX) {
        let of_stream =
            matches!(sent, Control::Credit { .. } | Control::Reset { .. } | Control::Stop { .. });
        let stream = if of_stream { StreamId::from_wire(stream) } else { StreamId::CHANNEL };
        let bytes = control(&sent, stream);
        let header = Header::decode(&bytes).unwrap().unwrap();
        prop_assert_eq!(header.frame_bytes(), bytes.len());
        prop_assert_eq!(header.stream, stream);
        prop_assert_eq!(Control::decode(&header, &bytes[8..]), Ok(sent));
    }

    #[test]
    fn any_bytes_behind_a_valid_prefix_never_panic(
        noise in vec(any::<u8>(), 0..2_000),
        kind in 0..32u8,
        flags in 0..8u8,
        stream in prop_oneof![Just(0), Just(1), Just(1 << 31 | 1), any::<u32>()],
        body in vec(any::<u8>(), 0..40),
    ) {
        let mut victim = Victim::new();
        let mut bytes = frame(kind, flags, StreamId::from_wire(stream), &body);
        bytes.extend_from_slice(&noise);
        if victim.feed(bytes).is_ok() {
            while victim.end.batch(Timestamp::ZERO).is_some() {}
        }
    }

    // R-FRAME-2
    #[test]
    fn bytes_one_at_a_time_do_what_they_do_whole(
        frames in vec((vec(any::<u8>(), 1..50), 0..3u8), 1..20),
    ) {
        let wire: BytesMut = frames.iter().fold(BytesMut::new(), |mut wire, (body, flags)| {
            wire.unsplit(frame(kind::DATA, flags & EOM, theirs(1, 0), body));
            wire
        });
        let mut whole = Victim::new();
        whole.feed(wire.clone()).unwrap();
        let mut split = Victim::new();
        let mut input = BytesMut::new();
        for byte in wire {
            input.extend_from_slice(&[byte]);
            let end = &mut split.end;
            end.channel.handle_input(Timestamp::ZERO, &mut input, &mut end.app).unwrap();
        }
        let (whole, split) = (&whole.end.app.streams[0], &split.end.app.streams[0]);
        prop_assert_eq!((&whole.data, &whole.parts), (&split.data, &split.parts));
    }
}
