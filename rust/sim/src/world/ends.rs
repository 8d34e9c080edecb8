//! The owners of both ends: what a driver does with a channel and its links.

use std::collections::VecDeque;

use bytes::BytesMut;
use cmgmux_mux::{Channel, CloseCode, Expiry, Side, Timestamp};

use super::book::View;
use super::link::{Piece, Role};
use super::{Event, World};
use crate::audit::Audit;

/// Until the next look at something that is overdue because the link takes no output.
const OVERDUE_US: u64 = 25_000;
/// Batches without an end mean that an end is never silent.
const MAX_BATCHES: u32 = 100_000;

/// How an end closes a channel all of whose streams are over.
const DRAINED: CloseCode = CloseCode::SHUTDOWN;

pub(super) const NAMES: [Side; 2] = [Side::ConnectionPoint, Side::Instance];

/// One end's process.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) live: Option<Live>,
    pub(super) boot: u8,
    pub(super) paused_until: Timestamp,
    pub(super) timer_at: Option<Timestamp>,
    /// Streams that could not be opened yet.
    pub(super) waiting: VecDeque<usize>,
}

/// A channel and what its owner keeps of it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) channel: Channel,
    /// Number of the channel, which both ends know it by.
    pub(super) number: usize,
    pub(super) link: Option<usize>,
    /// What the link delivered of a frame that is not whole.
    pub(super) input: BytesMut,
    /// What the link has not taken yet.
    pub(super) output: BytesMut,
    pub(super) lost_at: Timestamp,
    pub(super) heard_at: Timestamp,
    /// What had been applied at the last look, which is to be acknowledged by the next one.
    pub(super) applied: u64,
    /// What the peer had acknowledged at the last look, and since when it was no more.
    pub(super) acked: (u64, Timestamp),
    pub(super) drain_until: Option<Timestamp>,
    pub(super) is_closing: bool,
}

impl Live {
    /// Appends a batch to what is to be written, if there is one.
    fn encode(&mut self, now: Timestamp, view: &mut View<'_>, audit: &mut Audit) -> bool {
        if !self.channel.poll_output(now, view) {
            return false;
        }
        let before = self.output.len();
        self.channel.output().for_each(|piece| self.output.extend_from_slice(piece));
        self.channel.handle_written(now);
        let drains = audit.handle_written(NAMES[view.side], &self.output[before..]);
        view.book.sides[view.side].is_draining |= drains;
        true
    }
}

impl World<'_> {
    /// Does everything that is due at an end.
    pub(super) fn drive(&mut self, side: usize) {
        if self.processes[side].paused_until > self.now {
            return;
        }
        for _ in 0..MAX_BATCHES {
            if !self.check_state(side) {
                return;
            }
            let is_closing = self.is_closing(side);
            if !is_closing {
                self.run_applications(side);
            }
            let is_written = !self.pump(side);
            if is_written && (is_closing || self.book.sides[side].touched.is_empty()) {
                self.check(side);
                self.set_timer(side);
                return;
            }
        }
        panic!("{:?} never falls silent", NAMES[side]);
    }

    /// Reasons to end the channel or its link; says whether there still is a channel.
    fn check_state(&mut self, side: usize) -> bool {
        let now = self.now;
        let Some(live) = &mut self.processes[side].live else { return false };
        let closed = self.book.sides[side].closed;
        if let Some(code) = closed {
            if code == DRAINED {
                let waits = self.book.waits_for_unseen(side);
                assert!(!waits, "{:?} may not try again what nobody has seen", NAMES[side]);
            }
            self.end_channel(side, "closed by its peer");
            return false;
        }
        let has_drained = live.channel.has_drained();
        let is_over = live.drain_until.is_some_and(|until| now >= until || has_drained);
        if is_over && !live.is_closing {
            live.is_closing = true;
            if live.link.is_none() {
                self.end_channel(side, "drained without a link");
                return false;
            }
            let code = if has_drained { DRAINED } else { CloseCode::INTERNAL };
            live.channel.close(code, "");
            let Self { book, plan, audits, .. } = self;
            let mut view = View { book, plan, side };
            live.encode(now, &mut view, &mut audits[live.number]);
            return true;
        }
        match live.channel.handle_timeout(now) {
            None => {}
            Some(Expiry::Link | Expiry::Frame) => {
                assert!(live.link.is_some(), "a link that is not there is silent");
                self.report.silent += 1;
                self.check_silence(side);
                self.lose_link(side);
            }
            Some(Expiry::Channel) => {
                let window_us = u64::from(self.plan.sizes[side].resume_window_ms) * 1_000;
                let waited = now.as_micros() - live.lost_at.as_micros();
                assert!(live.link.is_none() && waited >= window_us, "given up after {waited} us");
                self.report.expired += 1;
                self.end_channel(side, "without a link for too long");
                return false;
            }
        }
        true
    }

    /// Writes what is due as far as the link takes it; says whether an application has to look again.
    fn pump(&mut self, side: usize) -> bool {
        let peer = 1 - side;
        for _ in 0..MAX_BATCHES {
            let Self { processes, book, plan, now, audits, links, net, .. } = self;
            let Some(live) = &mut processes[side].live else { return false };
            let Some(number) = live.link else {
                let mut view = View { book, plan, side };
                let is_silent = !live.channel.poll_output(*now, &mut view);
                assert!(is_silent, "{:?} encodes without a link", NAMES[side]);
                return false;
            };
            let room = links[number].room(peer);
            if room > 0 && !live.output.is_empty() {
                let piece = live.output.split_to(room.min(live.output.len())).freeze();
                let arrivals = links[number].write(*now, peer, net, piece);
                self.schedule_arrivals(number, peer, &arrivals);
                continue;
            }
            if room == 0 {
                return false;
            }
            if live.is_closing {
                self.end_channel(side, "closed");
                return false;
            }
            let mut view = View { book, plan, side };
            if !live.encode(*now, &mut view, &mut audits[live.number]) {
                return false;
            }
            if !self.book.sides[side].touched.is_empty() {
                return true;
            }
        }
        panic!("{:?} writes without end", NAMES[side]);
    }

    pub(super) fn schedule_arrivals(&mut self, link: usize, side: usize, arrivals: &[Timestamp]) {
        let frozen_until = self.links[link].ways[side].frozen_until;
        for at in arrivals {
            self.schedule((*at).max(frozen_until), Event::Arrive(link, side));
        }
    }

    fn set_timer(&mut self, side: usize) {
        let now = self.now;
        let process = &mut self.processes[side];
        let Some(live) = &process.live else { return };
        let mut at = live.channel.next_deadline();
        if at <= now {
            assert!(
                live.link.is_some_and(|link| self.links[link].room(1 - side) == 0),
                "a deadline of {:?} has passed without progress",
                NAMES[side]
            );
            at = Timestamp::from_micros(now.as_micros() + OVERDUE_US);
        }
        if let Some(until) = live.drain_until.filter(|until| *until > now) {
            at = at.min(until);
        }
        if process.timer_at.is_none_or(|timer| timer > at) {
            process.timer_at = Some(at);
            self.schedule(at, Event::Timer(side));
        }
    }

    /// The next piece arrives at an end.
    pub(super) fn arrive(&mut self, number: usize, side: usize) {
        let frozen_until = self.links[number].ways[side].frozen_until;
        if frozen_until > self.now {
            self.schedule(frozen_until, Event::Arrive(number, side));
            return;
        }
        let Some(piece) = self.links[number].take(side) else { return };
        let role = self.links[number].roles[side];
        match (piece, role) {
            (_, Role::Left) => {}
            (Piece::End, Role::Opening) => self.leave(number, side),
            (Piece::End, Role::Attached) => {
                self.tell(|| format!("link {number} ends at {:?}", NAMES[side]));
                self.lose_link(side);
            }
            (Piece::Data(bytes), Role::Opening) => {
                self.links[number].heads[side].extend_from_slice(&bytes);
                self.read_head(number, side);
            }
            (Piece::Data(bytes), Role::Attached) => {
                let live = self.processes[side].live.as_mut().expect("a channel is attached");
                live.input.extend_from_slice(&bytes);
                live.heard_at = self.now;
                self.apply(side);
            }
        }
        self.drive(side);
        if self.attached_link(1 - side) == Some(number) {
            // The link has room again.
            self.drive(1 - side);
        }
    }

    fn is_closing(&self, side: usize) -> bool {
        self.processes[side].live.as_ref().is_some_and(|live| live.is_closing)
    }

    pub(super) fn attached_link(&self, side: usize) -> Option<usize> {
        self.processes[side].live.as_ref().and_then(|live| live.link)
    }

    /// Applies the whole frames that have arrived.
    pub(super) fn apply(&mut self, side: usize) {
        let Self { processes, book, plan, now, audits, .. } = self;
        let Some(live) = &mut processes[side].live else { return };
        audits[live.number].handle_delivered(NAMES[side], &live.input);
        let mut view = View { book, plan, side };
        let frames = live.channel.counters().frames_received;
        if let Err(error) = live.channel.handle_input(*now, &mut live.input, &mut view) {
            panic!("{:?} refuses what its honest peer sends: {error}", NAMES[side]);
        }
        self.report.frames += live.channel.counters().frames_received - frames;
    }

    /// `side` closes a link, and sees to it that what it has said arrives.
    pub(super) fn leave(&mut self, number: usize, side: usize) {
        let was_alive = !self.links[number].is_dead;
        if self.links[number].roles[side] == Role::Left {
            return;
        }
        self.report.link_deaths += u64::from(was_alive);
        if let Some(at) = self.links[number].leave(self.now, side) {
            self.schedule_arrivals(number, 1 - side, &[at]);
        }
    }

    /// `side` drops a link without reading it to its end.
    pub(super) fn abandon(&mut self, number: usize, side: usize) {
        self.links[number].lose_part(side);
        self.leave(number, side);
    }

    pub(super) fn lose_link(&mut self, side: usize) {
        let now = self.now;
        let Some(live) = &mut self.processes[side].live else { return };
        let Some(number) = live.link.take() else { return };
        live.input.clear();
        live.output.clear();
        live.lost_at = now;
        live.channel.handle_link_lost(now);
        let is_closing = live.is_closing;
        self.abandon(number, side);
        self.tell(|| format!("{:?} loses link {number}", NAMES[side]));
        if is_closing {
            self.end_channel(side, "closed");
        }
    }

    /// A channel is over at one end, with its streams.
    pub(super) fn end_channel(&mut self, side: usize, why: &str) {
        let Some(live) = self.processes[side].live.take() else { return };
        self.tell(|| format!("channel {} ends at {:?}: {why}", live.number, NAMES[side]));
        if let Some(number) = live.link {
            self.leave(number, side);
        }
        self.report.channels += 1;
        self.book.begin(side, usize::MAX);
    }
}
