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
    /// Smoothed round-trip time (RFC 6298's weights).
    rtt: Option<Duration>,
    heard: Timestamp,
    /// Since when bytes have been waiting without progress; `None` while nothing is in flight.
    waiting_since: Option<Timestamp>,
    probe: Option<Probe>,
    probes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    id: u64,
    due: Timestamp,
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
}

impl Liveness {
    pub(crate) fn new(config: &Config, now: Timestamp) -> Self {
        Self {
            idle_probe: config.idle_probe,
            busy_probe: config.busy_probe,
            probe_timeout: config.probe_timeout,
            rtt: None,
            heard: now,
            waiting_since: None,
            probe: None,
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

    /// Bytes arrived.
    pub(crate) fn handle_heard(&mut self, now: Timestamp) {
        self.heard = now;
    }

    /// The peer acknowledged more; `in_flight` says whether bytes are still unacknowledged.
    pub(crate) fn handle_progress(&mut self, now: Timestamp, in_flight: bool) {
        self.waiting_since = in_flight.then_some(now);
        self.probe = None;
    }

    /// A PONG arrived.
    pub(crate) fn handle_pong(&mut self, id: u64) {
        if self.waiting_since.is_none() && self.probe.is_some_and(|probe| probe.id == id) {
            self.probe = None;
        }
    }

    /// One measured round trip.
    pub(crate) fn handle_rtt(&mut self, sample: Duration) {
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
    }

    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Verdict {
        if now < self.deadline() {
            return Verdict::Fine;
        }
        if self.probe.is_some() {
            return Verdict::Dead;
        }
        self.probes += 1;
        let timeout = self.probe_timeout.max(self.rtt.unwrap_or_default() * 4);
        self.probe = Some(Probe { id: self.probes, due: now.after(timeout) });
        Verdict::Probe(self.probes)
    }

    pub(crate) fn deadline(&self) -> Timestamp {
        match (self.probe, self.waiting_since) {
            (Some(probe), _) => probe.due,
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
    fn an_answered_probe_keeps_an_idle_link() {
        let mut liveness = liveness();
        assert_eq!(liveness.handle_timeout(at(15)), Verdict::Probe(1));
        liveness.handle_heard(at(16));
        liveness.handle_pong(1);
        assert_eq!(liveness.handle_timeout(at(20)), Verdict::Fine);
        assert_eq!(liveness.deadline(), at(31));
    }

    #[test]
    fn while_bytes_wait_only_progress_counts_as_life() {
        let mut liveness = liveness();
        liveness.handle_sent(at(1));
        assert_eq!(liveness.handle_timeout(at(2)), Verdict::Probe(1));
        liveness.handle_heard(at(3));
        liveness.handle_pong(1);
        assert_eq!(liveness.handle_timeout(at(7)), Verdict::Dead);
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
