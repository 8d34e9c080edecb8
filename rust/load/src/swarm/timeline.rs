//! What happened when: a point for each second.

use std::time::Duration;

use serde::Serialize;

use super::histogram::{Counts, Precision, Recorder};

/// Points that are kept; beyond them each stands for twice the time.
const MAX_POINTS: usize = 3_600;

/// What one step of the time line saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Point {
    /// Its end, in seconds since the start.
    pub t_s: u64,
    /// Streams held at its end.
    pub held: u64,
    /// Notifications that arrived.
    pub messages: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Clients and requests that failed.
    pub failed: u64,
    /// Of the requests, from the time at which each was due.
    pub request_latency: Counts,
    /// Of the notifications, from the time at which each was sent.
    pub notification_latency: Counts,
}

/// The points so far, and the one that is being filled.
#[derive(Debug)]
pub(super) struct Timeline {
    points: Vec<Point>,
    step_s: u64,
    current: Point,
    request_latency: Recorder,
    notification_latency: Recorder,
}

/// Of the last whole step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct LastStep {
    messages: u64,
    requests: u64,
    failed: u64,
    request_p50_ms: Option<f64>,
    request_p99_ms: Option<f64>,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self {
            points: Vec::new(),
            step_s: 1,
            current: Point { t_s: 1, ..Point::default() },
            request_latency: Recorder::new(Precision::Coarse),
            notification_latency: Recorder::new(Precision::Coarse),
        }
    }

    /// Goes on to `elapsed`, while `held` streams were held.
    pub(super) fn advance(&mut self, elapsed: Duration, held: u64) -> Option<LastStep> {
        let mut last = None;
        while elapsed.as_secs() >= self.current.t_s {
            last = Some(self.finish(held));
        }
        last
    }

    pub(super) fn message(&mut self, latency: Option<Duration>) {
        self.current.messages += 1;
        if let Some(latency) = latency {
            self.notification_latency.record(latency);
        }
    }

    pub(super) fn request(&mut self, latency: Duration) {
        self.current.requests += 1;
        self.request_latency.record(latency);
    }

    pub(super) fn failure(&mut self) {
        self.current.failed += 1;
    }

    /// The points, the unfinished one among them, and how long each is.
    pub(super) fn points(&self, held: u64) -> (Vec<Point>, u64) {
        let mut points = self.points.clone();
        points.push(Point {
            held,
            request_latency: self.request_latency.counts(),
            notification_latency: self.notification_latency.counts(),
            ..self.current.clone()
        });
        (points, self.step_s)
    }

    fn finish(&mut self, held: u64) -> LastStep {
        let in_ms = |latency: Option<Duration>| latency.map(|latency| latency.as_secs_f64() * 1e3);
        let last = LastStep {
            messages: self.current.messages,
            requests: self.current.requests,
            failed: self.current.failed,
            request_p50_ms: in_ms(self.request_latency.quantile(0.5)),
            request_p99_ms: in_ms(self.request_latency.quantile(0.99)),
        };
        let next = Point { t_s: self.current.t_s + self.step_s, ..Point::default() };
        let mut finished = std::mem::replace(&mut self.current, next);
        finished.held = held;
        finished.request_latency = self.request_latency.take();
        finished.notification_latency = self.notification_latency.take();
        self.points.push(finished);
        if self.points.len() == MAX_POINTS {
            self.coarsen();
        }
        last
    }

    /// Makes one point of each two.
    fn coarsen(&mut self) {
        let mut points = std::mem::take(&mut self.points).into_iter();
        while let (Some(mut sum), Some(second)) = (points.next(), points.next()) {
            sum.t_s = second.t_s;
            sum.held = second.held;
            sum.messages += second.messages;
            sum.requests += second.requests;
            sum.failed += second.failed;
            sum.request_latency.add(second.request_latency);
            sum.notification_latency.add(second.notification_latency);
            self.points.push(sum);
        }
        self.current.t_s += self.step_s;
        self.step_s *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_a_point_even_without_events() {
        let mut timeline = Timeline::new();
        timeline.message(Some(Duration::from_millis(3)));
        assert!(timeline.advance(Duration::from_millis(999), 1).is_none());
        let last = timeline.advance(Duration::from_millis(3_500), 7).unwrap();
        assert_eq!((last.messages, last.request_p50_ms), (0, None));
        timeline.request(Duration::from_millis(2));
        let (points, step_s) = timeline.points(8);
        let seen: Vec<_> = points.iter().map(|point| (point.t_s, point.held)).collect();
        assert_eq!((seen, step_s), (vec![(1, 7), (2, 7), (3, 7), (4, 8)], 1));
        assert_eq!(points[0].notification_latency.total(), 1);
        assert_eq!((points[3].requests, points[3].request_latency.total()), (1, 1));
    }

    #[test]
    fn a_long_run_keeps_everything_in_fewer_points() {
        let mut timeline = Timeline::new();
        let seconds = 2 * u64::try_from(MAX_POINTS).unwrap() + 50;
        for second in 0..seconds {
            timeline.advance(Duration::from_secs(second), 5);
            timeline.request(Duration::from_millis(1));
        }
        let (points, step_s) = timeline.points(5);
        assert!(points.len() <= MAX_POINTS, "{}", points.len());
        assert!(step_s >= 2);
        assert_eq!(points.iter().map(|point| point.requests).sum::<u64>(), seconds);
        let total: u64 = points.iter().map(|point| point.request_latency.total()).sum();
        assert_eq!(total, seconds);
        assert!(points.windows(2).all(|pair| pair[0].t_s + step_s == pair[1].t_s));
    }
}
