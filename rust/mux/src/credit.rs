//! Receive-side flow control of one stream: what the peer may send, and when it is told so.

use crate::error::ProtocolError;
use crate::frame::{FRAME_CHARGE, StreamId};
use crate::stream::{Flags, RxState, Slot};

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
pub(crate) fn receive(slot: &mut Slot, id: StreamId, charge: u32) -> Result<(), ProtocolError> {
    if charge > slot.rx_left {
        let excess_bytes = charge - slot.rx_left;
        return Err(ProtocolError::CreditExceeded { stream: id, excess_bytes });
    }
    slot.rx_left -= charge;
    slot.rx_unread += charge;
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

/// Grants all that the window allows and returns the new absolute limit.
pub(crate) fn grant(slot: &mut Slot) -> u64 {
    slot.rx_left = slot.rx_left.max(slot.window.saturating_sub(slot.rx_unread));
    slot.rx_off + u64::from(slot.rx_left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::StreamKind;

    const WINDOW: u32 = 36 * 1024;

    fn slot() -> Slot {
        Slot::new(StreamKind::Exchange, 0, WINDOW, WINDOW)
    }

    #[test]
    fn one_byte_beyond_the_credit_is_refused_and_changes_nothing() {
        let mut slot = slot();
        let id = StreamId::from_wire(1);
        let error = receive(&mut slot, id, WINDOW + 1).unwrap_err();
        assert_eq!(error, ProtocolError::CreditExceeded { stream: id, excess_bytes: 1 });
        assert_eq!((slot.rx_off, slot.rx_left, slot.rx_unread), (0, WINDOW, 0));
        receive(&mut slot, id, WINDOW).unwrap();
    }

    #[test]
    fn a_sleeping_reader_never_grants() {
        let mut slot = slot();
        receive(&mut slot, StreamId::from_wire(1), WINDOW).unwrap();
        assert!(!consume(&mut slot, 0));
        assert!(!consume(&mut slot, 100));
    }

    #[test]
    fn a_grant_reopens_the_whole_window_less_what_is_unread() {
        let mut slot = slot();
        receive(&mut slot, StreamId::from_wire(1), 30_000).unwrap();
        assert!(consume(&mut slot, 20_000), "less than half is left to the peer");
        assert!(!consume(&mut slot, 1), "one CREDIT is pending already");
        slot.flags.take(Flags::CREDIT_DUE);
        let limit = grant(&mut slot);
        assert_eq!(limit, 30_000 + u64::from(WINDOW) - 9_999);
        assert_eq!(slot.rx_left + slot.rx_unread, WINDOW);
    }
}
