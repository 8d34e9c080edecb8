//! The core of our channel alone: two ends joined by a buffer, no TLS, no sockets, no tasks.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use cmgmux_mux::{
    Application, Channel, CloseCode, Config, End, Limits, Side, StreamCode, StreamId, StreamKind,
    Timestamp, Token,
};
use serde_json::{Value, json};

use crate::AskHeap;
use crate::job::Job;
use crate::scenario::{MESSAGE, Scenario, TURN, WARM_UP, allocations_per, bytes_per_stream};

pub(crate) fn run(job: &Job, heap: AskHeap) -> Result<Value> {
    let mut pair = Pair::new(job.streams);
    let before = heap();
    pair.open_all(job.streams)?;
    match job.scenario {
        Scenario::Idle => bytes_per_stream(before, heap(), job.streams),
        Scenario::Small => {
            pair.go_round(WARM_UP)?;
            let (before, start) = (heap(), Instant::now());
            let frames = pair.go_round(job.duration())? as f64;
            let elapsed = start.elapsed();
            Ok(json!({
                "ns_per_frame_and_side": elapsed.as_nanos() as f64 / frames / 2.0,
                "allocations_per_message": allocations_per(frames, before, heap()),
            }))
        }
        _ => bail!("the core has no sockets"),
    }
}

/// The instance, which opens and writes, and the connection point, which reads.
struct Pair {
    instance: Endpoint,
    point: Endpoint,
    since: Instant,
}

struct Endpoint {
    channel: Channel,
    app: Reader,
    /// Written by the other end.
    wire: BytesMut,
}

/// An application that reads everything at once.
struct Reader {
    streams: Vec<StreamId>,
    /// Data to give back the credit of.
    read: Vec<(Token, usize)>,
}

impl Pair {
    fn new(streams: usize) -> Self {
        let limits = Limits { max_streams: Limits::MAX_STREAMS, ..Limits::default() };
        let config = Config { local: limits, peer: limits, ..Config::default() };
        let endpoint = |side| Endpoint {
            channel: Channel::new(side, config.clone(), Timestamp::ZERO),
            app: Reader { streams: Vec::with_capacity(streams), read: Vec::with_capacity(TURN) },
            wire: BytesMut::with_capacity(64 * 1024),
        };
        Self {
            instance: endpoint(Side::Instance),
            point: endpoint(Side::ConnectionPoint),
            since: Instant::now(),
        }
    }

    /// Opens streams and lets a byte pass each way, as on a connection.
    fn open_all(&mut self, streams: usize) -> Result<()> {
        let byte = Bytes::from_static(b"x");
        for number in 0..streams {
            let token = Token(u32::try_from(number)?);
            let id = self.instance.channel.open(StreamKind::Exchange, token)?;
            self.instance.app.streams.push(id);
            self.instance.channel.send(id, byte.clone(), End::None)?;
            self.deliver()?;
            self.point.channel.send(self.point.app.streams[number], byte.clone(), End::None)?;
            self.deliver()?;
        }
        Ok(())
    }

    /// Sends a message on each stream in turn, over and over, and gives how many arrived.
    fn go_round(&mut self, duration: Duration) -> Result<usize> {
        let message = Bytes::from_static(&[7; MESSAGE]);
        let (start, mut frames) = (Instant::now(), 0);
        for first in (0..self.instance.app.streams.len()).step_by(TURN).cycle() {
            if start.elapsed() >= duration {
                break;
            }
            let Endpoint { channel, app, .. } = &mut self.instance;
            for &id in app.streams.iter().skip(first).take(TURN) {
                channel.send(id, message.clone(), End::None)?;
            }
            frames += self.deliver()?;
        }
        Ok(frames)
    }

    /// Passes on everything that either end has to write, and gives the pieces of data that arrived.
    fn deliver(&mut self) -> Result<usize> {
        let mut pieces = 0;
        loop {
            let now = Timestamp::ZERO.after(self.since.elapsed());
            let wrote = self.instance.write_to(&mut self.point.wire, now);
            pieces += self.point.read(now)?;
            let answered = self.point.write_to(&mut self.instance.wire, now);
            pieces += self.instance.read(now)?;
            if !wrote && !answered {
                return Ok(pieces);
            }
        }
    }
}

impl Endpoint {
    fn write_to(&mut self, wire: &mut BytesMut, now: Timestamp) -> bool {
        let wrote = self.channel.poll_output(now, &mut self.app);
        if wrote {
            self.channel.output().for_each(|piece| wire.extend_from_slice(piece));
            self.channel.handle_written(now);
        }
        wrote
    }

    fn read(&mut self, now: Timestamp) -> Result<usize> {
        self.channel.handle_input(now, &mut self.wire, &mut self.app)?;
        ensure!(self.wire.is_empty(), "a batch ends with a frame");
        let pieces = self.app.read.len();
        for (stream, bytes) in self.app.read.drain(..) {
            self.channel.consume(self.app.streams[stream.0 as usize], bytes);
        }
        Ok(pieces)
    }
}

impl Application for Reader {
    fn opened(&mut self, id: StreamId, _kind: StreamKind) -> Token {
        self.streams.push(id);
        Token(u32::try_from(self.streams.len() - 1).expect("a stream id has 23 bits"))
    }

    fn data(&mut self, stream: Token, data: Bytes, _end: End) {
        self.read.push((stream, data.len()));
    }

    fn unread(&self, _stream: Token, _id: StreamId) -> u64 {
        0 // all is consumed at once
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
