//! What must hold at every moment, and whether everything goes on and comes to an end.

use std::time::Duration;

use super::book::{Party, Rx};
use super::ends::NAMES;
use super::{Event, POINT, SIDES, World};

/// Between two looks at everything.
const WATCH_US: u64 = 250_000;
/// Longest time that a stream may stand still once the faults are over.
const PROGRESS_US: u64 = 10_000_000;
/// Delay of links on which no probe can take too long.
const QUICK_US: u32 = 50_000;
/// Longest time in which everything has to end.
const DRAIN_US: u64 = 600_000_000;
/// Ring bytes beyond its limit: frames without data, and the batch that reached it.
const RING_RESERVE: u64 = 256 * 1024 + 32 * 1024;

impl World<'_> {
    /// What holds whenever an end has done what was due.
    pub(super) fn check(&mut self, side: usize) {
        let Some(live) = &self.processes[side].live else { return };
        let (name, book, sizes) = (NAMES[side], &self.book.sides[side], &self.plan.sizes[side]);
        let counters = live.channel.counters();
        let held = self.audits[live.number].ring_bytes(name);
        assert_eq!(counters.ring_bytes, held, "ring of {name:?}");
        assert!(held <= sizes.ring_bytes + RING_RESERVE, "ring of {name:?} holds {held} bytes");
        assert_eq!(counters.unread_bytes, book.unread, "charge unread at {name:?}");
        assert!(book.unread <= book.budget, "{name:?} holds {} bytes unread", book.unread);
        assert_eq!(live.channel.is_attached(), live.link.is_some(), "link of {name:?}");
        let may_write = live.link.is_some_and(|link| self.links[link].room(1 - side) > 0);
        if may_write && !live.is_closing {
            assert!(self.audits[live.number].has_said_all(name), "{name:?} keeps a reset or stop");
        }
        let allowed = self.audits[live.number].max_opens(name);
        let most = book.completed + u64::from(sizes.max_streams);
        // Streams that are refused while it drains have no application.
        assert!(
            allowed <= most || book.is_draining,
            "{name:?} allows {allowed} streams, and {most} may be"
        );
    }

    pub(super) fn watch(&mut self) {
        self.schedule(self.in_us(WATCH_US), Event::Watch);
        for side in SIDES {
            if self.processes[side].paused_until.as_micros() + WATCH_US < self.now.as_micros() {
                self.check_promptness(side);
            }
        }
        if self.is_healed {
            self.check_progress();
            self.is_complete = self.is_over();
        }
    }

    /// Nothing is overdue for long.
    fn check_promptness(&mut self, side: usize) {
        let now = self.now;
        let process = &mut self.processes[side];
        let Some(live) = &mut process.live else { return };
        let name = NAMES[side];
        let Some(link) = live.link else {
            let window_us = u64::from(self.plan.sizes[side].resume_window_ms) * 1_000;
            let waited = now.as_micros() - live.lost_at.as_micros();
            assert!(waited <= window_us + WATCH_US, "{name:?} waits for a link for ever");
            return;
        };
        let rtt = live.channel.counters().rtt.unwrap_or_default();
        let silence = now.since(live.heard_at.max(process.paused_until));
        let most = Duration::from_secs(20) + 8 * rtt;
        assert!(silence <= most, "{name:?} keeps a link that is silent for {silence:?}");
        let (acked, is_waiting) = self.audits[live.number].in_flight(name);
        if acked != live.acked.0 || !is_waiting {
            live.acked = (acked, now);
        }
        let waited = now.since(live.acked.1.max(process.paused_until));
        let most = Duration::from_secs(6) + 8 * rtt;
        assert!(waited <= most, "{name:?} keeps a link that acknowledges nothing for {waited:?}");
        let (told, applied) = self.audits[live.number].acknowledged(name);
        let is_blocked = self.links[link].room(1 - side) == 0;
        assert!(
            is_blocked || told >= live.applied,
            "{name:?} does not acknowledge {}",
            live.applied
        );
        live.applied = if is_blocked { 0 } else { applied };
        if !is_blocked && !live.is_closing && live.output.is_empty() {
            self.check_credit(side);
        }
    }

    /// Who has used everything that came has granted more, if little was left.
    fn check_credit(&mut self, side: usize) {
        let Some(live) = &self.processes[side].live else { return };
        for (stream, parties) in self.book.parties.iter().enumerate() {
            let party = &parties[side];
            let Some(id) = party.id.filter(|_| !party.retired && !party.released) else { continue };
            if party.rx == Rx::Open && party.unread.is_empty() {
                let has_granted = self.audits[live.number].has_granted(NAMES[side], id);
                assert!(has_granted, "stream {stream} gets no credit from {:?}", NAMES[side]);
            }
        }
    }

    /// A link counts as silent: something must have happened to it.
    pub(super) fn check_silence(&self, side: usize) {
        let healed_us = u64::from(self.plan.heal_ms) * 1_000;
        let is_well = self.now.as_micros() > healed_us + PROGRESS_US;
        let net = &self.plan.net;
        let is_quick = net.delay_us <= QUICK_US && net.late_per_mille == 0;
        let is_at_fault = is_well || is_quick && self.plan.faults.is_empty();
        assert!(!is_at_fault, "{:?} gives up a link that is well", NAMES[side]);
    }

    fn check_progress(&mut self) {
        for stream in self.book.open_streams().collect::<Vec<_>>() {
            let done = self.book.parties[stream].iter().map(Party::progress).sum::<u64>();
            let (before, since) = &mut self.progress[stream];
            if *before != done {
                (*before, *since) = (done, self.now);
            }
            let still = self.now.since(*since).as_micros();
            assert!(
                still <= u128::from(PROGRESS_US),
                "stream {stream} stands still: {:?}",
                self.book.parties[stream]
            );
        }
        let healed_us = u64::from(self.plan.heal_ms) * 1_000;
        if self.now.as_micros() > healed_us + DRAIN_US {
            let waiting = SIDES.map(|side| self.processes[side].waiting.len());
            let counters = SIDES
                .map(|side| self.processes[side].live.as_ref().map(|live| live.channel.counters()));
            panic!("it does not end: {waiting:?} streams wait to be opened, {counters:?}");
        }
    }

    /// Whether all streams have ended, and nothing is left of them.
    fn is_over(&self) -> bool {
        let all_opened = self
            .plan
            .streams
            .iter()
            .zip(&self.book.parties)
            .all(|(stream, parties)| parties[stream.opener].id.is_some());
        all_opened
            && self.book.open_streams().next().is_none()
            && SIDES.iter().all(|side| self.is_empty(*side))
    }

    fn is_empty(&self, side: usize) -> bool {
        let Some(live) = &self.processes[side].live else { return false };
        let number = self.processes[POINT].live.as_ref().map(|live| live.number);
        let counters = live.channel.counters();
        let left = (counters.live, counters.unfinished, counters.ring_bytes);
        live.link.is_some()
            && Some(live.number) == number
            && left == (0, 0, 0)
            && (counters.queued_bytes, counters.unread_bytes) == (0, 0)
            && self.audits[live.number].is_settled()
    }
}
