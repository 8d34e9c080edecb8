//! The send queues of all streams: chunks waiting to be encoded, in one arena.

use bytes::{Buf, Bytes};

use crate::frame::{EOM, FIN};
use crate::stream::Slot;

/// Chunks of every stream's send queue, linked by index; an empty queue costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    nodes: Vec<Node>,
    /// First free node; 0 = none. Node `i` is stored at `i - 1`.
    free: u32,
    in_use: u32,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Node {
    data: Bytes,
    next: u32,
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

    /// Appends a chunk to the slot's queue.
    pub(crate) fn push(&mut self, slot: &mut Slot, data: Bytes, flags: u8) {
        let length = u32::try_from(data.len()).expect("the caller bounds a chunk");
        slot.queued += length;
        slot.burst = slot.burst.saturating_add(length);
        self.bytes += u64::from(length);
        self.in_use += 1;
        let node = Node { data, next: 0, flags };
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
            0 => slot.queue_head = index,
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
            slot.queue_tail = 0;
            slot.burst = 0;
        }
    }

    /// Drops all chunks of the slot's queue.
    pub(crate) fn clear(&mut self, slot: &mut Slot) {
        self.bytes -= u64::from(slot.queued);
        while slot.queue_head != 0 {
            let index = slot.queue_head;
            slot.queue_head = self.nodes[index as usize - 1].next;
            self.release(index);
        }
        slot.queue_tail = 0;
        slot.queued = 0;
        slot.burst = 0;
    }

    fn release(&mut self, index: u32) {
        self.in_use -= 1;
        if self.in_use == 0 {
            self.free = 0;
            self.nodes.clear();
            // An idle channel keeps room for a handful of chunks only.
            self.nodes.shrink_to(64);
            return;
        }
        self.nodes[index as usize - 1] = Node { next: self.free, ..Node::default() };
        self.free = index;
    }
}
