//! What the estimate makes of single acknowledgements.

use super::super::*;
use super::RING;

/// A sender and its acknowledgements, at milliseconds.
struct ByHand(Flight);

impl ByHand {
    fn new(position: u64) -> Self {
        Self(Flight::new(RING, position, Timestamp::ZERO))
    }

    fn send(&mut self, at_ms: u64, position: u64) {
        self.0.handle_sent(Timestamp::from_micros(at_ms * 1_000), position);
    }

    fn ack(&mut self, at_ms: u64, position: u64) -> u64 {
        self.0.handle_ack(Timestamp::from_micros(at_ms * 1_000), position, Some(Duration::ZERO));
        self.0.rate()
    }

    /// A flight of `bytes` that begins with nothing in flight and takes `rtt_ms`.
    fn round(&mut self, at_ms: u64, bytes: u64, rtt_ms: u64) -> u64 {
        let position = self.0.sent + bytes;
        self.send(at_ms, position);
        self.ack(at_ms + rtt_ms, position)
    }
}

#[test]
fn the_time_without_anything_in_flight_is_not_the_links() {
    let mut link = ByHand::new(0);
    assert_eq!(link.round(0, 100_000, 20), 5_000_000);
    assert_eq!(link.round(10_000, 160_000, 20), 8_000_000);
}

#[test]
fn an_acknowledgement_sooner_than_the_link_can_says_nothing_of_its_rate() {
    let mut link = ByHand::new(0);
    assert_eq!(link.round(0, 100_000, 20), 5_000_000);
    assert_eq!(link.round(100, 100_000, 19), 5_000_000);
}

#[test]
fn a_rate_is_no_higher_than_that_of_sending() {
    let mut link = ByHand::new(0);
    link.send(0, 10_000);
    link.send(40, 60_000);
    link.ack(50, 10_000);
    link.send(90, 120_000);
    assert_eq!(link.ack(110, 120_000), 110_000 * 1_000 / 90);
}

#[test]
fn an_acknowledgement_that_says_nothing_new_starts_no_sample() {
    let mut link = ByHand::new(0);
    link.send(0, 10_000);
    link.send(0, 20_000);
    link.ack(20, 10_000);
    link.ack(30, 10_000);
    link.send(31, 70_000);
    assert_eq!(link.ack(80, 70_000), 1_000_000);
}

#[test]
fn a_rate_counts_for_five_rounds_at_least_and_ten_at_most() {
    let mut link = ByHand::new(0);
    for round in 0..5 {
        assert!(link.round(round * 100, 100_000, 20) == 5_000_000);
    }
    assert_eq!(link.round(500, 200_000, 20), 10_000_000);
    for round in 6..10 {
        assert_eq!(link.round(round * 100, 100_000, 20), 10_000_000);
    }
    for round in 10..15 {
        link.round(round * 100, 100_000, 20);
    }
    for round in 15..30 {
        assert_eq!(link.round(round * 100, 100_000, 20), 5_000_000);
    }
}

#[test]
fn an_old_round_trip_time_is_looked_for_again_with_half_in_flight_for_two_rounds() {
    let mut link = ByHand::new(0);
    link.round(0, 1_000_000, 20);
    for round in 1..6 {
        link.round(round * 100, 1_000_000, 21);
    }
    let whole = link.0.cap();
    assert_eq!(whole, 1_300_000);
    link.round(10_100, 1_000_000, 21);
    assert_eq!(link.0.cap(), 500_000);
    link.round(10_200, 500_000, 22);
    assert_eq!(link.0.cap(), 500_000);
    link.round(10_300, 500_000, 21);
    assert_eq!(link.0.min_rtt, Some(Duration::from_millis(21)));
    assert!(link.0.cap() > whole);

    let mut link = ByHand::new(0);
    link.round(0, 10_000, 20);
    link.round(10_100, 10_000, 21);
    assert_eq!(link.0.cap(), 16 * 1024);
}

#[test]
fn a_sender_with_little_to_say_can_show_that_the_link_takes_more() {
    let mut link = ByHand::new(5_000);
    link.0.handle_dry();
    link.send(0, 5_001);
    assert!(link.0.marks[0].limited);
    assert_eq!(link.ack(1, 5_001), 1_000);
    link.send(1, 5_300);
    assert!(!link.0.marks[0].limited);
}

#[test]
fn a_link_counts_as_found_after_three_rounds_without_a_quarter_more() {
    let mut link = ByHand::new(0);
    let mut now_ms = 0;
    let caps = [1_000_000, 1_300_000, 1_300_000, 1_300_000, 1_300_000].map(|bytes| {
        now_ms += 100;
        link.round(now_ms, bytes, 20);
        link.0.cap()
    });
    assert_eq!(caps, [2_000_000, 2_600_000, 2_600_000, 2_600_000, 1_690_000]);
}

#[test]
fn a_link_with_a_round_trip_of_a_millisecond_is_not_quick() {
    let mut link = ByHand::new(0);
    link.round(0, 1_000, 1);
    assert_eq!(link.0.cap(), 256 * 1024);
}

#[test]
fn beyond_the_first_64_only_ends_of_batches_that_lie_apart_are_remembered() {
    let mut link = ByHand::new(0);
    for batch in 1..=64 + 101 {
        link.send(batch, batch * 1024);
    }
    // The 64th part of the least cap is four batches.
    assert_eq!(link.0.marks.len(), 64 + 25);
}
