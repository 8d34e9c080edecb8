//! What has become of the clients so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::report::{AnswerTimes, SwarmReport};

/// Most distinct reasons that are kept apart; what comes after them is counted together.
const MAX_REASONS: usize = 32;
const OTHER_REASONS: &str = "other reasons";

/// The shared account of a swarm: every client is in exactly one of its counts at any time.
#[derive(Debug)]
pub(super) struct Tally {
    start: Instant,
    clients: u64,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connecting: u64,
    holding: u64,
    answered: u64,
    wrong: u64,
    failed: u64,
    stopped: u64,
    answers: u64,
    empty_polls: u64,
    reasons: BTreeMap<String, u64>,
    /// Times of the clients' first right answers, since the start.
    answer_times: Vec<Duration>,
    last_connected: Option<Duration>,
    ended: Option<Duration>,
}

/// How many clients are still on their way: none once the swarm has ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Progress {
    /// Not started yet.
    pub(super) waiting: u64,
    /// Opening their connection.
    pub(super) connecting: u64,
    /// Holding a poll.
    pub(super) holding: u64,
}

impl Progress {
    /// What the swarm is doing, in one word.
    pub(super) fn phase(&self) -> &'static str {
        if self.waiting + self.connecting > 0 {
            "connecting"
        } else if self.holding > 0 {
            "holding"
        } else {
            "ended"
        }
    }
}

impl Tally {
    /// An account of `clients` clients that starts now.
    pub(super) fn new(clients: u64) -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), clients, counts: Mutex::default() })
    }

    /// A client begins to connect.
    pub(super) fn begin(self: &Arc<Self>) -> ClientRecord {
        self.counts.lock().connecting += 1;
        ClientRecord { tally: Arc::clone(self), phase: Phase::Connecting, answered: false }
    }

    /// No client starts any more; those that never did count as stopped.
    pub(super) fn end(&self) {
        let mut counts = self.counts.lock();
        counts.stopped += self.waiting(&counts);
        counts.ended.get_or_insert_with(|| self.start.elapsed());
    }

    /// Everything that is known by now.
    pub(super) fn report(&self) -> SwarmReport {
        self.snapshot().0
    }

    /// The report so far and the clients still on their way, both of the same moment.
    pub(super) fn snapshot(&self) -> (SwarmReport, Progress) {
        let (report, progress, mut times) = {
            let counts = self.counts.lock();
            let elapsed = counts.ended.unwrap_or_else(|| self.start.elapsed());
            let report = SwarmReport {
                clients: self.clients,
                answered: counts.answered,
                wrong: counts.wrong,
                failed: counts.failed,
                stopped: counts.stopped,
                answers: counts.answers,
                empty_polls: counts.empty_polls,
                reasons: counts.reasons.clone(),
                connect_s: counts.last_connected.map(|at| at.as_secs_f64()),
                elapsed_s: elapsed.as_secs_f64(),
                answer_times: None,
            };
            let progress = Progress {
                waiting: self.waiting(&counts),
                connecting: counts.connecting,
                holding: counts.holding,
            };
            (report, progress, counts.answer_times.clone())
        };
        // Sorted without the lock, so that a status delays no client.
        times.sort_unstable();
        (SwarmReport { answer_times: AnswerTimes::of_sorted(&times), ..report }, progress)
    }

    fn waiting(&self, counts: &Counts) -> u64 {
        let begun = counts.connecting
            + counts.holding
            + counts.answered
            + counts.wrong
            + counts.failed
            + counts.stopped;
        self.clients.saturating_sub(begun)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Connecting,
    Holding,
    Over,
}

/// One client's entry in the account. Dropped before its end, it counts as stopped.
#[derive(Debug)]
pub(super) struct ClientRecord {
    tally: Arc<Tally>,
    phase: Phase,
    /// It has had a right answer before.
    answered: bool,
}

impl ClientRecord {
    /// The connection stands and the first poll is on its way.
    pub(super) fn connected(&mut self) {
        let elapsed = self.tally.start.elapsed();
        let mut counts = self.tally.counts.lock();
        leave(&mut counts, self.phase);
        counts.holding += 1;
        counts.last_connected = Some(elapsed);
        self.phase = Phase::Holding;
    }

    /// A right answer arrived.
    pub(super) fn answer(&mut self) {
        let elapsed = self.tally.start.elapsed();
        let mut counts = self.tally.counts.lock();
        counts.answers += 1;
        if !self.answered {
            counts.answer_times.push(elapsed);
        }
        self.answered = true;
    }

    /// A poll ended without a notification.
    pub(super) fn empty_poll(&self) {
        self.tally.counts.lock().empty_polls += 1;
    }

    /// The client has had all the answers it was to get.
    pub(super) fn done(mut self) {
        self.finish(|counts| counts.answered += 1);
    }

    /// The client got an answer that it should not have got.
    pub(super) fn wrong(mut self, reason: String) {
        self.finish(|counts| {
            counts.wrong += 1;
            count_reason(&mut counts.reasons, reason);
        });
    }

    /// The client got no answer.
    pub(super) fn failed(mut self, reason: String) {
        self.finish(|counts| {
            counts.failed += 1;
            count_reason(&mut counts.reasons, reason);
        });
    }

    fn finish(&mut self, outcome: impl FnOnce(&mut Counts)) {
        let elapsed = self.tally.start.elapsed();
        let mut counts = self.tally.counts.lock();
        leave(&mut counts, self.phase);
        outcome(&mut counts);
        self.phase = Phase::Over;
        if counts.connecting + counts.holding + self.tally.waiting(&counts) == 0 {
            counts.ended = Some(elapsed);
        }
    }
}

impl Drop for ClientRecord {
    fn drop(&mut self) {
        if self.phase != Phase::Over {
            self.finish(|counts| counts.stopped += 1);
        }
    }
}

fn leave(counts: &mut Counts, phase: Phase) {
    match phase {
        Phase::Connecting => counts.connecting -= 1,
        Phase::Holding => counts.holding -= 1,
        Phase::Over => {}
    }
}

fn count_reason(reasons: &mut BTreeMap<String, u64>, reason: String) {
    let full = reasons.len() >= MAX_REASONS && !reasons.contains_key(&reason);
    let reason = if full { OTHER_REASONS.to_owned() } else { reason };
    *reasons.entry(reason).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_is_counted_once() {
        let tally = Tally::new(6);
        let mut answered = tally.begin();
        let mut wrong = tally.begin();
        let failed = tally.begin();
        let dropped = tally.begin();
        let connecting = tally.begin();
        answered.connected();
        wrong.connected();
        answered.answer();
        answered.done();
        wrong.wrong("not mine".to_owned());
        failed.failed("refused".to_owned());
        drop(dropped);
        let progress = tally.snapshot().1;
        assert_eq!(progress, Progress { waiting: 1, connecting: 1, holding: 0 });
        drop(connecting);
        tally.end();
        assert_eq!(tally.snapshot().1, Progress::default());
        let report = tally.report();
        assert_eq!((report.answered, report.wrong, report.failed, report.stopped), (1, 1, 1, 3));
        assert_eq!(report.reasons.len(), 2);
        assert!(report.connect_s.is_some() && report.answer_times.is_some());
    }

    #[test]
    fn only_the_first_answer_of_a_client_is_timed() {
        let tally = Tally::new(1);
        let mut client = tally.begin();
        client.connected();
        for _ in 0..3 {
            client.answer();
        }
        assert_eq!(tally.report().answers, 3);
        assert_eq!(tally.counts.lock().answer_times.len(), 1);
    }

    #[test]
    fn distinct_reasons_are_bounded() {
        let tally = Tally::new(100);
        for client in 0..100 {
            tally.begin().failed(format!("reason {client}"));
        }
        let reasons = tally.report().reasons;
        assert_eq!(reasons.len(), MAX_REASONS + 1);
        assert_eq!(reasons.values().sum::<u64>(), 100);
    }
}
