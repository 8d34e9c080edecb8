//! The core's hot paths, to have their instructions counted: `paths PATH UNITS` does one of them so
//! many times, the same way each time. What a unit takes is the difference between two runs.
//!
//! `make guard-instructions` compares the counts with those in `bench/baselines/`.

#![allow(clippy::unwrap_used, reason = "what breaks here breaks the count")]

use std::hint::black_box;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmgmux_mux::frame::{Control, HEADER_BYTES, Header};
use cmgmux_mux::{
    Application, Channel, CloseCode, Config, End, Side, StreamCode, StreamId, StreamKind,
    Timestamp, Token,
};

type Path = (&'static str, fn(usize));

const PATHS: [Path; 9] = [
    ("codec", codec),
    ("small", small),
    ("crowd", crowd),
    ("bulk", bulk),
    ("churn", churn),
    ("crowd-churn", crowd_churn),
    ("reset", reset),
    ("crowd-reset", crowd_reset),
    ("resume", resume),
];

/// Streams that small messages go to.
const STREAMS: usize = 100;
/// Streams beside them on which nothing happens.
const SILENT: usize = 20_000;
const MESSAGE: &[u8] = &[7; 300];
const PIECE: &[u8] = &[7; 16_384];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments.first().and_then(|name| PATHS.iter().find(|(known, _)| known == name));
    match (path, arguments.get(1).map(|units| units.parse())) {
        (Some((_, run)), Some(Ok(units))) => {
            run(units);
            ExitCode::SUCCESS
        }
        _ => {
            let names = PATHS.map(|(name, _)| name).join("|");
            let _ = writeln!(io::stderr(), "usage: paths {names} UNITS");
            ExitCode::from(2)
        }
    }
}

/// A frame of each of the kinds that are written most, decoded and encoded again.
fn codec(units: usize) {
    let mut bytes = BytesMut::new();
    let id = StreamId::from_wire(77);
    Control::Credit { max: 123_456 }.encode(id, &mut bytes);
    Control::Reset { offset: 300, code: 7 }.encode(id, &mut bytes);
    Control::Ack { rx_pos: 987_654, delay_us: 25 }.encode(StreamId::CHANNEL, &mut bytes);
    let mut again = BytesMut::with_capacity(bytes.len());
    for _ in 0..units {
        again.clear();
        let mut rest = &black_box(&bytes)[..];
        while let Some(header) = Header::decode(rest).unwrap() {
            let (frame, others) = rest.split_at(header.frame_bytes());
            let control = Control::decode(&header, &frame[HEADER_BYTES..]);
            control.unwrap().encode(header.stream, &mut again);
            rest = others;
        }
        assert_eq!(again, bytes);
    }
}

/// A message on each of some streams, which are the only ones.
fn small(units: usize) {
    messages(units, 0);
}

/// The same beside many streams that are silent.
fn crowd(units: usize) {
    messages(units, SILENT);
}

fn messages(units: usize, silent: usize) {
    let mut pair = Pair::new();
    // Live ones among the silent ones, so that nothing is saved by their being neighbours.
    let every = (silent + STREAMS) / STREAMS;
    let opened: Vec<StreamId> = (0..silent + STREAMS).map(|_| pair.open()).collect();
    let streams: Vec<StreamId> = opened.into_iter().step_by(every).take(STREAMS).collect();
    for _ in 0..units {
        for &id in &streams {
            pair.from.channel.send(id, Bytes::from_static(MESSAGE), End::Part).unwrap();
        }
        pair.settle();
    }
    assert_eq!(pair.to.app.bytes, units * STREAMS * MESSAGE.len());
}

/// Pieces of 16 KiB on one stream.
fn bulk(units: usize) {
    let mut pair = Pair::new();
    let id = pair.open();
    for _ in 0..units {
        while !pair.from.channel.has_room(id).unwrap() {
            pair.exchange();
        }
        pair.from.channel.send(id, Bytes::from_static(PIECE), End::None).unwrap();
    }
    pair.settle();
    assert_eq!(pair.to.app.bytes, units * PIECE.len());
}

/// A stream opened, used for a byte, and closed from both ends.
fn churn(units: usize) {
    lives(units, 0, close);
}

/// The same beside many streams that are silent.
fn crowd_churn(units: usize) {
    lives(units, SILENT, close);
}

/// A stream opened, used for a byte, and abandoned: a RESET and a STOP, and the RESET that answers.
fn reset(units: usize) {
    lives(units, 0, abandon);
}

/// The same beside many streams that are silent.
fn crowd_reset(units: usize) {
    lives(units, SILENT, abandon);
}

/// Streams opened one after the other beside `silent` ones; `end` sees to it that each is over at both
/// ends before the next.
fn lives(units: usize, silent: usize, end: fn(&mut Pair, StreamId)) {
    let mut pair = Pair::new();
    for _ in 0..silent {
        pair.open();
    }
    pair.settle();
    for _ in 0..units {
        let id = pair.open();
        end(&mut pair, id);
        pair.to.channel.complete();
        pair.settle();
    }
    for endpoint in [&pair.from, &pair.to] {
        assert_eq!(endpoint.channel.counters().live as usize, silent);
    }
}

/// One end says a byte and that it was the last, then the other.
fn close(pair: &mut Pair, id: StreamId) {
    pair.from.channel.send(id, Bytes::from_static(b"x"), End::Stream).unwrap();
    pair.settle();
    pair.to.channel.send(id, Bytes::from_static(b"y"), End::Stream).unwrap();
    pair.settle();
}

/// The end that opened says a byte, then that it neither sends nor takes more.
fn abandon(pair: &mut Pair, id: StreamId) {
    pair.from.channel.send(id, Bytes::from_static(b"x"), End::None).unwrap();
    pair.settle();
    pair.from.channel.reset(id, StreamCode::CANCELLED);
    pair.from.channel.stop(id, StreamCode::CANCELLED);
    pair.settle();
}

/// The link dies with a message of each stream on its way, and the channel moves to another.
fn resume(units: usize) {
    let mut pair = Pair::new();
    let streams: Vec<StreamId> = (0..STREAMS).map(|_| pair.open()).collect();
    pair.settle();
    for _ in 0..units {
        for &id in &streams {
            pair.from.channel.send(id, Bytes::from_static(MESSAGE), End::Part).unwrap();
        }
        pair.move_link();
        pair.settle();
    }
    assert_eq!(pair.to.app.bytes, units * STREAMS * MESSAGE.len());
}

/// An application that reads what comes at once.
#[derive(Default)]
struct Reader {
    ids: Vec<StreamId>,
    unread: Vec<(Token, usize)>,
    bytes: usize,
}

impl Application for Reader {
    fn opened(&mut self, id: StreamId, _kind: StreamKind) -> Token {
        self.ids.push(id);
        Token(u32::try_from(self.ids.len() - 1).unwrap())
    }
    fn data(&mut self, stream: Token, data: Bytes, _end: End) {
        self.unread.push((stream, data.len()));
        self.bytes += data.len();
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
}

impl Endpoint {
    fn new(side: Side) -> Self {
        let channel = Channel::new(side, Config::default(), Timestamp::ZERO);
        Self { channel, app: Reader::default(), wire: BytesMut::with_capacity(1 << 20) }
    }

    fn write_to(&mut self, now: Timestamp, wire: &mut BytesMut) {
        while self.channel.poll_output(now, &mut self.app) {
            self.channel.output().for_each(|piece| wire.extend_from_slice(piece));
            self.channel.handle_written(now);
        }
    }

    fn read(&mut self, now: Timestamp) {
        self.channel.handle_input(now, &mut self.wire, &mut self.app).unwrap();
        for (stream, bytes) in self.app.unread.drain(..) {
            self.channel.consume(self.app.ids[stream.0 as usize], bytes);
        }
    }
}

/// The end that opens and sends, and the one that is sent to.
struct Pair {
    from: Endpoint,
    to: Endpoint,
    now: Timestamp,
}

impl Pair {
    fn new() -> Self {
        let (from, to) = (Endpoint::new(Side::Instance), Endpoint::new(Side::ConnectionPoint));
        Self { from, to, now: Timestamp::ZERO }
    }

    fn open(&mut self) -> StreamId {
        let token = Token(u32::try_from(self.from.app.ids.len()).unwrap());
        let id = self.from.channel.open(StreamKind::Exchange, token).unwrap();
        self.from.app.ids.push(id);
        id
    }

    /// Carries what is due, after longer than an acknowledgement waits; says whether anything was.
    fn exchange(&mut self) -> bool {
        let Self { from, to, now } = self;
        *now = now.after(Duration::from_millis(30));
        from.write_to(*now, &mut to.wire);
        to.write_to(*now, &mut from.wire);
        let was_due = !(from.wire.is_empty() && to.wire.is_empty());
        to.read(*now);
        from.read(*now);
        was_due
    }

    fn settle(&mut self) {
        while self.exchange() {}
    }

    /// Loses what is written, and moves both ends to another link.
    fn move_link(&mut self) {
        let Self { from, to, now } = self;
        from.write_to(*now, &mut to.wire);
        to.wire.clear();
        for end in [&mut *from, to] {
            end.channel.handle_link_lost(*now);
        }
        let claim = to.channel.claim();
        let resumed = from.channel.handle_claim(*now, &claim).unwrap();
        assert!(to.channel.handle_resumed(*now, &resumed).unwrap());
    }
}
