//! One stream's state: two halves in one 64-byte slot.

use crate::frame::StreamKind;

/// Which end of the channel this is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// Dialled the link; its streams have initiator bit 0.
    ConnectionPoint,
    /// Accepted the link; its streams have initiator bit 1.
    Instance,
}

impl Side {
    pub(crate) const fn initiator(self) -> u32 {
        match self {
            Self::ConnectionPoint => 0,
            Self::Instance => 1,
        }
    }
}

/// The sending half.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum TxState {
    /// Takes data.
    Open,
    /// Takes no more data; the end is queued.
    Finishing,
    /// Queue dropped; RESET is on its way to the ring.
    Resetting,
    /// FIN or RESET is in the ring.
    Sent,
}

/// The receiving half.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum RxState {
    /// Takes data for the application.
    Open,
    /// The application wants no more; what still comes is dropped.
    Stopped,
    /// FIN arrived.
    Ended,
    /// RESET arrived.
    Failed,
}

/// A set of facts about a slot.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Flags(u8);

impl Flags {
    /// The slot holds a live stream.
    pub(crate) const LIVE: u8 = 1;
    /// OPEN has not been encoded yet.
    pub(crate) const UNOPENED: u8 = 2;
    /// A stream of kind control.
    pub(crate) const CONTROL: u8 = 4;
    /// In one of the scheduler's ready lists.
    pub(crate) const READY: u8 = 8;
    /// A CREDIT is pending.
    pub(crate) const CREDIT_DUE: u8 = 16;
    /// The application has let go of the stream.
    pub(crate) const RELEASED: u8 = 32;
    /// The application waits for room in the send queue.
    pub(crate) const WANTS_ROOM: u8 = 64;
    /// In the queue of streams with unread data.
    pub(crate) const LISTED: u8 = 128;

    pub(crate) const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    pub(crate) fn set(&mut self, flag: u8) {
        self.0 |= flag;
    }

    /// Clears `flag` and says whether it was set.
    pub(crate) fn take(&mut self, flag: u8) -> bool {
        let had = self.has(flag);
        self.0 &= !flag;
        had
    }
}

/// Everything that the channel knows of one stream, in one cache line.
#[derive(Clone, Debug, Hash)]
#[repr(align(64))]
pub(crate) struct Slot {
    /// Charge sent so far.
    pub(crate) tx_off: u64,
    /// Charge that the peer allows.
    pub(crate) tx_max: u64,
    /// Charge received so far.
    pub(crate) rx_off: u64,
    /// Charge that the peer may still send.
    pub(crate) rx_left: u32,
    /// Charge received that the application has not consumed.
    pub(crate) rx_unread: u32,
    /// Charge that may be outstanding and unread together.
    pub(crate) window: u32,
    /// When credit was last given or first used, in [`credit`](crate::credit)'s ticks.
    pub(crate) granted_at: u32,
    /// First and last node of the send queue; 0 = none.
    pub(crate) queue_head: u32,
    pub(crate) queue_tail: u32,
    /// Bytes in the send queue.
    pub(crate) queued: u32,
    /// Bytes queued since the queue was last empty; saturates.
    pub(crate) burst: u32,
    /// The application's name for the stream.
    pub(crate) token: u32,
    pub(crate) generation: u8,
    pub(crate) tx: TxState,
    pub(crate) rx: RxState,
    pub(crate) flags: Flags,
}

const _: () = assert!(size_of::<Slot>() == 64);

impl Slot {
    pub(crate) const EMPTY: Self = Self {
        tx_off: 0,
        tx_max: 0,
        rx_off: 0,
        rx_left: 0,
        rx_unread: 0,
        window: 0,
        granted_at: 0,
        queue_head: 0,
        queue_tail: 0,
        queued: 0,
        burst: 0,
        token: 0,
        generation: 0,
        tx: TxState::Sent,
        rx: RxState::Ended,
        flags: Flags(0),
    };

    pub(crate) fn new(kind: StreamKind, generation: u8, tx_window: u32, rx_window: u32) -> Self {
        let mut slot = Self {
            tx_max: u64::from(tx_window),
            rx_left: rx_window,
            window: rx_window,
            generation,
            tx: TxState::Open,
            rx: RxState::Open,
            ..Self::EMPTY
        };
        slot.flags.set(Flags::LIVE);
        if kind == StreamKind::Control {
            slot.flags.set(Flags::CONTROL);
        }
        slot
    }

    pub(crate) fn kind(&self) -> StreamKind {
        if self.flags.has(Flags::CONTROL) { StreamKind::Control } else { StreamKind::Exchange }
    }

    /// Both halves have run their course, so nothing more can come or go.
    pub(crate) fn is_over(&self) -> bool {
        self.tx == TxState::Sent && matches!(self.rx, RxState::Ended | RxState::Failed)
    }
}
