//! One state of the search: two ends, their links, and what the adversary may still do.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmgmux_mux::frame::{Header, kind};
use cmgmux_mux::{
    Application, Channel, Claim, CloseCode, Config, End, ResumeCode, Resumed, Side, StreamCode,
    StreamId, StreamKind, Timestamp, Token,
};

use super::{Event, Size};
use crate::audit::Audit;

const SIDES: [Side; 2] = [Side::ConnectionPoint, Side::Instance];
const POINT: usize = 0;
const INSTANCE: usize = 1;

/// Everything that is at a moment.
#[derive(Debug)]
pub(super) struct Scene {
    size: Size,
    ends: [Endpoint; 2],
    links: Vec<Link>,
    claims: Vec<Claim>,
    answers: Vec<Resumed>,
    deaths: u8,
    dialled: u8,
    repeated: u8,
    has_moved: bool,
    audit: Audit,
    /// Stands still, so that an acknowledgement goes out with other frames only, until the
    /// conversation completes.
    now: Timestamp,
}

#[derive(Debug)]
struct Endpoint {
    channel: Channel,
    app: Listener,
    /// The link that the channel is on.
    link: Option<usize>,
    /// Words said, on one stream after the other, by the end that opens them; answers, by the other.
    said: u8,
    /// The new link takes a batch at a time, until all is written that had to be written again.
    is_blocked: bool,
}

/// One connection: what is under way to each end, and whether it still carries anything.
#[derive(Debug, Hash)]
struct Link {
    ways: [VecDeque<Message>; 2],
    alive: bool,
    /// Which of the ends still read it.
    read: [bool; 2],
}

#[derive(Clone, Debug, Hash)]
enum Message {
    Claim(Claim),
    Answer(Resumed),
    /// A tracked frame and the untracked ones before it.
    Frames(Vec<u8>),
}

/// What an application heard of either stream.
#[derive(Debug, Default)]
struct Listener {
    heard: [u8; 2],
    ended: [u8; 2],
    retired: [u8; 2],
    ids: Vec<StreamId>,
}

impl Application for Listener {
    fn opened(&mut self, id: StreamId, _kind: StreamKind) -> Token {
        assert!(!self.ids.contains(&id), "a stream was opened twice");
        self.ids.push(id);
        Token(self.ids.len() as u32 - 1)
    }
    fn data(&mut self, stream: Token, data: Bytes, end: End) {
        let stream = stream.0 as usize;
        assert_eq!((self.ended[stream], self.retired[stream]), (0, 0), "data behind the end");
        // Words count from 0; an answer is empty.
        if let Some(word) = data.first() {
            assert_eq!((*word, data.len()), (self.heard[stream], 1), "a word lost or doubled");
            self.heard[stream] += 1;
        }
        self.ended[stream] += u8::from(end == End::Stream);
    }
    fn unread(&self, _stream: Token, _id: StreamId) -> u64 {
        0
    }
    fn too_slow(&mut self, _stream: Token) {
        panic!("nothing is unread");
    }
    fn reset(&mut self, _stream: Token, code: StreamCode) {
        panic!("nobody resets: {code:?}");
    }
    fn stopped(&mut self, _stream: Token, code: StreamCode) {
        panic!("nobody stops: {code:?}");
    }
    fn writable(&mut self, _stream: Token) {}
    fn retired(&mut self, stream: Token) {
        self.retired[stream.0 as usize] += 1;
    }
    fn tickets(&mut self) {}
    fn draining(&mut self, code: CloseCode, _grace: Duration) {
        panic!("nobody drains: {code:?}");
    }
    fn closed(&mut self, code: CloseCode, text: &str) {
        panic!("nobody closes: {code:?} {text}");
    }
}

impl Scene {
    pub(super) fn new(size: Size) -> Self {
        let config = Config::default();
        let window = u64::from(config.local.window_bytes);
        let end = |side| Endpoint {
            channel: Channel::new(side, config.clone(), Timestamp::ZERO),
            app: Listener::default(),
            link: Some(0),
            said: 0,
            is_blocked: false,
        };
        Self {
            size,
            ends: SIDES.map(end),
            links: vec![Link::new()],
            claims: Vec::new(),
            answers: Vec::new(),
            deaths: 0,
            dialled: 0,
            repeated: 0,
            has_moved: false,
            audit: Audit::new([(window, window); 2]),
            now: Timestamp::ZERO,
        }
    }

    pub(super) fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// Everything that decides what can happen from here on.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = Digest::default();
        for end in &self.ends {
            end.channel.hash(&mut hasher);
            (end.app.heard, end.app.ended, end.app.retired).hash(&mut hasher);
            (end.link, end.said, end.is_blocked).hash(&mut hasher);
        }
        for (number, link) in self.links.iter().enumerate() {
            let is_in_use = self.ends.iter().any(|end| end.link == Some(number));
            if is_in_use || link.ways.iter().any(|way| !way.is_empty()) {
                (number, link).hash(&mut hasher);
            }
        }
        if self.repeated < self.size.repeats {
            self.claims.hash(&mut hasher);
        }
        (self.deaths, self.dialled, self.repeated).hash(&mut hasher);
        hasher.finish()
    }

    /// What can happen next.
    pub(super) fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (side, end) in self.ends.iter().enumerate() {
            if self.can_say(side) {
                events.push(Event::Say(side));
            }
            if let Some(link) = end.link {
                if !self.links[link].alive || self.deaths < self.size.deaths {
                    events.push(Event::Lose(side));
                }
                if end.is_blocked {
                    events.push(Event::Flush(side));
                }
            }
        }
        for (number, link) in self.links.iter().enumerate() {
            for side in [POINT, INSTANCE] {
                if !link.ways[side].is_empty() {
                    events.push(Event::Deliver(number, side));
                }
            }
        }
        if self.dialled < self.size.claims {
            events.push(Event::Dial);
        }
        if self.repeated < self.size.repeats {
            events.extend((0..self.claims.len()).map(Event::Repeat));
        }
        events
    }

    pub(super) fn handle(&mut self, event: Event) {
        self.has_moved = false;
        match event {
            Event::Say(side) => self.say(side),
            Event::Flush(side) => self.ends[side].is_blocked = self.flush(side),
            Event::Deliver(link, side) => self.deliver(link, side),
            Event::Lose(side) => {
                let link = self.ends[side].link.expect("only a link that is there is lost");
                self.deaths += u8::from(self.links[link].alive);
                self.lose(side);
            }
            Event::Dial => {
                self.dialled += 1;
                self.dial();
            }
            Event::Repeat(claim) => {
                self.repeated += 1;
                let number = self.links.len();
                let mut link = Link::new();
                link.read[POINT] = false;
                self.links.push(link);
                self.handle_claim(number, self.claims[claim]);
            }
        }
        for side in [POINT, INSTANCE] {
            while !self.ends[side].is_blocked && self.flush(side) {}
        }
        for (side, end) in SIDES.iter().zip(&self.ends) {
            let held = end.channel.counters().ring_bytes;
            assert_eq!(held, self.audit.ring_bytes(*side), "ring of {side:?}");
            assert!(end.app.retired.iter().all(|times| *times <= 1), "a stream ends once");
        }
    }

    /// Whether an end has a word to say. A stream is opened by its first one, which takes a link.
    fn can_say(&self, side: usize) -> bool {
        let end = &self.ends[side];
        SIDES[side] == self.size.opener
            && end.said < 2 * self.size.frames
            && (end.said >= 2 || end.channel.is_attached())
    }

    fn say(&mut self, side: usize) {
        let end = &mut self.ends[side];
        let (stream, word) = (end.said % 2, end.said / 2);
        if word == 0 {
            let opened = end.channel.open(StreamKind::Exchange, Token(u32::from(stream)));
            end.app.ids.push(opened.expect("an attached channel opens"));
        }
        let ending = if word + 1 == self.size.frames { End::Stream } else { End::Part };
        let id = end.app.ids[usize::from(stream)];
        end.channel.send(id, Bytes::from(vec![word]), ending).expect("there is room");
        end.said += 1;
    }

    /// Writes one batch; says whether there was one.
    fn flush(&mut self, side: usize) -> bool {
        let end = &mut self.ends[side];
        let Some(link) = end.link else { return false };
        if !end.channel.poll_output(self.now, &mut end.app) {
            return false;
        }
        let batch: Vec<u8> = end.channel.output().flatten().copied().collect();
        end.channel.handle_written(self.now);
        self.audit.handle_written(SIDES[side], &batch);
        let (mut start, mut end) = (0, 0);
        while let Some(header) = Header::decode(&batch[end..]).expect("our own frame") {
            end += header.frame_bytes();
            if kind::is_tracked(header.kind) || end == batch.len() {
                self.links[link].put(side, Message::Frames(batch[start..end].to_vec()));
                start = end;
            }
        }
        true
    }

    fn deliver(&mut self, number: usize, side: usize) {
        match self.links[number].ways[side].pop_front() {
            None => {}
            Some(Message::Claim(claim)) => self.handle_claim(number, claim),
            Some(Message::Answer(answer)) => self.handle_answer(number, answer),
            Some(Message::Frames(frame)) => {
                assert_eq!(self.ends[side].link, Some(number), "an end reads its own link");
                self.audit.handle_delivered(SIDES[side], &frame);
                let end = &mut self.ends[side];
                let mut input = BytesMut::from(&frame[..]);
                end.channel
                    .handle_input(self.now, &mut input, &mut end.app)
                    .expect("an honest peer");
                assert!(input.is_empty(), "a whole frame is taken");
                self.reply(side);
            }
        }
    }

    /// Answers each stream of the peer as soon as it has been opened.
    fn reply(&mut self, side: usize) {
        let end = &mut self.ends[side];
        if SIDES[side] != self.size.opener && usize::from(end.said) < end.app.ids.len() {
            let id = end.app.ids[usize::from(end.said)];
            end.channel.send(id, Bytes::new(), End::Stream).expect("it was opened");
            end.said += 1;
        }
    }

    fn handle_claim(&mut self, number: usize, claim: Claim) {
        let end = &mut self.ends[INSTANCE];
        let answer = end.channel.handle_claim(self.now, &claim).expect("an honest claim");
        self.answers.push(answer);
        let message = Message::Answer(answer);
        if answer.code == ResumeCode::ACCEPTED {
            self.audit.handle_claim(&claim, &answer);
            let old = end.link.replace(number);
            end.is_blocked = end.channel.counters().ring_bytes > 0;
            self.links[number].put(INSTANCE, message);
            if let Some(old) = old {
                self.links[old].leave(INSTANCE);
            }
        } else {
            self.links[number].put(INSTANCE, message);
            self.links[number].leave(INSTANCE);
        }
    }

    fn handle_answer(&mut self, number: usize, answer: Resumed) {
        let end = &mut self.ends[POINT];
        let is_ours = answer.code == ResumeCode::ACCEPTED
            && end.channel.handle_resumed(self.now, &answer).expect("an honest answer");
        let dropped = if is_ours {
            self.has_moved = true;
            end.is_blocked = end.channel.counters().ring_bytes > 0;
            self.audit.handle_resumed(&answer);
            end.link.replace(number)
        } else {
            Some(number)
        };
        if let Some(dropped) = dropped {
            self.links[dropped].leave(POINT);
        }
    }

    fn lose(&mut self, side: usize) {
        let end = &mut self.ends[side];
        end.channel.handle_link_lost(self.now);
        end.is_blocked = false;
        if let Some(link) = end.link.take() {
            self.links[link].leave(side);
        }
    }

    fn dial(&mut self) {
        let claim = self.ends[POINT].channel.claim();
        self.claims.push(claim);
        let mut link = Link::new();
        link.ways[INSTANCE].push_back(Message::Claim(claim));
        self.links.push(link);
    }

    /// Presents what is out of date to both ends: it changes nothing.
    pub(super) fn try_stale(&mut self, before: u64) {
        let accepted = self.answers.iter().filter(|answer| answer.code == ResumeCode::ACCEPTED);
        let newest = accepted.map(|answer| answer.epoch).max().unwrap_or(0);
        for claim in self.claims.iter().filter(|claim| claim.epoch <= newest) {
            let answer =
                self.ends[INSTANCE].channel.handle_claim(self.now, claim).expect("it is old");
            assert_eq!(answer, Resumed::refusal(claim.epoch, ResumeCode::STALE_EPOCH));
        }
        let pending = self.claims.last().map_or(0, |claim| claim.epoch);
        for answer in self.answers.iter().filter(|answer| answer.epoch < pending) {
            assert_eq!(self.ends[POINT].channel.handle_resumed(self.now, answer), Ok(false));
        }
        if !self.answers.is_empty() {
            assert_eq!(self.digest(), before, "a stale claim or answer changed something");
        }
    }

    /// Without faults the conversation ends, and nothing is left of it.
    pub(super) fn complete(&mut self) {
        for _ in 0..20 {
            let mut is_moving = true;
            while is_moving {
                is_moving = false;
                for side in [POINT, INSTANCE] {
                    while self.can_say(side) {
                        self.say(side);
                        is_moving = true;
                    }
                    while self.flush(side) {}
                    for number in 0..self.links.len() {
                        while !self.links[number].ways[side].is_empty() {
                            self.deliver(number, side);
                            is_moving = true;
                        }
                    }
                    if self.ends[side].link.is_some_and(|link| self.links[link].is_over(side)) {
                        self.lose(side);
                        is_moving = true;
                    }
                }
            }
            if self.is_complete() {
                return;
            }
            let later = self.now.after(Duration::from_millis(25));
            if self.now == Timestamp::ZERO {
                self.now = later;
            } else {
                self.dial();
            }
        }
        panic!("the conversation does not complete: {self:?}");
    }

    fn is_complete(&self) -> bool {
        self.ends.iter().zip(SIDES).all(|(end, side)| {
            let words = if side == self.size.opener { 0 } else { self.size.frames };
            let Listener { heard, ended, retired, .. } = &end.app;
            let counters = end.channel.counters();
            (*heard, *ended, *retired) == ([words; 2], [1; 2], [1; 2])
                && (counters.live, counters.ring_bytes, counters.queued_bytes) == (0, 0, 0)
        })
    }
}

impl Link {
    fn new() -> Self {
        Self { ways: Default::default(), alive: true, read: [true, true] }
    }

    /// `side` writes. What does not arrive is what is never delivered.
    fn put(&mut self, side: usize, message: Message) {
        let peer = 1 - side;
        if self.read[peer] {
            self.ways[peer].push_back(message);
        }
    }

    /// `side` is done with the link; what it has written may still arrive.
    fn leave(&mut self, side: usize) {
        self.alive = false;
        self.read[side] = false;
        self.ways[side].clear();
    }

    /// Whether the peer has left and `side` has read everything.
    fn is_over(&self, side: usize) -> bool {
        !self.alive && self.ways[side].is_empty()
    }
}

/// A state is one of millions, so a hash that is quick and spreads well is enough.
#[derive(Default)]
struct Digest(u64);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            let mixed = self.0 ^ word;
            self.0 = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ mixed >> 32
    }
}
