//! The estimate against a model of a link: a rate, a delay each way, and a queue without an end.

mod by_hand;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const BATCH: u64 = 16 * 1024;
const ACK_BYTES: u64 = 32 * 1024;
const ACK_DELAY_US: u64 = 25_000;
const RING: u64 = 16 * 1024 * 1024;
const MBIT: u64 = 1_000_000 / 8;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    Arrival { position: u64 },
    AckTimer,
    Ack { position: u64, delay_us: u64 },
}

/// A sender and a peer that acknowledges as channels do.
struct Model {
    flight: Flight,
    now_us: u64,
    bytes_per_s: u64,
    delay_us: u64,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    sent: u64,
    acked: u64,
    /// When the link's queue will be empty.
    idle_at_us: u64,
    arrived: u64,
    arrived_at_us: u64,
    told: u64,
    /// How long each batch waited in the queue.
    queues_us: Vec<u64>,
}

impl Model {
    fn new(bytes_per_s: u64, delay_us: u64) -> Self {
        Self {
            flight: Flight::new(RING, 0, Timestamp::ZERO),
            now_us: 0,
            bytes_per_s,
            delay_us,
            events: BinaryHeap::new(),
            sent: 0,
            acked: 0,
            idle_at_us: 0,
            arrived: 0,
            arrived_at_us: 0,
            told: 0,
            queues_us: Vec::new(),
        }
    }

    fn at(&mut self, us: u64, event: Event) {
        self.events.push(Reverse((us, event)));
    }

    fn send(&mut self, bytes: u64) {
        self.sent += bytes;
        self.queues_us.push(self.idle_at_us.saturating_sub(self.now_us));
        self.idle_at_us = self.idle_at_us.max(self.now_us) + bytes * 1_000_000 / self.bytes_per_s;
        self.at(self.idle_at_us + self.delay_us, Event::Arrival { position: self.sent });
        self.flight.handle_sent(Timestamp::from_micros(self.now_us), self.sent);
    }

    fn send_ack(&mut self) {
        self.told = self.arrived;
        let delay_us = self.now_us - self.arrived_at_us;
        let ack = Event::Ack { position: self.arrived, delay_us };
        self.at(self.now_us + self.delay_us, ack);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival { position } => {
                if self.arrived == self.told {
                    self.at(self.now_us + ACK_DELAY_US, Event::AckTimer);
                }
                (self.arrived, self.arrived_at_us) = (position, self.now_us);
                if self.arrived - self.told >= ACK_BYTES {
                    self.send_ack();
                }
            }
            Event::AckTimer if self.arrived > self.told => self.send_ack(),
            Event::AckTimer => {}
            Event::Ack { position, delay_us } => {
                self.acked = position;
                let now = Timestamp::from_micros(self.now_us);
                self.flight.handle_ack(now, position, Some(Duration::from_micros(delay_us)));
            }
        }
    }

    /// Lets `time` pass while the sender has `backlog` as often as it may send.
    fn run(&mut self, time: Duration, backlog: bool) {
        let end_us = self.now_us + u64::try_from(time.as_micros()).unwrap();
        loop {
            while backlog && self.sent - self.acked < self.flight.cap() {
                self.send(BATCH);
            }
            if !backlog {
                self.flight.handle_dry();
            }
            let Some(Reverse((at, event))) = self.events.pop_if_before(end_us) else {
                break;
            };
            self.now_us = at;
            self.handle(event);
        }
        self.now_us = end_us;
    }

    /// Runs with a backlog; says how much of the link was used, and how long batches waited in its
    /// queue: 99 of 100, and at most.
    fn saturate(&mut self, time: Duration) -> Use {
        self.queues_us.clear();
        let before = self.arrived;
        self.run(time, true);
        self.queues_us.sort_unstable();
        let possible = in_time(self.bytes_per_s, time);
        Use {
            share: (self.arrived - before) as f64 / possible as f64,
            queue_p99_us: self.queues_us[self.queues_us.len() * 99 / 100],
        }
    }
}

trait PopBefore {
    fn pop_if_before(&mut self, end_us: u64) -> Option<Reverse<(u64, Event)>>;
}

impl PopBefore for BinaryHeap<Reverse<(u64, Event)>> {
    fn pop_if_before(&mut self, end_us: u64) -> Option<Reverse<(u64, Event)>> {
        self.peek().filter(|Reverse((at, _))| *at <= end_us)?;
        self.pop()
    }
}

#[derive(Debug)]
struct Use {
    share: f64,
    queue_p99_us: u64,
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_link_is_filled_with_a_short_queue() {
    for (rate, delay_ms, warm_up) in [
        (100 * MBIT, 10, SECOND),
        (100 * MBIT, 50, 5 * SECOND),
        (1_000 * MBIT, 10, 2 * SECOND),
        (1_000 * MBIT, 50, 5 * SECOND),
    ] {
        let mut model = Model::new(rate, delay_ms * 1_000);
        model.saturate(warm_up);
        let used = model.saturate(35 * SECOND);
        let rtt_us = 2 * delay_ms * 1_000 + 2 * BATCH * 1_000_000 / rate;
        assert!(used.share >= 0.95, "{rate} {delay_ms} {used:?}");
        assert!(used.queue_p99_us <= rtt_us * 45 / 100, "{rate} {delay_ms} {used:?}");
    }
}

#[test]
fn a_new_link_is_filled_within_a_dozen_round_trips() {
    let mut model = Model::new(1_000 * MBIT, 50_000);
    model.saturate(SECOND * 12 / 10);
    let used = model.saturate(SECOND);
    assert!(used.share >= 0.95, "{used:?}");
}

#[test]
fn the_queue_that_is_always_there_never_passes_for_the_links_own_delay() {
    let mut model = Model::new(100 * MBIT, 10_000);
    for _ in 0..12 {
        model.saturate(10 * SECOND);
        let rtt = model.flight.min_rtt.unwrap();
        assert!(rtt <= Duration::from_millis(24), "{rtt:?}");
    }
}

#[test]
fn a_slow_links_long_queue_never_passes_for_its_delay() {
    let mut model = Model::new(10 * MBIT, 10_000);
    for _ in 0..12 {
        model.saturate(10 * SECOND);
        assert_eq!(model.flight.cap(), 256 * 1024);
    }
}

#[test]
fn a_quick_link_has_the_least_cap_and_is_full_with_it() {
    let mut model = Model::new(8_000 * MBIT, 20);
    model.saturate(SECOND / 10);
    let used = model.saturate(SECOND);
    assert!(used.share >= 0.95, "{used:?}");
    assert_eq!(model.flight.cap(), 256 * 1024);
}

#[test]
fn a_sender_with_little_to_say_neither_lowers_the_estimate_nor_raises_it() {
    let mut model = Model::new(100 * MBIT, 10_000);
    model.saturate(5 * SECOND);
    model.run(SECOND, false);
    let (rate, cap) = (model.flight.rate(), model.flight.cap());
    for _ in 0..100 {
        model.send(20_000);
        model.run(SECOND / 25, false);
    }
    let now = (model.flight.rate(), model.flight.cap());
    assert!(now.0.abs_diff(rate) <= rate / 20 && now.1.abs_diff(cap) <= cap / 10, "{now:?}");
}

#[test]
fn a_sender_that_has_said_little_so_far_begins_anew_with_bulk() {
    let mut model = Model::new(100 * MBIT, 50_000);
    for _ in 0..1_000 {
        model.send(300);
        model.run(SECOND / 25, false);
    }
    assert_eq!(model.flight.cap(), MIN_CAP);
    model.saturate(2 * SECOND);
    let used = model.saturate(SECOND);
    assert!(used.share >= 0.95, "{used:?}");
}

#[test]
fn a_link_that_becomes_slower_or_quicker_is_followed() {
    let mut model = Model::new(200 * MBIT, 20_000);
    model.saturate(5 * SECOND);
    model.bytes_per_s = 100 * MBIT;
    model.saturate(2 * SECOND);
    let used = model.saturate(SECOND);
    assert!(used.queue_p99_us <= 25_000 && used.share >= 0.95, "{used:?}");
    model.bytes_per_s = 400 * MBIT;
    model.saturate(SECOND);
    let used = model.saturate(SECOND);
    assert!(used.queue_p99_us <= 25_000 && used.share >= 0.95, "{used:?}");
}

#[test]
fn what_is_remembered_is_bounded_and_little_is_when_all_is_acknowledged() {
    let mut flight = Flight::new(RING, 0, Timestamp::ZERO);
    for batch in 1..10_000 {
        flight.handle_sent(Timestamp::from_micros(batch), batch * BATCH);
    }
    assert!(flight.marks.len() <= MAX_MARKS, "{}", flight.marks.len());
    flight.handle_ack(Timestamp::from_micros(20_000), 9_999 * BATCH, Some(Duration::ZERO));
    flight.shrink();
    assert_eq!(flight.marks.capacity(), 0);
}

#[test]
fn the_ring_bounds_what_a_long_and_quick_link_would_hold() {
    let mut model = Model::new(8_000 * MBIT, 100_000);
    model.saturate(5 * SECOND);
    assert_eq!(model.flight.cap(), RING);
}

#[test]
fn a_peer_that_lies_about_its_delay_gains_no_more_than_the_ring() {
    for delay in [Duration::ZERO, Duration::from_micros(1), Duration::MAX] {
        let mut flight = Flight::new(RING, 0, Timestamp::ZERO);
        for batch in 1..1_000 {
            let now = Timestamp::from_micros(batch * 100);
            flight.handle_sent(now, batch * BATCH);
            flight.handle_ack(now, batch * BATCH, Some(delay));
            assert!((MIN_CAP..=RING).contains(&flight.cap()));
        }
    }
}

#[test]
fn about_two_milliseconds_are_encoded_ahead() {
    assert_eq!(Flight::new(RING, 0, Timestamp::ZERO).encode_ahead(), 16 * 1024);
    for (rate, least, most) in
        [(10, 16_384, 16_384), (400, 90_000, 110_000), (8_000, 262_144, 262_144)]
    {
        let mut model = Model::new(rate * MBIT, 5_000);
        model.saturate(SECOND);
        let ahead = model.flight.encode_ahead();
        assert!((least..=most).contains(&ahead), "{rate} {ahead}");
    }
}
