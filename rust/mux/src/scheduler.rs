//! Who is served next: streams with little to say before streams with much.
//!
//! A sending half is *small* until it has queued more than 64 KiB without running empty, then
//! *bulk* until it runs empty. Small halves are served first in, first out; bulk halves in turn, a
//! quantum each. While bulk waits, small gets at most 7/8 of the bytes.

use std::collections::VecDeque;

use crate::frame::{HEADER_BYTES, MAX_BODY, StreamId};
use crate::stream::{Flags, Slot};

/// Bytes that a stream may encode in one turn: one TLS record.
pub(crate) const QUANTUM: usize = HEADER_BYTES + MAX_BODY;
/// Queued without running empty, more than this makes a half bulk.
const BULK_BYTES: u32 = 64 * 1024;
/// Quanta of small between two of bulk while both wait.
const SMALL_SHARE: usize = 7;

/// The scheduler's classes, in the order of their precedence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Class {
    Small,
    Bulk,
}

impl Class {
    /// The class of a slot's sending half at present.
    pub(crate) fn of(slot: &Slot) -> Self {
        if slot.burst > BULK_BYTES { Self::Bulk } else { Self::Small }
    }
}

/// A stream that has something to encode.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Ready {
    pub(crate) id: StreamId,
    /// Bytes of its earlier turns as bulk that it could not use.
    deficit: usize,
}

/// The ready lists and the account between them.
///
/// A list may hold ids of streams that are over by now, or in the other class; whoever takes one
/// sees to them. The dead ones are as few as the frames that ended those streams and wait in the ring.
#[derive(Debug, Default, Hash)]
pub(crate) struct Scheduler {
    small: VecDeque<Ready>,
    bulk: VecDeque<Ready>,
    /// Bytes of small since bulk was last served or did not wait.
    small_bytes: usize,
}

impl Scheduler {
    pub(crate) fn list(&mut self, class: Class) -> &mut VecDeque<Ready> {
        match class {
            Class::Small => &mut self.small,
            Class::Bulk => &mut self.bulk,
        }
    }

    /// Puts a stream that may have something to encode into its class's list, unless it is there.
    #[inline]
    pub(crate) fn make_ready(&mut self, slot: &mut Slot, id: StreamId) {
        if !slot.flags.has(Flags::READY) {
            slot.flags.set(Flags::READY);
            self.list(Class::of(slot)).push_back(Ready { id, deficit: 0 });
        }
    }

    /// The class whose turn it is; `None` when nobody waits.
    pub(crate) fn turn(&self) -> Option<Class> {
        match (!self.small.is_empty(), !self.bulk.is_empty()) {
            (true, true) if self.small_bytes >= SMALL_SHARE * QUANTUM => Some(Class::Bulk),
            (true, _) => Some(Class::Small),
            (false, true) => Some(Class::Bulk),
            (false, false) => None,
        }
    }

    /// Puts a stream back that has more to encode than its turn of `served` bytes allowed: a small one
    /// first, so that its message is not torn apart by others', a bulk one last. What a bulk one could
    /// not use, because frames end where parts do, adds up to a turn of its own.
    pub(crate) fn put_back(&mut self, class: Class, mut ready: Ready, served: usize) {
        if class == Class::Small {
            self.small.push_front(ready);
            return;
        }
        ready.deficit += QUANTUM - served;
        if ready.deficit < QUANTUM {
            self.bulk.push_back(ready);
        } else {
            ready.deficit -= QUANTUM;
            self.bulk.push_front(ready);
        }
    }

    /// Notes that `class` was served `bytes`.
    pub(crate) fn served(&mut self, class: Class, bytes: usize) {
        match class {
            Class::Small if !self.bulk.is_empty() => self.small_bytes += bytes,
            Class::Small | Class::Bulk => self.small_bytes = 0,
        }
    }
}
