//! Receive-side flow control of one stream: what the peer may send, and when it is told so.
//!
//! A window begins small. It doubles when half of it is used up within two round trips, for then the
//! peer may have been waiting for credit, and it is small again after a pause.

use std::time::Duration;

use crate::error::ProtocolError;
use crate::frame::{FRAME_CHARGE, StreamId};
use crate::stream::{Flags, RxState, Slot};
use crate::time::Timestamp;

/// What a grant adds to a limit at least. The peer counts less as a frame that does not matter.
pub(crate) const MIN_GRANT: u64 = 4 * 1024;
/// Microseconds of a tick, the unit of a slot's time; 32 bits of them last 19 hours.
const TICK_US: u64 = 16;
/// Time without a grant after which a window is the initial one again.
const QUIET: Duration = Duration::from_secs(10);

/// What a grant depends on besides the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) now: Timestamp,
    /// Smoothed round-trip time, once measured.
    pub(crate) rtt: Option<Duration>,
    /// The window of a stream that begins.
    pub(crate) initial_window: u32,
    /// What windows may grow to at present; smaller than a window if none may grow.
    pub(crate) max_window: u32,
}

/// What `payload_bytes` of data in one frame cost.
///
/// The charge is more than the payload so that tiny frames cannot inflate the receiver's memory.
pub(crate) fn charge(payload_bytes: usize) -> u32 {
    u32::try_from(payload_bytes).unwrap_or(u32::MAX).saturating_add(FRAME_CHARGE)
}

/// Accounts for a received frame of `charge`.
///
/// # Errors
///
/// [`ProtocolError::CreditExceeded`] if the peer was not granted that much.
pub(crate) fn receive(
    slot: &mut Slot,
    id: StreamId,
    charge: u32,
    now: Timestamp,
) -> Result<(), ProtocolError> {
    if charge > slot.rx_left {
        let excess_bytes = charge - slot.rx_left;
        return Err(ProtocolError::CreditExceeded { stream: id, excess_bytes });
    }
    if slot.rx_off == 0 {
        slot.granted_at = ticks(now);
    }
    slot.rx_left -= charge;
    slot.rx_off += u64::from(charge);
    Ok(())
}

/// Accounts for `charge` that the application consumed; says whether a CREDIT is now due that was
/// not due before. It is once less than half of the window is left to the peer.
pub(crate) fn consume(slot: &mut Slot, charge: u32) -> bool {
    slot.rx_unread = slot.rx_unread.saturating_sub(charge);
    let grantable = slot.window.saturating_sub(slot.rx_left + slot.rx_unread);
    let due = slot.rx_left < slot.window / 2 && grantable >= slot.window / 4;
    if slot.rx != RxState::Open || slot.flags.has(Flags::CREDIT_DUE) || !due {
        return false;
    }
    slot.flags.set(Flags::CREDIT_DUE);
    true
}

/// Adapts the window, grants all that it allows and returns the new absolute limit; `None` if the
/// window has shrunk so that it does not allow more yet. A limit is never taken back.
pub(crate) fn grant(slot: &mut Slot, terms: &Terms) -> Option<u64> {
    let now = ticks(terms.now);
    let passed = Duration::from_micros(u64::from(now.wrapping_sub(slot.granted_at)) * TICK_US);
    slot.granted_at = now;
    if passed >= QUIET {
        slot.window = terms.initial_window;
    } else if terms.rtt.is_some_and(|rtt| passed < 2 * rtt) {
        slot.window = slot.window.max(slot.window.saturating_mul(2).min(terms.max_window));
    }
    let left = slot.window.saturating_sub(slot.rx_unread);
    if u64::from(left) < u64::from(slot.rx_left) + MIN_GRANT {
        return None;
    }
    slot.rx_left = left;
    Some(slot.rx_off + u64::from(left))
}

fn ticks(time: Timestamp) -> u32 {
    let ticks = time.as_micros() / TICK_US;
    u32::try_from(ticks & u64::from(u32::MAX)).expect("32 bits are left")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::StreamKind;

    const WINDOW: u32 = 36 * 1024;
    const MAX_WINDOW: u32 = 256 * 1024;
    const RTT: Duration = Duration::from_millis(10);

    fn id() -> StreamId {
        StreamId::from_wire(1)
    }

    fn slot() -> Slot {
        Slot::new(StreamKind::Exchange, 0, WINDOW, WINDOW)
    }

    fn terms(now: Timestamp) -> Terms {
        Terms { now, rtt: Some(RTT), initial_window: WINDOW, max_window: MAX_WINDOW }
    }

    /// Receives and consumes half a window in `time`, and grants; says what the peer may send.
    fn turn(slot: &mut Slot, now: &mut Timestamp, time: Duration) -> u32 {
        let half = slot.rx_left - slot.window / 2 + 1;
        receive(slot, id(), half, *now).unwrap();
        slot.rx_unread += half;
        *now = now.after(time);
        assert!(consume(slot, half));
        slot.flags.take(Flags::CREDIT_DUE);
        let limit = slot.rx_off + u64::from(slot.rx_left);
        let granted = grant(slot, &terms(*now)).unwrap_or(limit);
        assert_eq!(granted, slot.rx_off + u64::from(slot.rx_left));
        slot.rx_left
    }

    #[test]
    fn one_byte_beyond_the_credit_is_refused_and_changes_nothing() {
        let mut slot = slot();
        let error = receive(&mut slot, id(), WINDOW + 1, Timestamp::ZERO).unwrap_err();
        assert_eq!(error, ProtocolError::CreditExceeded { stream: id(), excess_bytes: 1 });
        assert_eq!((slot.rx_off, slot.rx_left), (0, WINDOW));
        receive(&mut slot, id(), WINDOW - 3, Timestamp::ZERO).unwrap();
        let error = receive(&mut slot, id(), 10, Timestamp::ZERO).unwrap_err();
        assert_eq!(error, ProtocolError::CreditExceeded { stream: id(), excess_bytes: 7 });
        receive(&mut slot, id(), 3, Timestamp::ZERO).unwrap();
    }

    #[test]
    fn the_time_of_a_window_begins_with_its_first_byte_and_not_with_a_later_one() {
        let (mut slow, mut now) = (slot(), Timestamp::ZERO.after(6 * QUIET));
        assert_eq!(turn(&mut slot(), &mut now, RTT), 2 * WINDOW);
        receive(&mut slow, id(), 1, now).unwrap();
        slow.rx_unread = 1;
        now = now.after(2 * RTT);
        assert_eq!(turn(&mut slow, &mut now, Duration::ZERO), WINDOW - 1);
    }

    #[test]
    fn a_sleeping_reader_never_grants() {
        let mut slot = slot();
        receive(&mut slot, id(), WINDOW, Timestamp::ZERO).unwrap();
        slot.rx_unread = WINDOW;
        assert!(!consume(&mut slot, 0));
        assert!(!consume(&mut slot, 100));
    }

    #[test]
    fn a_grant_reopens_the_whole_window_less_what_is_unread() {
        let mut slot = slot();
        receive(&mut slot, id(), 30_000, Timestamp::ZERO).unwrap();
        slot.rx_unread = 30_000;
        assert!(consume(&mut slot, 20_000), "less than half is left to the peer");
        assert!(!consume(&mut slot, 1), "one CREDIT is pending already");
        slot.flags.take(Flags::CREDIT_DUE);
        let limit = grant(&mut slot, &terms(Timestamp::ZERO.after(10 * RTT)));
        assert_eq!(limit, Some(30_000 + u64::from(WINDOW) - 9_999));
        assert_eq!(slot.rx_left + slot.rx_unread, WINDOW);
    }

    #[test]
    fn a_window_doubles_up_to_its_limit_while_half_of_it_is_used_in_less_than_two_round_trips() {
        let (mut slot, mut now) = (slot(), Timestamp::ZERO);
        let windows: Vec<u32> = (0..5).map(|_| turn(&mut slot, &mut now, RTT)).collect();
        assert_eq!(windows, [2 * WINDOW, 4 * WINDOW, MAX_WINDOW, MAX_WINDOW, MAX_WINDOW]);
        assert_eq!(turn(&mut slot, &mut now, 3 * RTT), MAX_WINDOW);
    }

    #[test]
    fn a_window_does_not_grow_for_a_reader_that_takes_its_time() {
        let (mut slot, mut now) = (slot(), Timestamp::ZERO);
        for _ in 0..5 {
            assert_eq!(turn(&mut slot, &mut now, 2 * RTT), WINDOW);
        }
    }

    #[test]
    fn a_window_of_a_quiet_stream_shrinks_without_taking_a_limit_back() {
        let (mut slot, mut now) = (slot(), Timestamp::ZERO);
        while turn(&mut slot, &mut now, RTT) < MAX_WINDOW {}
        let left = turn(&mut slot, &mut now, Duration::from_secs(10));
        assert_eq!((slot.window, left), (WINDOW, MAX_WINDOW / 2 - 1), "what was given stays");
        receive(&mut slot, id(), left, now).unwrap();
        slot.rx_unread = left;
        assert!(consume(&mut slot, left));
        now = now.after(10 * RTT);
        assert_eq!(grant(&mut slot, &terms(now)), Some(slot.rx_off + u64::from(WINDOW)));
    }

    #[test]
    fn a_grant_that_moves_the_limit_by_less_than_a_quarter_of_the_smallest_window_is_not_made() {
        for (left, granted) in [(WINDOW - 4_096, Some(u64::from(WINDOW))), (WINDOW - 4_095, None)] {
            let mut slot = Slot { rx_left: left, ..slot() };
            assert_eq!(grant(&mut slot, &terms(Timestamp::ZERO.after(3 * RTT))), granted);
            assert_eq!(slot.rx_left, if granted.is_some() { WINDOW } else { left });
        }
    }

    #[test]
    fn nothing_grows_when_the_budget_is_short_and_nothing_shrinks_for_it() {
        let (mut slot, mut now) = (slot(), Timestamp::ZERO);
        let grown = turn(&mut slot, &mut now, RTT);
        now = now.after(RTT);
        grant(&mut slot, &Terms { max_window: 0, ..terms(now) });
        assert_eq!(slot.window, grown);
    }
}
