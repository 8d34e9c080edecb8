//! The send queues of all streams: chunks waiting to be encoded, in one arena.

use bytes::{Buf, Bytes};

use crate::frame::{EOM, FIN, FRAME_CHARGE};
use crate::stream::Slot;

/// Bytes that all queues are to hold together: what a processor can reach fast, and more than a link
/// takes while a writer gets its turn.
const SHARED_BYTES: u64 = 8 * 1024 * 1024;
/// Nodes that are not worth giving back.
const FEW_NODES: usize = 64;

/// Chunks of every stream's send queue, linked by index; an empty queue costs nothing.
#[derive(Debug, Default, Hash)]
pub(crate) struct Queues {
    nodes: Vec<Node>,
    /// First free node; 0 = none. Node `i` is stored at `i - 1`.
    free: u32,
    in_use: u32,
    /// Queues that are not empty.
    busy: u32,
    bytes: u64,
}

#[derive(Debug, Hash)]
struct Node {
    data: Bytes,
    next: u32,
    /// Counts the chunks of its queue, from any number on and modulo 2³².
    number: u32,
    /// [`EOM`] and [`FIN`] behind the last byte of `data`.
    flags: u8,
}

/// What the front of a queue offers to one frame.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Front {
    /// Payload bytes.
    pub(crate) bytes: usize,
    /// [`EOM`] and [`FIN`] of the frame.
    pub(crate) flags: u8,
}

impl Queues {
    /// Bytes in all queues.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the slot's queue holds: the bytes, and for each chunk what a frame costs, so that small or
    /// empty ones are as bounded as others.
    pub(crate) fn charge(&self, slot: &Slot) -> u64 {
        if slot.queue_head == 0 {
            return 0;
        }
        let number = |index: u32| self.nodes[index as usize - 1].number;
        let behind_first = number(slot.queue_tail).wrapping_sub(number(slot.queue_head));
        u64::from(slot.queued) + (u64::from(behind_first) + 1) * u64::from(FRAME_CHARGE)
    }

    /// Whether a queue that holds `charge` takes more: below `limit`, or less if many queues share the
    /// memory. An empty one always does.
    pub(crate) fn has_room(&self, charge: u64, limit: u32) -> bool {
        charge < u64::from(limit) && charge * u64::from(self.busy) < SHARED_BYTES
    }

    /// Appends a chunk to the slot's queue.
    #[inline]
    pub(crate) fn push(&mut self, slot: &mut Slot, data: Bytes, flags: u8) {
        let length = u32::try_from(data.len()).expect("the caller bounds a chunk");
        slot.queued += length;
        slot.burst = slot.burst.saturating_add(length);
        self.bytes += u64::from(length);
        self.in_use += 1;
        let tail = slot.queue_tail.checked_sub(1).map(|place| &self.nodes[place as usize]);
        let number = tail.map_or(0, |tail| tail.number.wrapping_add(1));
        let node = Node { data, next: 0, number, flags };
        let index = if self.free == 0 {
            self.nodes.push(node);
            u32::try_from(self.nodes.len()).expect("chunks are bounded by streams and queue limits")
        } else {
            let index = self.free;
            let place = &mut self.nodes[index as usize - 1];
            self.free = place.next;
            *place = node;
            index
        };
        match slot.queue_tail {
            0 => {
                slot.queue_head = index;
                self.busy += 1;
            }
            tail => self.nodes[tail as usize - 1].next = index,
        }
        slot.queue_tail = index;
    }

    /// What one frame of at most `limit` payload bytes takes from the front: chunks up to the end
    /// of a part.
    pub(crate) fn front(&self, slot: &Slot, limit: usize) -> Front {
        let mut front = Front::default();
        let mut index = slot.queue_head;
        while index != 0 {
            let node = &self.nodes[index as usize - 1];
            if node.data.len() > limit - front.bytes {
                front.bytes = limit;
                break;
            }
            front.bytes += node.data.len();
            if node.flags != 0 {
                front.flags = node.flags;
                break;
            }
            index = node.next;
        }
        front
    }

    /// Takes what [`front`](Self::front) offered, handing its pieces to `piece` in order.
    #[inline]
    pub(crate) fn take(&mut self, slot: &mut Slot, front: Front, mut piece: impl FnMut(Bytes)) {
        let mut left = front.bytes;
        let taken = u32::try_from(left).expect("a frame is short");
        slot.queued -= taken;
        self.bytes -= u64::from(taken);
        while slot.queue_head != 0 {
            let index = slot.queue_head;
            let node = &mut self.nodes[index as usize - 1];
            if node.data.len() > left {
                if left > 0 {
                    piece(node.data.split_to(left));
                }
                return;
            }
            left -= node.data.len();
            let (flags, next) = (node.flags, node.next);
            let data = std::mem::take(&mut node.data);
            if data.has_remaining() {
                piece(data);
            }
            self.release(index);
            slot.queue_head = next;
            if flags & (EOM | FIN) != 0 {
                break;
            }
        }
        if slot.queue_head == 0 {
            self.note_empty(slot);
        }
    }

    /// Drops all chunks of the slot's queue.
    pub(crate) fn clear(&mut self, slot: &mut Slot) {
        if slot.queue_head == 0 {
            return;
        }
        self.bytes -= u64::from(slot.queued);
        while slot.queue_head != 0 {
            let index = slot.queue_head;
            let node = &mut self.nodes[index as usize - 1];
            node.data = Bytes::new();
            slot.queue_head = node.next;
            self.release(index);
        }
        slot.queued = 0;
        self.note_empty(slot);
    }

    fn note_empty(&mut self, slot: &mut Slot) {
        slot.queue_tail = 0;
        slot.burst = 0;
        self.busy -= 1;
    }

    /// Keeps a node whose data has been taken for another chunk.
    #[inline]
    fn release(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize - 1];
        (node.next, node.flags) = (self.free, 0);
        self.free = index;
        self.in_use -= 1;
        if self.in_use == 0 {
            self.begin_again();
        }
    }

    /// All queues are empty. Room that the last burst did not need is given back.
    #[inline(never)]
    fn begin_again(&mut self) {
        let used = self.nodes.len().max(FEW_NODES);
        self.free = 0;
        self.nodes.clear();
        if self.nodes.capacity() > 4 * used {
            self.nodes.shrink_to(used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::StreamKind;

    const LIMIT: u32 = 64 * 1024;

    #[test]
    fn many_queues_share_the_memory_and_an_empty_one_always_takes_more() {
        let mut queues = Queues::default();
        let mut slots = vec![Slot::new(StreamKind::Exchange, 0, 0, 0); 1_000];
        let limit = u64::from(LIMIT);
        assert!(queues.has_room(limit - 1, LIMIT) && !queues.has_room(limit, LIMIT));
        for slot in &mut slots {
            for _ in 0..2 {
                queues.push(slot, Bytes::from_static(b"x"), 0);
            }
        }
        let share = |queues: u64| SHARED_BYTES / queues;
        assert!(queues.has_room(share(1_000), LIMIT) && !queues.has_room(share(1_000) + 1, LIMIT));
        let (first, rest) = slots.split_first_mut().unwrap();
        queues.take(first, Front { bytes: 2, flags: 0 }, |_| {});
        assert!(queues.has_room(share(999), LIMIT) && !queues.has_room(share(999) + 1, LIMIT));
        rest.iter_mut().for_each(|slot| queues.clear(slot));
        queues.clear(first);
        assert_eq!((queues.busy, queues.bytes), (0, 0));
        queues.busy = u32::MAX;
        assert!(queues.has_room(0, LIMIT) && !queues.has_room(1, LIMIT));
    }

    #[test]
    fn a_chunk_without_data_costs_what_a_frame_does() {
        let mut queues = Queues::default();
        let mut slot = Slot::new(StreamKind::Exchange, 0, 0, 0);
        assert_eq!(queues.charge(&slot), 0);
        for chunks in 1..=100 {
            queues.push(&mut slot, Bytes::new(), EOM);
            assert_eq!(queues.charge(&slot), chunks * u64::from(FRAME_CHARGE));
        }
        queues.push(&mut slot, Bytes::from_static(b"four"), 0);
        for chunks in (1..=100).rev() {
            queues.take(&mut slot, Front { bytes: 0, flags: EOM }, |_| {});
            assert_eq!(queues.charge(&slot), chunks * u64::from(FRAME_CHARGE) + 4);
        }
        queues.take(&mut slot, Front { bytes: 3, flags: 0 }, |_| {});
        assert_eq!(queues.charge(&slot), u64::from(FRAME_CHARGE) + 1);
        queues.clear(&mut slot);
        assert_eq!(queues.charge(&slot), 0);
    }

    #[test]
    fn bursts_alike_need_no_new_memory_and_small_ones_give_it_back() {
        let mut queues = Queues::default();
        let mut slot = Slot::new(StreamKind::Exchange, 0, 0, 0);
        let mut burst = |chunks: usize| {
            for _ in 0..chunks {
                queues.push(&mut slot, Bytes::from_static(b"x"), 0);
            }
            queues.clear(&mut slot);
            queues.nodes.capacity()
        };
        let capacity = burst(10_000);
        assert_eq!(burst(9_000), capacity);
        assert!(burst(10) <= FEW_NODES);
    }
}
