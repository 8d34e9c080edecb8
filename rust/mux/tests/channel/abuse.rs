//! A peer that breaks the rules: each breach has its error and its code, and changes nothing else.

use bytes::{Bytes, BytesMut};
use cmgmux_mux::frame::{Control, EOM, FIN, Header, IGNORABLE, MAX_BODY, kind};
use cmgmux_mux::{
    CloseCode, Config, End, FRAME_CHARGE, Limits, ProtocolError, Side, StreamId, Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::frames::{OPEN, WINDOW, control, frame, theirs};
use crate::pair::{Endpoint, Pair};

/// A connection point with one stream, opened by the instance, as a hostile instance sees it.
pub(crate) struct Victim {
    pub(crate) end: Endpoint,
    pub(crate) stream: StreamId,
    pub(crate) now: Timestamp,
}

impl Victim {
    pub(crate) fn new() -> Self {
        Self::with(&Config::default())
    }

    pub(crate) fn with(config: &Config) -> Self {
        let mut pair = Pair::new(config);
        let stream = pair.instance.open().unwrap();
        pair.settle();
        Self { end: pair.point, stream, now: pair.now }
    }

    pub(crate) fn feed(&mut self, mut bytes: BytesMut) -> Result<(), ProtocolError> {
        self.end.channel.handle_input(self.now, &mut bytes, &mut self.end.app)
    }

    pub(crate) fn refuses(&mut self, bytes: BytesMut, code: CloseCode) {
        let before = (self.end.channel.counters(), self.end.app.streams[0].data.clone());
        let error = self.feed(bytes).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        let after = (self.end.channel.counters(), self.end.app.streams[0].data.clone());
        assert_eq!(after, before, "a refused frame changed something: {error}");
    }
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
        let mut open = frame(kind::OPEN, 0, theirs(index, 0), &OPEN);
        open.unsplit(control(&Control::Reset { code: 1, offset: 0 }, theirs(index, 0)));
        end.channel.handle_input(Timestamp::ZERO, &mut open, &mut end.app).unwrap();
    }
    let mut open = frame(kind::OPEN, 0, theirs(1, 1), &OPEN);
    let error = end.channel.handle_input(Timestamp::ZERO, &mut open, &mut end.app).unwrap_err();
    assert_eq!(error, ProtocolError::OpenLimit { opened: 9, allowed: 8 });
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
    victim.refuses(frame(kind::OPEN, 0, stream, &OPEN), CloseCode::STREAM_STATE);
    victim.refuses(frame(kind::OPEN, 0, StreamId::from_wire(1), &OPEN), CloseCode::STREAM_STATE);
    victim.refuses(frame(kind::OPEN, 0, theirs(0, 0), &OPEN), CloseCode::STREAM_STATE);
    victim.refuses(frame(kind::OPEN, 0, theirs(65_537, 0), &OPEN), CloseCode::STREAM_STATE);
    victim.feed(frame(kind::OPEN, 0, theirs(1, 1), &OPEN)).unwrap();
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
