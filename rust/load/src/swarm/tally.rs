//! What has become of the clients so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::histogram::{Precision, Recorder};
use super::kinds::Kind;
use super::report::{AnswerTimes, KindReport, RequestReport, SwarmReport};
use super::timeline::{LastStep, Timeline};

/// Most distinct reasons that are kept apart; what comes after them is counted together.
const MAX_REASONS: usize = 32;
/// How late one in a hundred requests may leave before a run is invalid.
const MAX_LAG: Duration = Duration::from_millis(10);
const OTHER_REASONS: &str = "other reasons";

/// The shared account of a swarm: every client is in exactly one of its counts at any time.
#[derive(Debug)]
pub(super) struct Tally {
    start: Instant,
    start_unix_s: f64,
    clients: u64,
    /// Requests a second, if there are to be any.
    requests_per_s: Option<f64>,
    counts: Mutex<Counts>,
    /// Told when no client is on its way to its connection any more, and when none is left.
    changed: Notify,
}

#[derive(Debug)]
struct Counts {
    connecting: u64,
    holding: u64,
    answered: u64,
    wrong: u64,
    failed: u64,
    stopped: u64,
    messages: u64,
    empty_polls: u64,
    reasons: BTreeMap<String, u64>,
    kinds: BTreeMap<Kind, KindReport>,
    notification_latency: Recorder,
    requests: Requests,
    timeline: Timeline,
    last_step: LastStep,
    /// Times of the clients' first notifications, since the start.
    answer_times: Vec<Duration>,
    last_connected: Option<Duration>,
    ended: Option<Duration>,
}

/// What became of the requests beside the streams.
#[derive(Debug)]
struct Requests {
    due: u64,
    sent: u64,
    answered: u64,
    failed: u64,
    reasons: BTreeMap<String, u64>,
    latency: Recorder,
    generator_lag: Recorder,
}

impl Counts {
    fn new() -> Self {
        let recorder = || Recorder::new(Precision::Fine);
        Self {
            connecting: 0,
            holding: 0,
            answered: 0,
            wrong: 0,
            failed: 0,
            stopped: 0,
            messages: 0,
            empty_polls: 0,
            reasons: BTreeMap::new(),
            kinds: BTreeMap::new(),
            notification_latency: recorder(),
            requests: Requests {
                due: 0,
                sent: 0,
                answered: 0,
                failed: 0,
                reasons: BTreeMap::new(),
                latency: recorder(),
                generator_lag: recorder(),
            },
            timeline: Timeline::new(),
            last_step: LastStep::default(),
            answer_times: Vec::new(),
            last_connected: None,
            ended: None,
        }
    }
}

/// How many clients are still on their way: none once the swarm has ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Progress {
    /// Not started yet.
    pub(super) waiting: u64,
    /// Opening their connection.
    pub(super) connecting: u64,
    /// Holding a stream.
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
    /// An account of `clients` clients, and of requests at this rate, that starts now.
    pub(super) fn new(clients: u64, requests_per_s: Option<f64>) -> Arc<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Arc::new(Self {
            start: Instant::now(),
            start_unix_s: since.as_secs_f64(),
            clients,
            requests_per_s,
            counts: Mutex::new(Counts::new()),
            changed: Notify::new(),
        })
    }

    /// A client of this kind begins to connect.
    pub(super) fn begin(self: &Arc<Self>, kind: Kind) -> ClientRecord {
        let mut counts = self.now();
        counts.connecting += 1;
        counts.kinds.entry(kind).or_default().clients += 1;
        let tally = Arc::clone(self);
        ClientRecord { tally, kind, phase: Phase::Connecting, has_message: false }
    }

    /// No client starts any more; those that never did count as stopped.
    pub(super) fn end(&self) {
        let mut counts = self.now();
        counts.stopped += self.waiting(&counts);
        counts.ended.get_or_insert_with(|| self.start.elapsed());
    }

    /// Waits until every client has its connection, or has ended.
    pub(super) async fn ramped(&self) {
        self.until(|progress| progress.waiting + progress.connecting == 0).await;
    }

    /// Waits until every client has ended.
    pub(super) async fn clients_ended(&self) {
        self.until(|progress| progress == Progress::default()).await;
    }

    async fn until(&self, reached: impl Fn(Progress) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if reached(self.progress(&self.counts.lock())) {
                return;
            }
            changed.await;
        }
    }

    /// This many requests have become due.
    pub(super) fn requests_due(&self, due: u64) {
        self.now().requests.due += due;
    }

    /// A request is sent; `lag` is how late, if its connection was free when it was due.
    pub(super) fn request_sent(&self, lag: Option<Duration>) {
        let mut counts = self.now();
        counts.requests.sent += 1;
        if let Some(lag) = lag {
            counts.requests.generator_lag.record(lag);
        }
    }

    /// A request was answered, so long after it was due.
    pub(super) fn request_answered(&self, latency: Duration) {
        let mut counts = self.now();
        counts.requests.answered += 1;
        counts.requests.latency.record(latency);
        counts.timeline.request(latency);
    }

    /// A request was not answered as it should have been.
    pub(super) fn request_failed(&self, reason: String) {
        let mut counts = self.now();
        counts.requests.failed += 1;
        counts.timeline.failure();
        count_reason(&mut counts.requests.reasons, reason);
    }

    /// Everything that is known by now.
    pub(super) fn report(&self) -> SwarmReport {
        let counts = self.now();
        let (timeline, timeline_step_s) = counts.timeline.points(counts.holding);
        let mut report = self.summary_of(&counts);
        report.notification_latency = counts.notification_latency.counts();
        report.requests = self.requests_per_s.map(|rate_per_s| {
            let requests = &counts.requests;
            RequestReport {
                rate_per_s,
                due: requests.due,
                sent: requests.sent,
                answered: requests.answered,
                failed: requests.failed,
                reasons: requests.reasons.clone(),
                latency: requests.latency.counts(),
                generator_lag: requests.generator_lag.counts(),
            }
        });
        report.timeline = timeline;
        report.timeline_step_s = timeline_step_s;
        report.invalid = invalid(&counts.requests);
        let mut times = counts.answer_times.clone();
        drop(counts);
        // Sorted without the lock, so that a status delays no client.
        times.sort_unstable();
        report.answer_times = AnswerTimes::of_sorted(&times);
        report
    }

    /// What a status says: counts without distributions, the clients still on their way, and the
    /// last whole second.
    pub(super) fn snapshot(&self) -> (Value, Progress) {
        let counts = self.now();
        let report = self.summary_of(&counts);
        let requests = self.requests_per_s.map(|rate_per_s| {
            let Requests { due, sent, answered, failed, reasons, .. } = &counts.requests;
            json!({
                "rate_per_s": rate_per_s,
                "due": due,
                "sent": sent,
                "answered": answered,
                "failed": failed,
                "reasons": reasons,
            })
        });
        let status = json!({
            "clients": report.clients,
            "answered": report.answered,
            "wrong": report.wrong,
            "failed": report.failed,
            "stopped": report.stopped,
            "messages": report.messages,
            "empty_polls": report.empty_polls,
            "reasons": report.reasons,
            "kinds": report.kinds,
            "connect_s": report.connect_s,
            "elapsed_s": report.elapsed_s,
            "requests": requests,
            "last_second": counts.last_step,
        });
        (status, self.progress(&counts))
    }

    fn summary_of(&self, counts: &Counts) -> SwarmReport {
        SwarmReport {
            clients: self.clients,
            answered: counts.answered,
            wrong: counts.wrong,
            failed: counts.failed,
            stopped: counts.stopped,
            messages: counts.messages,
            empty_polls: counts.empty_polls,
            reasons: counts.reasons.clone(),
            kinds: counts.kinds.clone(),
            connect_s: counts.last_connected.map(|at| at.as_secs_f64()),
            elapsed_s: counts.ended.unwrap_or_else(|| self.start.elapsed()).as_secs_f64(),
            start_unix_s: self.start_unix_s,
            ..SwarmReport::default()
        }
    }

    /// The counts, with the time line up to now.
    fn now(&self) -> MutexGuard<'_, Counts> {
        let mut counts = self.counts.lock();
        if counts.ended.is_none() {
            let (elapsed, held) = (self.start.elapsed(), counts.holding);
            if let Some(last) = counts.timeline.advance(elapsed, held) {
                counts.last_step = last;
            }
        }
        counts
    }

    /// Tells those who wait that a client has got on, if that can be what they wait for.
    fn tell(&self, counts: &Counts) {
        let progress = self.progress(counts);
        if progress.waiting + progress.connecting == 0 {
            self.changed.notify_waiters();
        }
    }

    fn progress(&self, counts: &Counts) -> Progress {
        Progress {
            waiting: self.waiting(counts),
            connecting: counts.connecting,
            holding: counts.holding,
        }
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

/// Why the figures must not be used.
fn invalid(requests: &Requests) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(lag) = requests.generator_lag.quantile(0.99).filter(|lag| *lag >= MAX_LAG) {
        let lag_ms = lag.as_secs_f64() * 1e3;
        reasons.push(format!(
            "the generator lagged: 1 % of the requests left {lag_ms:.0} ms or more after their time"
        ));
    }
    reasons
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
    kind: Kind,
    phase: Phase,
    has_message: bool,
}

impl ClientRecord {
    /// The client holds its stream.
    pub(super) fn connected(&mut self) {
        let elapsed = self.tally.start.elapsed();
        let mut counts = self.tally.now();
        self.leave(&mut counts);
        counts.holding += 1;
        counts.kinds.entry(self.kind).or_default().held += 1;
        counts.last_connected = Some(elapsed);
        self.phase = Phase::Holding;
        self.tally.tell(&counts);
    }

    /// A right notification arrived, so long after it was sent, if that is known.
    pub(super) fn message(&mut self, latency: Option<Duration>) {
        let elapsed = self.tally.start.elapsed();
        let mut counts = self.tally.now();
        counts.messages += 1;
        counts.kinds.entry(self.kind).or_default().messages += 1;
        counts.timeline.message(latency);
        if let Some(latency) = latency {
            counts.notification_latency.record(latency);
        }
        if !self.has_message {
            counts.answer_times.push(elapsed);
        }
        self.has_message = true;
    }

    /// A poll ended without a notification.
    pub(super) fn empty_poll(&self) {
        self.tally.now().empty_polls += 1;
    }

    /// The client has had all the answers it was to get.
    pub(super) fn done(mut self) {
        self.finish(|counts| counts.answered += 1);
    }

    /// The client got an answer that it should not have got.
    pub(super) fn wrong(mut self, reason: String) {
        self.finish(|counts| {
            counts.wrong += 1;
            counts.timeline.failure();
            count_reason(&mut counts.reasons, reason);
        });
    }

    /// The client got no answer.
    pub(super) fn failed(mut self, reason: String) {
        self.finish(|counts| {
            counts.failed += 1;
            counts.timeline.failure();
            count_reason(&mut counts.reasons, reason);
        });
    }

    fn finish(&mut self, outcome: impl FnOnce(&mut Counts)) {
        let elapsed = self.tally.start.elapsed();
        let mut counts = self.tally.now();
        self.leave(&mut counts);
        outcome(&mut counts);
        self.phase = Phase::Over;
        let is_last = counts.connecting + counts.holding + self.tally.waiting(&counts) == 0;
        if is_last && self.tally.requests_per_s.is_none() {
            counts.ended = Some(elapsed);
        }
        self.tally.tell(&counts);
    }

    fn leave(&self, counts: &mut Counts) {
        match self.phase {
            Phase::Connecting => counts.connecting -= 1,
            Phase::Holding => {
                counts.holding -= 1;
                counts.kinds.entry(self.kind).or_default().held -= 1;
            }
            Phase::Over => {}
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
        let tally = Tally::new(6, None);
        let mut answered = tally.begin(Kind::Sse);
        let mut wrong = tally.begin(Kind::Sse);
        let failed = tally.begin(Kind::Sse);
        let dropped = tally.begin(Kind::Sse);
        let connecting = tally.begin(Kind::Sse);
        answered.connected();
        wrong.connected();
        answered.message(None);
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
    fn only_the_first_message_of_a_client_is_timed_from_the_start() {
        let tally = Tally::new(1, None);
        let mut client = tally.begin(Kind::Sse);
        client.connected();
        for _ in 0..3 {
            client.message(Some(Duration::from_millis(1)));
        }
        let report = tally.report();
        assert_eq!((report.messages, report.notification_latency.total()), (3, 3));
        assert_eq!(report.kinds[&Kind::Sse], KindReport { clients: 1, held: 1, messages: 3 });
        assert_eq!(tally.counts.lock().answer_times.len(), 1);
    }

    #[tokio::test]
    async fn those_who_wait_for_the_clients_are_told() {
        let tally = Tally::new(2, Some(1.0));
        let (mut one, two) = (tally.begin(Kind::Sse), tally.begin(Kind::LongPoll));
        let clients = async {
            one.connected();
            two.failed("refused".to_owned());
            tokio::task::yield_now().await;
            one.done();
        };
        tokio::join!(tally.ramped(), tally.clients_ended(), clients);
        assert!(tally.counts.lock().ended.is_none(), "the requests go on");
    }

    #[test]
    fn requests_that_leave_late_make_a_run_invalid() {
        let tally = Tally::new(0, Some(10.0));
        for lag_ms in [1; 98] {
            tally.request_sent(Some(Duration::from_millis(lag_ms)));
        }
        assert_eq!(tally.report().invalid, Vec::<String>::new());
        tally.request_sent(None);
        tally.request_sent(Some(Duration::from_millis(500)));
        tally.request_sent(Some(Duration::from_millis(500)));
        let invalid = tally.report().invalid;
        assert!(matches!(&invalid[..], [why] if why.contains("500 ms")), "{invalid:?}");
    }

    #[test]
    fn distinct_reasons_are_bounded() {
        let tally = Tally::new(100, None);
        for client in 0..100 {
            tally.begin(Kind::Sse).failed(format!("reason {client}"));
        }
        let reasons = tally.report().reasons;
        assert_eq!(reasons.len(), MAX_REASONS + 1);
        assert_eq!(reasons.values().sum::<u64>(), 100);
    }
}
