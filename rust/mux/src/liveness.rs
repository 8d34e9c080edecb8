//! Whether the link still lives: probes, and the time that they may take.

use std::time::Duration;

use crate::config::Config;
use crate::time::Timestamp;

/// Watches one link. While bytes are unacknowledged only acknowledged progress counts as life; on
/// an idle link anything received does.
#[derive(Debug)]
pub(crate) struct Liveness {
    idle_probe: Duration,
    busy_probe: Duration,
    probe_timeout: Duration,
    frame_timeout: Duration,
    /// Smoothed round-trip time (RFC 6298's weights).
    rtt: Option<Duration>,
    heard: Timestamp,
    /// Since when a frame has been arriving that is not whole.
    partial_since: Option<Timestamp>,
    /// Since when bytes have been waiting without progress; `None` while nothing is in flight.
    waiting_since: Option<Timestamp>,
    /// When the link is dead, after a probe.
    probe_due: Option<Timestamp>,
    probes: u64,
}

/// What time demands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// Send a PING with this id.
    Probe(u64),
    /// The link is dead.
    Dead,
    /// A frame has been arriving for too long, which is as good as dead.
    Dribbling,
}

impl Liveness {
    pub(crate) fn new(config: &Config, now: Timestamp) -> Self {
        Self {
            idle_probe: config.idle_probe,
            busy_probe: config.busy_probe,
            probe_timeout: config.probe_timeout,
            frame_timeout: config.frame_timeout,
            rtt: None,
            heard: now,
            partial_since: None,
            waiting_since: None,
            probe_due: None,
            probes: 0,
        }
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Bytes were written that the peer has to acknowledge.
    pub(crate) fn handle_sent(&mut self, now: Timestamp) {
        self.waiting_since.get_or_insert(now);
    }

    /// Bytes arrived. They are life unless an acknowledgement is waited for.
    pub(crate) fn handle_heard(&mut self, now: Timestamp) {
        self.heard = now;
        if self.waiting_since.is_none() {
            self.probe_due = None;
        }
    }

    /// All whole frames that had arrived were taken: one or more of them, or `none`; what is left is a
    /// `partial` one.
    pub(crate) fn handle_frames(&mut self, now: Timestamp, none: bool, partial: bool) {
        let since = self.partial_since.filter(|_| none).unwrap_or(now);
        self.partial_since = partial.then_some(since);
    }

    /// The peer acknowledged more; `in_flight` says whether bytes are still unacknowledged.
    pub(crate) fn handle_progress(&mut self, now: Timestamp, in_flight: bool) {
        self.waiting_since = in_flight.then_some(now);
        self.probe_due = None;
    }

    /// One measured round trip.
    pub(crate) fn handle_rtt(&mut self, sample: Duration) {
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
    }

    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Verdict {
        if self.frame_deadline().is_some_and(|deadline| now >= deadline) {
            return Verdict::Dribbling;
        }
        if now < self.probe_deadline() {
            return Verdict::Fine;
        }
        if self.probe_due.is_some() {
            return Verdict::Dead;
        }
        self.probes += 1;
        let timeout = self.probe_timeout.max(self.rtt.unwrap_or_default() * 4);
        self.probe_due = Some(now.after(timeout));
        Verdict::Probe(self.probes)
    }

    pub(crate) fn deadline(&self) -> Timestamp {
        let probe = self.probe_deadline();
        self.frame_deadline().map_or(probe, |frame| frame.min(probe))
    }

    fn frame_deadline(&self) -> Option<Timestamp> {
        self.partial_since.map(|since| since.after(self.frame_timeout))
    }

    fn probe_deadline(&self) -> Timestamp {
        match (self.probe_due, self.waiting_since) {
            (Some(due), _) => due,
            (None, Some(since)) => {
                since.after(self.busy_probe.max(self.rtt.unwrap_or_default() * 3))
            }
            (None, None) => self.heard.after(self.idle_probe),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn liveness() -> Liveness {
        Liveness::new(&Config::default(), Timestamp::ZERO)
    }

    #[test]
    fn traffic_postpones_the_probe() {
        let mut liveness = liveness();
        liveness.handle_heard(at(10));
        assert_eq!(liveness.handle_timeout(at(15)), Verdict::Fine);
        assert_eq!(liveness.deadline(), at(25));
    }

    #[test]
    fn an_unanswered_probe_ends_an_idle_link() {
        let mut liveness = liveness();
        assert_eq!(liveness.handle_timeout(at(15)), Verdict::Probe(1));
        assert_eq!(liveness.handle_timeout(at(16)), Verdict::Fine);
        assert_eq!(liveness.handle_timeout(at(20)), Verdict::Dead);
    }

    #[test]
    fn whatever_arrives_after_a_probe_keeps_an_idle_link() {
        let mut liveness = liveness();
        assert_eq!(liveness.handle_timeout(at(15)), Verdict::Probe(1));
        liveness.handle_heard(at(16));
        assert_eq!(liveness.handle_timeout(at(20)), Verdict::Fine);
        assert_eq!(liveness.deadline(), at(31));
    }

    #[test]
    fn while_bytes_wait_only_progress_counts_as_life() {
        let mut liveness = liveness();
        liveness.handle_sent(at(1));
        assert_eq!(liveness.handle_timeout(at(2)), Verdict::Probe(1));
        liveness.handle_heard(at(3));
        assert_eq!(liveness.handle_timeout(at(7)), Verdict::Dead);
    }

    #[test]
    fn a_frame_may_take_its_time_and_no_longer_however_much_arrives() {
        let mut liveness = liveness();
        for second in 0..30 {
            liveness.handle_heard(at(second));
            liveness.handle_frames(at(second), second > 0, true);
            assert_eq!(liveness.handle_timeout(at(second)), Verdict::Fine);
        }
        assert_eq!(liveness.deadline(), at(30));
        assert_eq!(liveness.handle_timeout(at(30)), Verdict::Dribbling);
        liveness.handle_frames(at(30), false, true);
        assert_eq!(liveness.handle_timeout(at(30)), Verdict::Fine, "the next frame has begun");
        liveness.handle_frames(at(31), true, false);
        assert_eq!(liveness.deadline(), at(44));
    }

    #[test]
    fn progress_takes_the_suspicion_back() {
        let mut liveness = liveness();
        liveness.handle_sent(at(1));
        assert_eq!(liveness.handle_timeout(at(2)), Verdict::Probe(1));
        liveness.handle_progress(at(3), false);
        assert_eq!(liveness.handle_timeout(at(7)), Verdict::Fine);
    }
}
