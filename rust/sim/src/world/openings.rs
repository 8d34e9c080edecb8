//! How links begin: HELLO makes a channel, RESUME takes one over.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use cmgmux_mux::frame::{HEADER_BYTES, Header, kind};
use cmgmux_mux::{
    Channel, Claim, Config, Hello, HelloOk, Limits, Resume, ResumeCode, Resumed, Secret,
};

use super::ends::{Live, NAMES};
use super::link::{Link, Role};
use super::{Event, INSTANCE, POINT, SIDES, World};
use crate::audit::Audit;
use crate::plan::Sizes;

/// Time that the first frame of a link may take.
const HANDSHAKE_US: u64 = 5_000_000;

impl World<'_> {
    fn begin_channel(&mut self, side: usize, number: usize, link: usize, peer: Limits) {
        let sizes = &self.plan.sizes[side];
        self.processes[side].live = Some(Live {
            channel: Channel::new(NAMES[side], config(sizes, peer), self.now),
            number,
            link: Some(link),
            input: BytesMut::new(),
            output: BytesMut::new(),
            lost_at: self.now,
            heard_at: self.now,
            applied: 0,
            acked: (0, self.now),
            drain_until: None,
            is_closing: false,
        });
        self.links[link].roles[side] = Role::Attached;
        self.book.begin(side, number);
        self.processes[side].timer_at = None;
        self.tell(|| format!("channel {number} begins at {:?} on link {link}", NAMES[side]));
    }

    /// Whether the connection point has a link or waits for one to open.
    fn has_link(&self) -> bool {
        let mut dialled = self.dialled.iter();
        self.attached_link(POINT).is_some()
            || dialled.any(|link| self.links[*link].roles[POINT] == Role::Opening)
    }

    /// The connection point will make a link if it has none.
    pub(super) fn need_link(&mut self) {
        if !self.dials && !self.has_link() {
            self.dials = true;
            let after = self.rng.u64(1_000..500_000);
            self.schedule(self.in_us(after).max(self.no_link_until), Event::Dial);
        }
    }

    /// The connection point makes the link that it lacks.
    pub(super) fn redial(&mut self) {
        self.dials = false;
        if !self.has_link() && self.no_link_until <= self.now {
            self.dial();
        }
    }

    /// The connection point dials, and says HELLO or RESUME.
    pub(super) fn dial(&mut self) {
        let first = match &mut self.processes[POINT].live {
            Some(live) if live.is_closing => return,
            Some(live) => {
                let claim = live.channel.claim();
                self.claims.push((live.number, claim));
                resume(live.number, claim)
            }
            None => {
                let limits = limits(&self.plan.sizes[POINT]);
                let boot_id = [self.processes[POINT].boot; 16];
                Hello { limits, instance: 0, ordinal: 0, boot_id }.encode()
            }
        };
        let number = self.new_link();
        self.links[number].channel = self.processes[POINT].live.as_ref().map(|live| live.number);
        self.dialled = Some(number);
        self.tell(|| format!("link {number} is dialled"));
        self.write_head(number, POINT, first);
    }

    /// A link that both ends wait on.
    pub(super) fn new_link(&mut self) -> usize {
        let number = self.links.len();
        self.links.push(Link::new(self.plan.seed ^ (number as u64 + 1) << 32, &self.net));
        if self.is_healed {
            self.links[number].widen();
        }
        if let Some(cuts) = self.cuts.pop_front() {
            for side in SIDES {
                if let Some(at) = self.links[number].cut(self.now, side, cuts[side] as usize) {
                    self.schedule_arrivals(number, side, &[at]);
                }
            }
        }
        self.schedule(self.in_us(HANDSHAKE_US), Event::GiveUp(number));
        number
    }

    /// `side` writes the first frame of a link.
    pub(super) fn write_head(&mut self, number: usize, side: usize, frame: BytesMut) {
        let net = &self.net;
        let arrivals = self.links[number].write(self.now, 1 - side, net, frame.freeze());
        self.schedule_arrivals(number, 1 - side, &arrivals);
    }

    pub(super) fn give_up(&mut self, number: usize) {
        for side in SIDES {
            if self.links[number].roles[side] == Role::Opening {
                self.leave(number, side);
            }
        }
    }

    /// Looks at the first frame of a link once it is whole.
    pub(super) fn read_head(&mut self, number: usize, side: usize) {
        let head = &mut self.links[number].heads[side];
        let Some(header) = Header::decode(head).expect("an honest first frame") else { return };
        if head.len() < header.frame_bytes() {
            return;
        }
        let mut head = std::mem::take(head);
        let frame = head.split_to(header.frame_bytes());
        let body = &frame[HEADER_BYTES..];
        match header.kind {
            kind::HELLO => {
                let hello = Hello::decode(body).expect("an honest HELLO");
                self.handle_hello(number, &hello);
            }
            kind::HELLO_OK => {
                let hello = HelloOk::decode(body).expect("an honest HELLO_OK");
                self.begin_channel(POINT, number_of(&hello.channel_id), number, hello.limits);
            }
            kind::RESUME => {
                let resume = Resume::decode(body).expect("an honest RESUME");
                self.handle_claim(number, number_of(&resume.channel_id), &resume.claim);
            }
            kind::RESUMED => {
                let resumed = Resumed::decode(body).expect("an honest RESUMED");
                self.handle_resumed(number, &resumed);
            }
            kind => panic!("a link begins with type {kind:#04x}"),
        }
        if head.has_remaining() && self.attached_link(side) == Some(number) {
            let live = self.processes[side].live.as_mut().expect("a channel is attached");
            live.input = head;
            self.apply(side);
        }
    }

    fn handle_hello(&mut self, link: usize, hello: &Hello) {
        self.end_channel(INSTANCE, "another takes its place");
        let number = self.audits.len();
        let [point, instance] = &self.plan.sizes;
        self.audits.push(Audit::new([point, instance].map(Sizes::windows)));
        let ok = HelloOk {
            limits: limits(instance),
            shards: 1,
            boot_id: [self.processes[INSTANCE].boot; 16],
            channel_id: (number as u128).to_be_bytes(),
            secret: Secret([0; 32]),
        };
        self.write_head(link, INSTANCE, ok.encode());
        self.begin_channel(INSTANCE, number, link, hello.limits);
    }

    fn handle_claim(&mut self, link: usize, number: usize, claim: &Claim) {
        let now = self.now;
        let live = self.processes[INSTANCE].live.as_mut();
        let Some(live) = live.filter(|live| live.number == number && !live.is_closing) else {
            let refusal = Resumed::refusal(claim.epoch, ResumeCode::UNKNOWN_CHANNEL);
            self.write_head(link, INSTANCE, refusal.encode());
            self.leave(link, INSTANCE);
            return;
        };
        let answer = match live.channel.handle_claim(now, claim) {
            Ok(answer) => answer,
            Err(error) => panic!("an honest claim is refused: {error}"),
        };
        self.tell(|| format!("claim {} on link {link}: {:?}", claim.epoch, answer.code));
        self.write_head(link, INSTANCE, answer.encode());
        if answer.code == ResumeCode::ACCEPTED {
            self.audits[number].handle_claim(claim, &answer);
            self.attach(INSTANCE, link);
        } else {
            assert_eq!(answer.code, ResumeCode::STALE_EPOCH, "a channel that is there answers");
            self.leave(link, INSTANCE);
        }
    }

    fn handle_resumed(&mut self, link: usize, resumed: &Resumed) {
        let now = self.now;
        let asked = self.links[link].channel;
        let live = self.processes[POINT].live.as_mut();
        let Some(live) = live.filter(|live| asked == Some(live.number) && !live.is_closing) else {
            self.leave(link, POINT);
            return;
        };
        let number = live.number;
        match resumed.code {
            ResumeCode::ACCEPTED => match live.channel.handle_resumed(now, resumed) {
                Ok(true) => {
                    self.audits[number].handle_resumed(resumed);
                    self.report.resumes += 1;
                    self.attach(POINT, link);
                }
                Ok(false) => self.leave(link, POINT),
                Err(error) => panic!("an honest answer is refused: {error}"),
            },
            ResumeCode::UNKNOWN_CHANNEL => {
                let live = self.processes[INSTANCE].live.as_ref();
                let is_known = live.is_some_and(|live| live.number == number && !live.is_closing);
                assert!(!is_known, "the instance does not know its channel");
                self.leave(link, POINT);
                self.end_channel(POINT, "unknown to the instance");
            }
            _ => self.leave(link, POINT),
        }
    }

    /// The channel goes on over another link.
    fn attach(&mut self, side: usize, link: usize) {
        let now = self.now;
        let live = self.processes[side].live.as_mut().expect("it was asked");
        let old = live.link.replace(link);
        live.input.clear();
        live.output.clear();
        live.heard_at = now;
        live.applied = 0;
        live.acked = (0, now);
        self.links[link].roles[side] = Role::Attached;
        if let Some(old) = old {
            self.abandon(old, side);
        }
        self.book.sides[side].has_tickets = true;
        self.tell(|| format!("{:?} moves to link {link}", NAMES[side]));
    }
}

fn limits(sizes: &Sizes) -> Limits {
    Limits { max_streams: sizes.max_streams, window_bytes: sizes.window_bytes }
}

fn config(sizes: &Sizes, peer: Limits) -> Config {
    Config {
        local: limits(sizes),
        peer,
        max_window_bytes: sizes.max_window_bytes,
        budget_bytes: sizes.budget_bytes,
        queue_bytes: sizes.queue_bytes,
        ring_bytes: sizes.ring_bytes,
        resume_window: Duration::from_millis(u64::from(sizes.resume_window_ms)),
        ..Config::default()
    }
}

pub(super) fn resume(number: usize, claim: Claim) -> BytesMut {
    let channel_id = (number as u128).to_be_bytes();
    Resume { channel_id, claim, nonce: [0; 8], proof: [0; 32] }.encode()
}

fn number_of(channel_id: &[u8; 16]) -> usize {
    u128::from_be_bytes(*channel_id) as usize
}
