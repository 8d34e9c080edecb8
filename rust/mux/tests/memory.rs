//! What messages and streams take of the heap, as the allocator sees it on the test's thread.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

#[path = "counting/allocator.rs"]
mod counting;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmgmux_mux::frame::{Control, Header, kind};
use cmgmux_mux::{
    Application, Channel, CloseCode, Config, End, MAX_BODY, ProtocolError, Side, StreamCode,
    StreamId, StreamKind, Timestamp, Token,
};

use self::counting::{ALLOCATIONS, BYTES};

/// An application that keeps the ids of its streams, and data until it reads.
struct Reader {
    streams: Vec<StreamId>,
    unread: Vec<(Token, Bytes)>,
}

impl Application for Reader {
    fn opened(&mut self, id: StreamId, _kind: StreamKind) -> Token {
        self.streams.push(id);
        Token(u32::try_from(self.streams.len() - 1).unwrap())
    }
    fn data(&mut self, stream: Token, data: Bytes, _end: End) {
        self.unread.push((stream, data));
    }
    fn unread(&self, _stream: Token, _id: StreamId) -> u64 {
        0
    }
    fn too_slow(&mut self, _stream: Token) {}
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
    app: Reader,
    /// Written by the other end.
    wire: BytesMut,
    now: Timestamp,
}

impl Endpoint {
    fn new(side: Side, streams: usize) -> Self {
        Self {
            channel: Channel::new(side, Config::default(), Timestamp::ZERO),
            app: Reader {
                streams: Vec::with_capacity(streams),
                unread: Vec::with_capacity(streams),
            },
            wire: BytesMut::with_capacity(1 << 20),
            now: Timestamp::ZERO,
        }
    }

    fn open(&mut self, streams: usize) {
        for _ in 0..streams {
            let token = Token(u32::try_from(self.app.streams.len()).unwrap());
            let id = self.channel.open(StreamKind::Exchange, token).unwrap();
            self.app.streams.push(id);
        }
    }

    fn send_each(&mut self, message: &'static [u8]) {
        for &id in &self.app.streams {
            self.channel.send(id, Bytes::from_static(message), End::None).unwrap();
        }
    }

    fn read_all(&mut self, message: &[u8]) {
        for (stream, data) in self.app.unread.drain(..) {
            assert_eq!(data, message);
            self.channel.consume(self.app.streams[stream.0 as usize], data.len());
        }
    }

    fn write_to(&mut self, wire: &mut BytesMut) {
        while self.channel.poll_output(self.now, &mut self.app) {
            self.channel.output().for_each(|piece| wire.extend_from_slice(piece));
            self.channel.handle_written(self.now);
        }
    }
}

/// Lets the bytes of both ends arrive until neither has more to write, and a second pass, which is
/// longer than an acknowledgement waits.
fn deliver(ends: &mut [Endpoint; 2]) {
    let [one, other] = ends;
    loop {
        let now = one.now.after(Duration::from_secs(1));
        (one.now, other.now) = (now, now);
        one.write_to(&mut other.wire);
        other.write_to(&mut one.wire);
        if one.wire.is_empty() && other.wire.is_empty() {
            return;
        }
        for end in [&mut *one, other] {
            end.channel.handle_input(now, &mut end.wire, &mut end.app).unwrap();
        }
    }
}

/// Sends a message on each stream and reads it, over and over, and gives the allocations.
fn go_round(ends: &mut [Endpoint; 2], rounds: usize, message: &'static [u8]) -> usize {
    let before = ALLOCATIONS.get();
    for _ in 0..rounds {
        ends[0].send_each(message);
        deliver(ends);
        ends[1].read_all(message);
    }
    ALLOCATIONS.get() - before
}

fn pair(streams: usize) -> [Endpoint; 2] {
    [Side::Instance, Side::ConnectionPoint].map(|side| Endpoint::new(side, streams))
}

// 1,000 messages of 300 B are more than a record, a window of acknowledgements and a block hold.
#[test]
fn small_messages_in_a_steady_flow_allocate_nothing() {
    let mut ends = pair(1_000);
    ends[0].open(1_000);
    go_round(&mut ends, 1_000, &[7; 300]);
    assert_eq!(go_round(&mut ends, 200, &[7; 300]), 0);
}

#[test]
fn small_messages_to_a_few_of_many_streams_at_a_time_allocate_nothing() {
    const MESSAGE: &[u8] = &[7; 300];
    let mut ends = pair(1_000);
    ends[0].open(1_000);
    let mut take_turns = |rounds: usize| {
        let before = ALLOCATIONS.get();
        for number in (0..1_000).cycle().take(rounds * 1_000) {
            let id = ends[0].app.streams[number];
            ends[0].channel.send(id, Bytes::from_static(MESSAGE), End::None).unwrap();
            if number % 40 == 0 {
                deliver(&mut ends);
                ends[1].read_all(MESSAGE);
            }
        }
        ALLOCATIONS.get() - before
    };
    take_turns(100);
    assert_eq!(take_turns(20), 0);
}

#[test]
fn an_idle_stream_takes_its_slot() {
    const STREAMS: usize = 8_192;
    const FIRST: usize = 255;
    let mut ends = pair(FIRST + STREAMS);
    // What a channel needs once, for the streams of one page.
    ends[0].open(FIRST);
    go_round(&mut ends, 1_000, b"x");
    let before = BYTES.get();
    for number in FIRST..FIRST + STREAMS {
        ends[0].open(1);
        let id = ends[0].app.streams[number];
        ends[0].channel.send(id, Bytes::from_static(b"x"), End::None).unwrap();
        deliver(&mut ends);
        ends[1].read_all(b"x");
    }
    let bytes = BYTES.get() - before;
    assert!(bytes <= 2 * STREAMS * 72, "{} bytes a stream and side", bytes / STREAMS / 2);
}

/// A connection point with one stream, which it has answered, and the bytes that the test as its peer
/// sends. The peer reads nothing.
fn victim() -> (Endpoint, StreamId) {
    let [mut instance, mut point] = pair(8);
    instance.open(1);
    instance.send_each(b"x");
    instance.write_to(&mut point.wire);
    feed(&mut point).unwrap();
    point.read_all(b"x");
    let stream = point.app.streams[0];
    (point, stream)
}

fn feed(end: &mut Endpoint) -> Result<(), ProtocolError> {
    end.channel.handle_input(end.now, &mut end.wire, &mut end.app)
}

fn header(length: usize, kind: u8, stream: StreamId) -> [u8; 8] {
    Header { length: u32::try_from(length).unwrap(), kind, flags: 0, stream }.encode()
}

#[test]
fn i2_nothing_is_allocated_from_the_length_of_a_frame() {
    for (length, is_refused) in [(MAX_BODY, false), (MAX_BODY + 1, true), (0xff_ffff, true)] {
        for kind in 0..32 {
            let (mut end, stream) = victim();
            end.wire.extend_from_slice(&header(length, kind, stream));
            let before = (ALLOCATIONS.get(), BYTES.get());
            let result = feed(&mut end);
            assert_eq!((ALLOCATIONS.get(), BYTES.get()), before, "{length} of type {kind}");
            assert_eq!(result.is_err(), is_refused, "{length} of type {kind}");
        }
    }
}

#[test]
fn i7_a_peer_that_floods_and_reads_nothing_takes_no_memory() {
    let (mut end, stream) = victim();
    let floods: [(Control, StreamId); 3] = [
        (Control::Ping { id: 1 }, StreamId::CHANNEL),
        (Control::Stop { code: 1 }, stream),
        (Control::Credit { max: u64::from(u32::MAX) }, stream),
    ];
    // What one of each makes due stays due.
    for round in 0..20_000 {
        for (frame, stream) in &floods {
            frame.encode(*stream, &mut end.wire);
        }
        let before = BYTES.get();
        feed(&mut end).unwrap();
        assert!(round == 0 || BYTES.get() == before, "round {round}");
    }
}

#[test]
fn i7_exchanges_whose_answers_are_never_read_take_what_the_tickets_allow() {
    const STREAMS: u32 = 1_000;
    let (mut end, _) = victim();
    let mut peak = 0;
    let before = BYTES.get();
    for index in 2..STREAMS {
        let stream = StreamId::from_wire(1 << 31 | index);
        end.wire.extend_from_slice(&header(4 + 1, kind::OPEN, stream));
        end.wire.extend_from_slice(&[1, 0, 0, 0, b'q']);
        feed(&mut end).unwrap();
        end.read_all(b"q");
        end.channel.send(stream, Bytes::from_static(b"answer"), End::Stream).unwrap();
        let mut unread = BytesMut::new();
        end.write_to(&mut unread);
        drop(unread);
        peak = peak.max(BYTES.get() - before);
    }
    assert!(peak <= STREAMS as usize * 256, "{} bytes an exchange", peak / STREAMS as usize);
}

#[test]
fn i12_ten_million_frames_of_one_byte_take_no_memory() {
    const FRAMES: usize = 10_000_000;
    const ROUND: usize = 500;
    let (mut end, stream) = victim();
    let frame = [&header(1, kind::DATA, stream)[..], b"x"].concat().repeat(ROUND);
    let mut sent = BytesMut::with_capacity(1 << 16);
    let mut tracked = 0;
    let mut before = 0;
    for round in 0..FRAMES / ROUND {
        if round == 100 {
            before = BYTES.get();
        }
        end.wire.extend_from_slice(&frame);
        feed(&mut end).unwrap();
        end.read_all(b"x");
        sent.clear();
        end.write_to(&mut sent);
        // It reads what it is sent, and acknowledges it.
        let mut rest = &sent[..];
        while let Some(header) = Header::decode(rest).unwrap() {
            tracked += if kind::is_tracked(header.kind) { header.frame_bytes() as u64 } else { 0 };
            rest = &rest[header.frame_bytes()..];
        }
        Control::Ack { rx_pos: tracked, delay_us: 0 }.encode(StreamId::CHANNEL, &mut end.wire);
    }
    assert!(BYTES.get() <= before + 64 * 1024, "{} bytes more", BYTES.get() - before);
}
