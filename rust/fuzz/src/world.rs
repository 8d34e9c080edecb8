//! Two ends of a channel, the links between them, and what a script has them do.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmgmux_mux::{
    Channel, Claim, CloseCode, Config, End, Expiry, Limits, ResumeCode, Resumed, Side, StreamCode,
    StreamId, StreamKind, Timestamp,
};

use crate::listener::{Listener, text};
use crate::script::Script;

/// Places of the two ends in arrays.
pub(crate) const POINT: usize = 0;
pub(crate) const INSTANCE: usize = 1;
const SIDES: [Side; 2] = [Side::ConnectionPoint, Side::Instance];
/// Links that a script may dial.
const MAX_LINKS: usize = 32;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) ends: [Endpoint; 2],
    pub(crate) now: Timestamp,
    links: Vec<Link>,
    written: BTreeMap<(usize, StreamId), Written>,
}

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) channel: Channel,
    pub(crate) app: Listener,
    /// What has arrived of a partial frame.
    pub(crate) input: BytesMut,
    link: Option<usize>,
}

/// A connection: what is under way to each end, and what was said on it first.
#[derive(Debug, Default)]
struct Link {
    to: [VecDeque<u8>; 2],
    claim: Option<Claim>,
    answer: Option<Resumed>,
}

/// What one end wrote on a stream.
#[derive(Debug, Default)]
struct Written {
    bytes: u64,
    parts: Vec<u64>,
    finished: bool,
    /// Its writer or reader gave it up.
    abandoned: bool,
}

/// The channel has been without a link for too long.
#[derive(Debug)]
pub(crate) struct Over;

impl World {
    /// A new channel with usual limits, or with such that are reached soon.
    pub(crate) fn new(is_narrow: bool) -> Self {
        let wide = Limits { max_streams: 200, ..Limits::default() };
        let narrow = Limits { max_streams: 3, window_bytes: Limits::MIN_WINDOW_BYTES };
        let limits = if is_narrow { narrow } else { wide };
        let mut config = Config { local: limits, peer: limits, ..Config::default() };
        if is_narrow {
            config.max_window_bytes = 48 * 1024;
            config.budget_bytes = 40 * 1024;
            config.queue_bytes = 4 * 1024;
            config.ring_bytes = 16 * 1024;
            config.ack_bytes = 1024;
        }
        let end = |side| Endpoint {
            channel: Channel::new(side, config.clone(), Timestamp::ZERO),
            app: Listener::new(side),
            input: BytesMut::new(),
            link: Some(0),
        };
        Self {
            ends: SIDES.map(end),
            now: Timestamp::ZERO,
            links: vec![Link::default()],
            written: BTreeMap::new(),
        }
    }

    /// Lets the script decide until it ends.
    pub(crate) fn run(&mut self, script: &mut Script<'_>) -> Result<(), Over> {
        while !script.is_empty() {
            self.step(script)?;
            for end in &self.ends {
                let unread = end.channel.counters().unread_bytes;
                assert_eq!(unread, end.app.unread_bytes(), "the budget's account is wrong");
            }
        }
        Ok(())
    }

    fn step(&mut self, script: &mut Script<'_>) -> Result<(), Over> {
        let byte = script.byte();
        let at = usize::from(byte >> 7);
        match byte & 0x7f {
            0..8 => self.open(at),
            8..20 => self.send(at, script, 1),
            20..28 => self.send(at, script, 150),
            28..36 => self.finish(at, script.byte()),
            36..44 => self.consume(at, script.byte(), 1),
            44..50 => self.consume(at, script.byte(), usize::MAX),
            50..56 => self.reset(at, script.byte()),
            56..62 => self.stop(at, script.byte()),
            62..66 => self.release(at, script.byte()),
            66..70 => self.complete(at),
            70..82 => drop(self.write(at)),
            82..92 => self.deliver(at, usize::from(script.byte())),
            92..100 => self.deliver(at, usize::MAX),
            100..108 => self.lose_link(at),
            108..112 => self.dial(),
            112..116 => self.accept(script.byte()),
            116..120 => self.answer(script.byte()),
            120..122 => self.settle(),
            122 => self.go_away(at),
            _ => return self.pass(u64::from(script.byte()).pow(2) * 8),
        }
        Ok(())
    }

    fn open(&mut self, at: usize) {
        let end = &mut self.ends[at];
        let token = end.app.add(None);
        let Ok(id) = end.channel.open(StreamKind::Exchange, token) else {
            end.app.streams.pop();
            return;
        };
        end.app.streams[token.0 as usize].id = Some(id);
        for writer in [POINT, INSTANCE] {
            let before = self.written.insert((writer, id), Written::default());
            assert!(before.is_none(), "{id} is used twice");
        }
    }

    /// The number and the id of one of the live streams.
    fn pick(&self, at: usize, choice: u8) -> Option<(usize, StreamId)> {
        let streams = self.ends[at].app.streams.iter().enumerate();
        let live: Vec<_> = streams.filter(|(_, seen)| !seen.is_over).collect();
        let (number, seen) = live.get(usize::from(choice) % live.len().max(1))?;
        Some((*number, seen.id?))
    }

    fn send(&mut self, at: usize, script: &mut Script<'_>, unit: usize) {
        let (choice, length) = (script.byte(), usize::from(script.byte()) * unit);
        let Some((number, id)) = self.pick(at, choice & 0x3f) else {
            return;
        };
        let end = if choice & 0x40 == 0 { End::None } else { End::Part };
        if choice & 0x80 == 0 || self.ends[at].channel.has_room(id) == Ok(true) {
            let taken = self.say(at, number, id, length, end);
            assert!(taken || choice & 0x80 == 0, "there was room");
        }
    }

    fn finish(&mut self, at: usize, choice: u8) {
        if let Some((number, id)) = self.pick(at, choice & 0x3f) {
            self.say(at, number, id, usize::from(choice >> 6), End::Stream);
        }
    }

    /// Sends what comes next on a stream; says whether the channel takes it.
    fn say(&mut self, at: usize, number: usize, id: StreamId, length: usize, end: End) -> bool {
        let written = self.written.get_mut(&(at, id)).unwrap();
        let data: Bytes = text(id, SIDES[at], written.bytes, length).collect();
        if self.ends[at].channel.send(id, data, end).is_err() {
            return false;
        }
        written.bytes += length as u64;
        if end != End::None {
            written.parts.push(written.bytes);
        }
        if end == End::Stream {
            written.finished = true;
            self.ends[at].app.streams[number].finished = true;
        }
        true
    }

    /// Reads up to `most` pieces of any stream, live or not.
    fn consume(&mut self, at: usize, choice: u8, most: usize) {
        let end = &mut self.ends[at];
        let number = usize::from(choice) % end.app.streams.len().max(1);
        let Some(seen) = end.app.streams.get_mut(number) else {
            return;
        };
        for bytes in seen.unread.drain(..most.min(seen.unread.len())) {
            if seen.is_over {
                end.channel.consume_retired(bytes);
            } else {
                end.channel.consume(seen.id.unwrap(), bytes);
            }
        }
    }

    fn reset(&mut self, at: usize, choice: u8) {
        if let Some((number, id)) = self.pick(at, choice) {
            self.ends[at].channel.reset(id, StreamCode::CANCELLED);
            self.ends[at].app.streams[number].finished = true;
            self.written.get_mut(&(at, id)).unwrap().abandoned = true;
        }
    }

    fn stop(&mut self, at: usize, choice: u8) {
        if let Some((number, id)) = self.pick(at, choice) {
            self.ends[at].channel.stop(id, StreamCode::CANCELLED);
            let seen = &mut self.ends[at].app.streams[number];
            seen.unwanted = true;
            seen.unread.clear();
        }
    }

    fn release(&mut self, at: usize, choice: u8) {
        let Some((number, id)) = self.pick(at, choice) else {
            return;
        };
        let seen = &mut self.ends[at].app.streams[number];
        if seen.finished && (seen.ended || seen.reset || seen.unwanted) {
            seen.unread.clear();
            seen.is_over = true;
            self.ends[at].channel.release(id);
        }
    }

    /// A handler of an accepted stream that is over ends.
    fn complete(&mut self, at: usize) {
        let end = &mut self.ends[at];
        if end.app.unfinished > 0 {
            end.app.unfinished -= 1;
            end.channel.complete();
        }
    }

    /// Writes a batch to the link; says whether there was one.
    fn write(&mut self, at: usize) -> bool {
        let end = &mut self.ends[at];
        if !end.channel.poll_output(self.now, &mut end.app) {
            return false;
        }
        let link = end.link.expect("nothing is written without a link");
        self.links[link].to[1 - at].extend(end.channel.output().flatten());
        end.channel.handle_written(self.now);
        true
    }

    fn deliver(&mut self, at: usize, most: usize) {
        let end = &mut self.ends[at];
        let Some(link) = end.link else { return };
        let wire = &mut self.links[link].to[at];
        end.input.extend(wire.drain(..most.min(wire.len())));
        let applied = end.channel.handle_input(self.now, &mut end.input, &mut end.app);
        applied.expect("what an end of ours writes is right");
    }

    /// One end notices that its link is dead.
    fn lose_link(&mut self, at: usize) {
        let end = &mut self.ends[at];
        if end.link.take().is_some() {
            end.channel.handle_link_lost(self.now);
            end.input.clear();
        }
    }

    fn dial(&mut self) {
        if self.links.len() < MAX_LINKS {
            let claim = Some(self.ends[POINT].channel.claim());
            self.links.push(Link { claim, ..Link::default() });
        }
    }

    fn accept(&mut self, choice: u8) {
        let number = usize::from(choice) % self.links.len();
        let Some(claim) = self.links[number].claim.take() else {
            return;
        };
        let instance = &mut self.ends[INSTANCE];
        let resumed = instance.channel.handle_claim(self.now, &claim);
        let resumed = resumed.expect("what an end of ours claims is right");
        if resumed.code == ResumeCode::ACCEPTED {
            instance.link = Some(number);
            instance.input.clear();
            self.links[number].answer = Some(resumed);
        }
    }

    fn answer(&mut self, choice: u8) {
        let number = usize::from(choice) % self.links.len();
        let Some(resumed) = self.links[number].answer.take() else {
            return;
        };
        let point = &mut self.ends[POINT];
        let is_taken = point.channel.handle_resumed(self.now, &resumed);
        if is_taken.expect("what an end of ours answers is right") {
            point.link = Some(number);
            point.input.clear();
        }
    }

    fn go_away(&mut self, at: usize) {
        self.ends[at].channel.go_away(CloseCode::SHUTDOWN, Duration::from_secs(5));
    }

    fn pass(&mut self, micros: u64) -> Result<(), Over> {
        self.now = self.now.after(Duration::from_micros(micros));
        for at in [POINT, INSTANCE] {
            match self.ends[at].channel.handle_timeout(self.now) {
                Some(Expiry::Channel) => return Err(Over),
                Some(Expiry::Link | Expiry::Frame) => self.lose_link(at),
                None => {}
            }
        }
        Ok(())
    }

    /// Moves everything that is due, until both ends are silent.
    fn settle(&mut self) {
        loop {
            let mut is_silent = true;
            for at in [POINT, INSTANCE] {
                while self.write(at) {
                    is_silent = false;
                }
            }
            for at in [POINT, INSTANCE] {
                self.deliver(at, usize::MAX);
            }
            if is_silent {
                return;
            }
        }
    }

    /// Gives the ends a common link, lets them say and read all, and checks that nothing is left
    /// and nothing missing.
    pub(crate) fn conclude(&mut self) {
        if self.ends[POINT].link.is_none() || self.ends[POINT].link != self.ends[INSTANCE].link {
            let claim = Some(self.ends[POINT].channel.claim());
            self.links.push(Link { claim, ..Link::default() });
            let newest = (self.links.len() - 1) as u8;
            self.accept(newest);
            self.answer(newest);
        }
        let is_idle = |end: &Endpoint| {
            let counters = end.channel.counters();
            (counters.live, counters.ring_bytes, counters.unread_bytes) == (0, 0, 0)
        };
        let mut rounds = 0;
        while !self.ends.iter().all(is_idle) {
            rounds += 1;
            assert!(rounds < 10_000, "the channel never falls silent");
            for at in [POINT, INSTANCE] {
                for number in 0..self.ends[at].app.streams.len() {
                    self.conclude_stream(at, number);
                }
                self.complete(at);
            }
            self.settle();
            self.now = self.now.after(Duration::from_millis(25));
        }
        for at in [POINT, INSTANCE] {
            while self.ends[at].app.unfinished > 0 {
                self.complete(at);
            }
            let counters = self.ends[at].channel.counters();
            assert_eq!((counters.queued_bytes, counters.unfinished), (0, 0));
        }
        self.check_streams(true);
    }

    fn conclude_stream(&mut self, at: usize, number: usize) {
        let seen = &self.ends[at].app.streams[number];
        if !seen.unread.is_empty() {
            self.consume(at, number as u8, usize::MAX);
        }
        let seen = &self.ends[at].app.streams[number];
        if !seen.is_over && !seen.finished {
            self.say(at, number, seen.id.unwrap(), 0, End::Stream);
        }
    }

    /// Checks that each end has seen a prefix of what the other wrote; if the conversation is
    /// complete, all of it, unless it was given up.
    pub(crate) fn check_streams(&self, is_complete: bool) {
        for at in [POINT, INSTANCE] {
            let (reader, writer) = (&self.ends[at].app, &self.ends[1 - at].app);
            for seen in &reader.streams {
                let id = seen.id.unwrap();
                let written = &self.written[&(1 - at, id)];
                // A stream that the writer has not seen was refused for it.
                let writers = writer.streams.iter().find(|seen| seen.id == Some(id));
                let abandoned = written.abandoned || writers.is_none_or(|seen| seen.stopped);
                assert!(written.parts.starts_with(&seen.parts) && seen.bytes <= written.bytes);
                assert!(!seen.ended || written.finished && seen.bytes == written.bytes);
                if is_complete && !abandoned && !seen.unwanted {
                    assert!(seen.ended && seen.bytes == written.bytes, "{seen:?} of {written:?}");
                }
            }
        }
    }
}
