//! Two ends joined by wires that deliver as many bytes at a time as the test likes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmgmux_mux::frame::{Control, kind};
use cmgmux_mux::{
    Application, Channel, CloseCode, Config, End, FRAME_CHARGE, ProtocolError, ResumeCode, Side,
    StreamCode, StreamId, StreamKind, Timestamp, Token,
};

use crate::frames::split;

/// What one end's application saw of a stream.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) id: Option<StreamId>,
    /// As what the other end opened it.
    pub(crate) kind: Option<StreamKind>,
    pub(crate) data: Vec<u8>,
    /// Offsets in `data` behind which a part ended.
    pub(crate) parts: Vec<usize>,
    pub(crate) ended: u32,
    pub(crate) reset: Option<StreamCode>,
    pub(crate) too_slow: bool,
    pub(crate) stopped: Option<StreamCode>,
    pub(crate) retired: bool,
    pub(crate) released: bool,
    pub(crate) writable: u32,
    /// Lengths of the pieces of data not consumed yet.
    pub(crate) unread: Vec<usize>,
}

/// One thing that an application was told of a stream, or of all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Told {
    Opened(StreamId),
    Data(StreamId, Bytes, End),
    Reset(StreamId, StreamCode),
    Stopped(StreamId, StreamCode),
    Tickets,
}

/// An application that records.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) streams: Vec<Seen>,
    /// What it was told of all streams, in order.
    pub(crate) told: Vec<Told>,
    pub(crate) accepted: Vec<usize>,
    pub(crate) tickets: u32,
    pub(crate) draining: Option<CloseCode>,
    pub(crate) closed: Option<(CloseCode, String)>,
}

impl Recorder {
    fn at(&mut self, token: Token) -> &mut Seen {
        let seen = &mut self.streams[token.0 as usize];
        assert!(!seen.retired && !seen.released, "called for a stream that is gone");
        seen
    }

    fn id(&self, token: Token) -> StreamId {
        self.streams[token.0 as usize].id.expect("an id came with the stream")
    }

    /// One of the streams that can be used, by any number: its own number and its id.
    pub(crate) fn pick(&self, stream: usize) -> Option<(usize, StreamId)> {
        let streams = self.streams.iter().enumerate();
        let live: Vec<_> = streams
            .filter(|(_, seen)| !seen.retired && !seen.released)
            .filter_map(|(number, seen)| Some((number, seen.id?)))
            .collect();
        live.get(stream % live.len().max(1)).copied()
    }

    pub(crate) fn add(&mut self) -> Token {
        self.streams.push(Seen::default());
        Token(u32::try_from(self.streams.len() - 1).unwrap())
    }
}

impl Application for Recorder {
    fn opened(&mut self, id: StreamId, kind: StreamKind) -> Token {
        let token = self.add();
        let seen = self.at(token);
        (seen.id, seen.kind) = (Some(id), Some(kind));
        self.accepted.push(token.0 as usize);
        self.told.push(Told::Opened(id));
        token
    }
    fn data(&mut self, stream: Token, data: Bytes, end: End) {
        self.told.push(Told::Data(self.id(stream), data.clone(), end));
        let seen = self.at(stream);
        assert_eq!((seen.ended, seen.reset), (0, None), "data behind the end");
        assert!(!seen.too_slow, "data for a stream that was given up");
        seen.unread.push(data.len());
        seen.data.extend_from_slice(&data);
        if end != End::None {
            seen.parts.push(seen.data.len());
        }
        if end == End::Stream {
            seen.ended += 1;
        }
    }
    fn unread(&self, stream: Token, id: StreamId) -> u64 {
        let seen = &self.streams[stream.0 as usize];
        assert_eq!(seen.id, Some(id), "the recorder gives no token twice");
        seen.unread.iter().map(|bytes| (bytes + FRAME_CHARGE as usize) as u64).sum()
    }
    fn too_slow(&mut self, stream: Token) {
        let seen = &mut self.streams[stream.0 as usize];
        assert!(!seen.too_slow && seen.reset.is_none() && !seen.unread.is_empty(), "no reason");
        seen.too_slow = true;
        seen.unread.clear();
    }
    fn reset(&mut self, stream: Token, code: StreamCode) {
        self.told.push(Told::Reset(self.id(stream), code));
        let seen = self.at(stream);
        assert_eq!((seen.ended, seen.reset), (0, None), "a second end");
        seen.unread.clear();
        seen.reset = Some(code);
    }
    fn stopped(&mut self, stream: Token, code: StreamCode) {
        self.told.push(Told::Stopped(self.id(stream), code));
        self.at(stream).stopped = Some(code);
    }
    fn writable(&mut self, stream: Token) {
        self.at(stream).writable += 1;
    }
    fn retired(&mut self, stream: Token) {
        self.at(stream).retired = true;
    }
    fn tickets(&mut self) {
        self.told.push(Told::Tickets);
        self.tickets += 1;
    }
    fn draining(&mut self, code: CloseCode, _grace: Duration) {
        self.draining = Some(code);
    }
    fn closed(&mut self, code: CloseCode, text: &str) {
        self.closed = Some((code, text.to_owned()));
    }
}

/// One end with its application and what is on its way to it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) channel: Channel,
    pub(crate) app: Recorder,
    /// Written by the other end, not yet delivered.
    pub(crate) wire: Vec<u8>,
    /// Delivered, but not a whole frame.
    input: BytesMut,
    /// Acknowledged by [`acknowledged_batch`](Self::acknowledged_batch).
    tracked_bytes: u64,
}

impl Endpoint {
    pub(crate) fn new(side: Side, config: Config) -> Self {
        Self {
            channel: Channel::new(side, config, Timestamp::ZERO),
            app: Recorder::default(),
            wire: Vec::new(),
            input: BytesMut::new(),
            tracked_bytes: 0,
        }
    }

    /// Delivers at most `bytes` of what is under way.
    pub(crate) fn deliver(&mut self, now: Timestamp, bytes: usize) -> Result<(), ProtocolError> {
        let bytes = bytes.min(self.wire.len());
        self.input.extend_from_slice(&self.wire[..bytes]);
        self.wire.drain(..bytes);
        self.channel.handle_input(now, &mut self.input, &mut self.app)
    }

    /// What is under way to this end is lost.
    pub(crate) fn lose_wire(&mut self) {
        self.wire.clear();
        self.input.clear();
    }

    /// One batch of output, or nothing.
    pub(crate) fn batch(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        self.channel.poll_output(now, &mut self.app).then(|| {
            let bytes = self.channel.output().flatten().copied().collect();
            self.channel.handle_written(now);
            bytes
        })
    }

    /// One batch of output that the peer acknowledges at once.
    pub(crate) fn acknowledged_batch(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        let batch = self.batch(now)?;
        self.tracked_bytes += tracked_bytes(&batch);
        let ack = Control::Ack { rx_pos: self.tracked_bytes, delay_us: 0 };
        let mut input = BytesMut::new();
        ack.encode(StreamId::CHANNEL, &mut input);
        self.channel.handle_input(now, &mut input, &mut self.app).unwrap();
        Some(batch)
    }

    /// Position up to which it has sent in acknowledged batches.
    pub(crate) fn tracked_bytes(&self) -> u64 {
        self.tracked_bytes
    }

    pub(crate) fn open(&mut self) -> Result<StreamId, cmgmux_mux::UsageError> {
        self.open_as(StreamKind::Exchange)
    }

    pub(crate) fn open_as(&mut self, kind: StreamKind) -> Result<StreamId, cmgmux_mux::UsageError> {
        let token = self.app.add();
        let id = self.channel.open(kind, token);
        match id {
            Ok(id) => self.app.at(token).id = Some(id),
            Err(_) => drop(self.app.streams.pop()),
        }
        id
    }

    pub(crate) fn consume_all(&mut self, stream: usize) {
        let seen = &mut self.app.streams[stream];
        for data_bytes in seen.unread.drain(..) {
            match seen.id {
                Some(id) if !seen.retired => drop(self.channel.consume(id, data_bytes)),
                _ => self.channel.consume_retired(data_bytes),
            }
        }
    }

    /// Stops a stream and drops what is unread of it.
    pub(crate) fn stop(&mut self, id: StreamId, code: StreamCode) {
        self.channel.stop(id, code);
        let seen = self.app.streams.iter_mut().find(|seen| seen.id == Some(id));
        seen.expect("a stream that was seen").unread.clear();
    }
}

/// Bytes of the frames that count towards the position.
fn tracked_bytes(bytes: &[u8]) -> u64 {
    let frames = split(bytes);
    let tracked = frames.iter().filter(|(header, _)| kind::is_tracked(header.kind));
    tracked.map(|(_, frame)| frame.len() as u64).sum()
}

/// A connection point and an instance.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) point: Endpoint,
    pub(crate) instance: Endpoint,
    pub(crate) now: Timestamp,
}

impl Pair {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            point: Endpoint::new(Side::ConnectionPoint, config.clone()),
            instance: Endpoint::new(Side::Instance, config.clone()),
            now: Timestamp::ZERO,
        }
    }

    /// Moves everything that is due, in both directions, until both ends are silent.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut moved = false;
            while let Some(batch) = self.point.batch(self.now) {
                self.instance.wire.extend(batch);
            }
            while let Some(batch) = self.instance.batch(self.now) {
                self.point.wire.extend(batch);
            }
            for end in [&mut self.point, &mut self.instance] {
                moved |= !end.wire.is_empty();
                end.deliver(self.now, usize::MAX).unwrap();
            }
            if !moved {
                return;
            }
        }
        panic!("the channel never falls silent");
    }

    /// Carries what is due to the connection point, lets it read stream `reader`, and carries what is due
    /// then back, each way taking `delay`. Says how many bytes went to the connection point.
    pub(crate) fn round_trip(&mut self, delay: Duration, reader: usize) -> usize {
        while let Some(batch) = self.instance.batch(self.now) {
            self.point.wire.extend(batch);
        }
        let carried = self.point.wire.len();
        self.now = self.now.after(delay);
        self.point.deliver(self.now, usize::MAX).unwrap();
        self.point.consume_all(reader);
        while let Some(batch) = self.point.batch(self.now) {
            self.instance.wire.extend(batch);
        }
        self.now = self.now.after(delay);
        self.instance.deliver(self.now, usize::MAX).unwrap();
        carried
    }

    /// The link dies with all that is under way, and both ends notice.
    pub(crate) fn cut(&mut self) {
        for end in [&mut self.point, &mut self.instance] {
            end.lose_wire();
            end.channel.handle_link_lost(self.now);
        }
    }

    /// The channel moves to a new link, whether the old one lives or not.
    pub(crate) fn resume(&mut self) {
        let claim = self.point.channel.claim();
        let resumed = self.instance.channel.handle_claim(self.now, &claim).unwrap();
        assert_eq!(resumed.code, ResumeCode::ACCEPTED);
        self.instance.lose_wire();
        self.point.lose_wire();
        assert!(self.point.channel.handle_resumed(self.now, &resumed).unwrap());
    }

    /// Lets late acknowledgements go out as well.
    pub(crate) fn settle_acks(&mut self) {
        self.settle();
        self.now = self.now.after(Duration::from_millis(25));
        self.settle();
    }
}
