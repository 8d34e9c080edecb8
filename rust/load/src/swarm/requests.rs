//! Requests at a steady rate beside the streams.
//!
//! The schedule is open: request k is due at start + k / rate, whatever became of those before, and its
//! latency runs from then. So a server that stalls is charged with every request that had to wait,
//! not with one for each connection (coordinated omission).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cmgmux_net::shard::{Shard, StopSignal};
use http::StatusCode;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::client::Blueprint;
use super::connection::{Connection, Failure, refused};
use super::tally::Tally;

/// How long the pacer sleeps at most, so that it notices a stop.
const MAX_NAP: Duration = Duration::from_millis(100);
/// How often the pacer looks whether everything that was due has been sent.
const DRAIN_NAP: Duration = Duration::from_millis(10);
/// Pause after a connection that failed; its requests wait for other connections.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// One shard's share of the requests.
pub(super) struct Requests {
    pub(super) blueprint: Arc<Blueprint>,
    pub(super) tally: Arc<Tally>,
    /// Between two requests of this shard.
    pub(super) interval: Duration,
    /// Of this shard's first request, after the start.
    pub(super) offset: Duration,
    pub(super) connections: usize,
    /// How long they go on; until the stop if there is none.
    pub(super) duration: Option<Duration>,
    /// Held for as long as requests may be sent.
    pub(super) alive: mpsc::Sender<()>,
}

/// When the requests of a shard are due, and which is next.
struct Schedule {
    first: Instant,
    interval: Duration,
    next: Cell<u64>,
    /// One permit for each request that is due and not taken.
    due: Arc<Semaphore>,
}

impl Requests {
    /// Starts the connections once the clients are connected. Ends with the stop.
    pub(super) async fn run(self, shard: Shard) -> Result<(), String> {
        let stop = shard.stop().clone();
        tokio::select! {
            () = stop.requested() => return Ok(()),
            () = self.tally.ramped() => {}
        }
        let first = Instant::now() + self.offset;
        let due = Arc::new(Semaphore::new(0));
        let pacer = Pacer {
            first,
            interval: self.interval,
            end: self.duration.map(|duration| first + duration),
            due: Arc::clone(&due),
            tally: Arc::clone(&self.tally),
            stop,
        };
        // A thread, because timers of the runtime come up to a millisecond late.
        let pacing = thread::Builder::new().name("pacer".to_owned()).spawn(|| pacer.run());
        pacing.map_err(|error| format!("cannot start the pacer: {error}"))?;
        let schedule =
            Rc::new(Schedule { first, interval: self.interval, next: Cell::new(0), due });
        for _ in 0..self.connections {
            let worker = Worker {
                blueprint: Arc::clone(&self.blueprint),
                tally: Arc::clone(&self.tally),
                schedule: Rc::clone(&schedule),
                stop: shard.stop().clone(),
            };
            let alive = self.alive.clone();
            shard.spawn(async move {
                worker.run().await;
                drop(alive);
            });
        }
        Ok(())
    }
}

/// Lets requests go at their time.
struct Pacer {
    first: Instant,
    interval: Duration,
    end: Option<Instant>,
    due: Arc<Semaphore>,
    tally: Arc<Tally>,
    stop: StopSignal,
}

impl Pacer {
    fn run(self) {
        let mut next = self.first;
        let is_before_the_end = |next| self.end.is_none_or(|end| next < end);
        loop {
            let now = Instant::now();
            let mut due = 0;
            while next <= now && is_before_the_end(next) {
                next += self.interval;
                due += 1;
            }
            self.tally.requests_due(due);
            self.due.add_permits(usize::try_from(due).unwrap_or(usize::MAX));
            // Only now: what was due before the stop counts, however late this thread is.
            if self.stop.is_requested() || !is_before_the_end(next) {
                break;
            }
            thread::sleep((next - now).min(MAX_NAP));
        }
        // What is due already is still sent.
        while !self.stop.is_requested() && self.due.available_permits() > 0 {
            thread::sleep(DRAIN_NAP);
        }
        self.due.close();
    }
}

/// One connection that takes requests as they become due.
struct Worker {
    blueprint: Arc<Blueprint>,
    tally: Arc<Tally>,
    schedule: Rc<Schedule>,
    stop: StopSignal,
}

impl Worker {
    async fn run(self) {
        let mut connection = None;
        while let Some((due, lag)) = self.next_due().await {
            self.tally.request_sent(lag);
            match self.ask(&mut connection).await {
                Ok(()) => self.tally.request_answered(due.elapsed()),
                Err(failure) => {
                    connection = None;
                    self.tally.request_failed(failure.to_string());
                    tokio::select! {
                        () = self.stop.requested() => {}
                        () = tokio::time::sleep(RETRY_PAUSE) => {}
                    }
                }
            }
        }
    }

    /// When the next request was due, and how late it is if this connection was free for it.
    async fn next_due(&self) -> Option<(Instant, Option<Duration>)> {
        if self.stop.is_requested() {
            return None;
        }
        let was_free = match self.schedule.due.try_acquire() {
            Ok(permit) => {
                permit.forget();
                false
            }
            Err(_) => {
                self.schedule.due.acquire().await.ok()?.forget();
                true
            }
        };
        let number = self.schedule.next.get();
        self.schedule.next.set(number + 1);
        let due = self.schedule.first + times(self.schedule.interval, number);
        Some((due, was_free.then(|| due.elapsed())))
    }

    /// Sends a request and waits for the end of its answer.
    async fn ask(&self, kept: &mut Option<Connection>) -> Result<(), Failure> {
        let Blueprint { request_path, host, response_timeout, .. } = &*self.blueprint;
        let asking = async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => self.blueprint.connect().await?,
            };
            let request = format!(
                "GET {request_path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: cmgmux-load\r\n\r\n"
            );
            connection.send(&request).await?;
            let (response, mut body) = connection.head().await?;
            if response.head.status != StatusCode::OK {
                return Err(refused(response.head.status, &response.head.fields));
            }
            while connection.data(&mut body).await?.is_some() {}
            *kept = response.keep_alive.then_some(connection);
            Ok(())
        };
        timeout(*response_timeout, asking)
            .await
            .unwrap_or(Err(Failure::ResponseTimeout(*response_timeout)))
    }
}

fn times(interval: Duration, number: u64) -> Duration {
    let nanoseconds = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(nanoseconds.saturating_mul(number))
}
