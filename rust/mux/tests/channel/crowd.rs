//! Many streams at once, most of whose readers sleep.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmgmux_mux::{
    Application, Channel, CloseCode, Config, End, FRAME_CHARGE, Limits, Side, StreamCode, StreamId,
    StreamKind, Timestamp, Token,
};

const WINDOW: usize = 16 * 1024;

/// An application that keeps nothing but lengths.
#[derive(Default)]
struct Listener {
    streams: Vec<Heard>,
}

struct Heard {
    id: StreamId,
    bytes: usize,
    unread: Vec<usize>,
    has_ended: bool,
}

impl Listener {
    fn add(&mut self, id: StreamId) -> Token {
        self.streams.push(Heard { id, bytes: 0, unread: Vec::new(), has_ended: false });
        Token(self.streams.len() as u32 - 1)
    }
}

impl Application for Listener {
    fn opened(&mut self, id: StreamId, _kind: StreamKind) -> Token {
        self.add(id)
    }
    fn data(&mut self, stream: Token, data: Bytes, end: End) {
        let heard = &mut self.streams[stream.0 as usize];
        heard.bytes += data.len();
        heard.unread.push(data.len());
        heard.has_ended |= end == End::Stream;
    }
    fn unread(&self, _stream: Token, _id: StreamId) -> u64 {
        0
    }
    fn too_slow(&mut self, stream: Token) {
        panic!("{stream:?} is within the budget");
    }
    fn reset(&mut self, _stream: Token, _code: StreamCode) {}
    fn stopped(&mut self, _stream: Token, _code: StreamCode) {}
    fn writable(&mut self, _stream: Token) {}
    fn retired(&mut self, _stream: Token) {}
    fn tickets(&mut self) {}
    fn draining(&mut self, _code: CloseCode, _grace: Duration) {}
    fn closed(&mut self, _code: CloseCode, _text: &str) {}
}

struct Endpoint {
    channel: Channel,
    app: Listener,
    wire: BytesMut,
}

impl Endpoint {
    fn new(side: Side) -> Self {
        let limits = Limits { window_bytes: WINDOW as u32, ..Limits::default() };
        let config = Config {
            local: limits,
            peer: limits,
            budget_bytes: u64::MAX,
            queue_bytes: 1 << 20,
            ..Config::default()
        };
        let channel = Channel::new(side, config, Timestamp::ZERO);
        Self { channel, app: Listener::default(), wire: BytesMut::new() }
    }

    fn open(&mut self) -> StreamId {
        let id = self.channel.open(StreamKind::Exchange, Token(self.app.streams.len() as u32));
        self.app.add(id.unwrap());
        id.unwrap()
    }

    fn write_to(&mut self, wire: &mut BytesMut, now: Timestamp) {
        while self.channel.poll_output(now, &mut self.app) {
            self.channel.output().for_each(|piece| wire.extend_from_slice(piece));
            self.channel.handle_written(now);
        }
    }

    fn consume(&mut self, stream: usize) {
        let heard = &mut self.app.streams[stream];
        for bytes in heard.unread.drain(..) {
            self.channel.consume(heard.id, bytes);
        }
    }
}

/// Moves everything that is due until both ends are silent.
fn settle(ends: &mut [Endpoint; 2], now: &mut Timestamp) {
    loop {
        *now = now.after(Duration::from_millis(25));
        let [one, other] = &mut *ends;
        one.write_to(&mut other.wire, *now);
        other.write_to(&mut one.wire, *now);
        if ends.iter().all(|end| end.wire.is_empty()) {
            return;
        }
        for end in &mut *ends {
            end.channel.handle_input(*now, &mut end.wire, &mut end.app).unwrap();
        }
    }
}

#[test]
fn i15_a_stream_beside_4096_that_just_get_no_credit_and_10000_sleepers_is_not_held_up() {
    const SHORT: usize = 4_096;
    const ASLEEP: usize = 10_000;
    let mut ends = [Side::Instance, Side::ConnectionPoint].map(Endpoint::new);
    let mut now = Timestamp::ZERO;
    let zeros = Bytes::from_static(&[0; 40_000]);
    // Exactly half of the window, a byte less than what brings new credit.
    let half = WINDOW / 2 - FRAME_CHARGE as usize;
    for number in 0..SHORT + ASLEEP {
        let id = ends[0].open();
        let bytes = if number < SHORT { half } else { 40_000 };
        ends[0].channel.send(id, zeros.slice(..bytes), End::None).unwrap();
    }
    settle(&mut ends, &mut now);
    let before = ends[1].channel.counters().batches_sent;
    (0..SHORT).for_each(|number| ends[1].consume(number));
    settle(&mut ends, &mut now);
    assert_eq!(ends[1].channel.counters().batches_sent, before, "no credit is due");
    let id = ends[0].open();
    for _ in 0..50 {
        ends[0].channel.send(id, zeros.slice(..20_000), End::None).unwrap();
    }
    ends[0].channel.send(id, Bytes::new(), End::Stream).unwrap();
    for _ in 0..1_000 {
        settle(&mut ends, &mut now);
        ends[1].consume(SHORT + ASLEEP);
    }
    let seen = &ends[1].app.streams;
    assert_eq!((seen[SHORT + ASLEEP].bytes, seen[SHORT + ASLEEP].has_ended), (1_000_000, true));
    assert!(seen[..SHORT].iter().all(|seen| seen.bytes == half));
    assert!(seen[SHORT..][..ASLEEP].iter().all(|seen| seen.bytes < WINDOW));
    // All wake up, and all drains.
    for _ in 0..10 {
        (0..SHORT + ASLEEP).for_each(|number| ends[1].consume(number));
        settle(&mut ends, &mut now);
    }
    let seen = &ends[1].app.streams;
    assert!(seen[SHORT..][..ASLEEP].iter().all(|seen| seen.bytes == 40_000));
    let counters = ends[0].channel.counters();
    assert_eq!((counters.queued_bytes, counters.ring_bytes), (0, 0));
}
