//! What goes wrong, and how it ends.

use std::time::Duration;

use cmgmux_mux::CloseCode;

use super::ends::NAMES;
use super::link::Role;
use super::openings::resume;
use super::{Event, INSTANCE, POINT, SIDES, World};
use crate::plan::Kind;

/// Longest delay of links that are well.
const MAX_DELAY_US: u32 = 20_000;

impl World<'_> {
    pub(super) fn make_fault(&mut self, number: usize) {
        let fault = self.plan.faults[number].kind.clone();
        self.tell(|| format!("{fault:?}"));
        match fault {
            Kind::Cut { next: true, bytes } => self.cuts.push_back(bytes),
            Kind::Cut { next: false, bytes } => self.cut_present(bytes),
            Kind::Freeze { to, ms } => {
                let until = self.in_us(u64::from(ms) * 1_000);
                if let Some(link) = self.present_link() {
                    for side in SIDES.into_iter().filter(|side| to[*side]) {
                        let way = &mut self.links[link].ways[side];
                        way.frozen_until = way.frozen_until.max(until);
                    }
                }
            }
            Kind::Pause { side, ms } => {
                let until = self.in_us(u64::from(ms) * 1_000);
                let process = &mut self.processes[side];
                process.paused_until = process.paused_until.max(until);
                let until = process.paused_until;
                self.schedule(until, Event::Timer(side));
            }
            Kind::Move => {
                if self.processes[POINT].live.is_some() && self.no_link_until <= self.now {
                    self.dial();
                }
            }
            Kind::Repeat { back } => self.repeat_claim(back),
            Kind::Restart { side } => self.restart(side),
            Kind::Outage { ms } => {
                self.no_link_until = self.no_link_until.max(self.in_us(u64::from(ms) * 1_000));
                self.cut_present([0, 0]);
                if let Some(link) = self.dialled {
                    self.give_up(link);
                }
            }
            Kind::Drain { side, grace_ms } => {
                let grace = Duration::from_millis(u64::from(grace_ms));
                let until = self.now.after(grace);
                if let Some(live) = &mut self.processes[side].live
                    && live.drain_until.is_none()
                {
                    live.channel.go_away(CloseCode::SHUTDOWN, grace);
                    live.drain_until = Some(until);
                }
                self.drive(side);
            }
        }
    }

    /// The link that either channel is on.
    fn present_link(&self) -> Option<usize> {
        self.attached_link(INSTANCE).or(self.attached_link(POINT))
    }

    fn cut_present(&mut self, bytes: [u32; 2]) {
        let Some(link) = self.present_link() else { return };
        for side in SIDES {
            if let Some(at) = self.links[link].cut(self.now, side, bytes[side] as usize) {
                self.schedule_arrivals(link, side, &[at]);
            }
        }
    }

    fn repeat_claim(&mut self, back: usize) {
        let Some(index) = self.claims.len().checked_sub(1 + back) else { return };
        let (channel, claim) = self.claims[index];
        let link = self.new_link();
        self.write_head(link, POINT, resume(channel, claim));
        self.leave(link, POINT);
    }

    fn restart(&mut self, side: usize) {
        for link in 0..self.links.len() {
            if self.links[link].roles[side] != Role::Left {
                self.abandon(link, side);
            }
        }
        self.end_channel(side, "its process dies");
        self.processes[side].boot += 1;
        self.processes[side].paused_until = self.now;
        self.tell(|| format!("{:?} restarts", NAMES[side]));
    }

    /// The faults are over, and links are quick and wide.
    pub(super) fn heal(&mut self) {
        self.tell(|| "the faults are over".to_owned());
        self.is_healed = true;
        self.net.delay_us = self.net.delay_us.min(MAX_DELAY_US);
        self.net.late_per_mille = 0;
        self.no_link_until = self.now;
        self.cuts.clear();
        for number in 0..self.links.len() {
            self.links[number].widen();
            for side in SIDES {
                for _ in 0..self.links[number].heal(self.now, side) {
                    self.schedule(self.now, Event::Arrive(number, side));
                }
            }
        }
        for side in SIDES {
            self.processes[side].paused_until = self.now;
            self.schedule(self.now, Event::Timer(side));
        }
        self.progress.iter_mut().for_each(|(_, since)| *since = self.now);
        for side in SIDES {
            for stream in 0..self.plan.streams.len() {
                self.book.touch(side, stream);
            }
        }
        self.schedule(self.now, Event::Dial);
    }
}
