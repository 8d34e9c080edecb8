//! What has arrived on the streams and has not been read: the chunks of all inboxes, in one arena.

use std::collections::VecDeque;

use bytes::Bytes;
use cmgmux_exchange::parts::End;
use cmgmux_mux::{FRAME_CHARGE, PACKED_BYTES};

use crate::stream::Chunk;

/// What may arrive behind a packed chunk before it has to have been read: more than the driver reads
/// until the readers get their turn.
const PROMPT_CHARGE: u32 = 512 * 1024;
/// Nodes that are not worth giving back.
const FEW_NODES: usize = 64;

/// The unread chunks of one stream: a ring of nodes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Inbox {
    /// The last one, which leads to the first; 0 = none.
    tail: u32,
    charge: u32,
}

impl Inbox {
    /// What the chunks cost in credit.
    pub(crate) fn charge(&self) -> u32 {
        self.charge
    }
}

/// Chunks of every stream's inbox, linked by index; an empty inbox costs nothing.
///
/// The core packs small pieces into blocks, which live as long as a piece of them does. So a piece
/// whose reader sleeps is moved to memory of its own after a while, and keeps alive only itself.
#[derive(Debug, Default)]
pub(crate) struct Inboxes {
    nodes: Vec<Node>,
    /// First free node; 0 = none. Node `i` is stored at `i - 1`.
    free: u32,
    in_use: usize,
    /// Charge of all that arrived, modulo 2³².
    charge: u32,
    /// Packed chunks that arrived not long ago, oldest first, read or not: node and mark.
    packed: VecDeque<(u32, u32)>,
}

#[derive(Debug)]
struct Node {
    data: Bytes,
    next: u32,
    /// [`Inboxes::charge`] when the chunk arrived, which tells a node's chunks apart.
    mark: u32,
    end: End,
}

impl Inboxes {
    pub(crate) fn push(&mut self, inbox: &mut Inbox, data: Bytes, end: End) {
        let charge = charge(&data);
        inbox.charge += charge;
        self.charge = self.charge.wrapping_add(charge);
        let is_packed = data.len() < PACKED_BYTES && !data.is_empty();
        let node = Node { data, next: 0, mark: self.charge, end };
        self.in_use += 1;
        let index = if self.free == 0 {
            self.nodes.push(node);
            u32::try_from(self.nodes.len()).expect("chunks are bounded by the credit given")
        } else {
            let index = self.free;
            let place = self.node(index);
            let next = place.next;
            *place = node;
            self.free = next;
            index
        };
        let first = match inbox.tail {
            0 => index,
            tail => std::mem::replace(&mut self.node(tail).next, index),
        };
        self.node(index).next = first;
        inbox.tail = index;
        if is_packed {
            self.packed.push_back((index, self.charge));
        }
        self.unpack_old();
    }

    pub(crate) fn pop(&mut self, inbox: &mut Inbox) -> Option<Chunk> {
        if inbox.tail == 0 {
            return None;
        }
        let index = self.node(inbox.tail).next;
        let free = self.free;
        let node = self.node(index);
        let chunk = Chunk { data: std::mem::take(&mut node.data), end: node.end };
        inbox.charge -= charge(&chunk.data);
        let second = std::mem::replace(&mut node.next, free);
        self.free = index;
        if index == inbox.tail {
            inbox.tail = 0;
        } else {
            self.node(inbox.tail).next = second;
        }
        self.in_use -= 1;
        if self.in_use == 0 {
            self.begin_again();
        }
        Some(chunk)
    }

    /// Drops all chunks of the inbox.
    pub(crate) fn clear(&mut self, inbox: &mut Inbox) {
        while self.pop(inbox).is_some() {}
    }

    fn node(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize - 1]
    }

    /// Moves packed chunks that are still unread to memory of their own when it is time.
    fn unpack_old(&mut self) {
        while let Some(&(index, mark)) = self.packed.front()
            && self.charge.wrapping_sub(mark) >= PROMPT_CHARGE
        {
            self.packed.pop_front();
            let node = self.node(index);
            if node.mark == mark && !node.data.is_empty() {
                node.data = Bytes::copy_from_slice(&node.data);
            }
        }
    }

    /// Everything has been read. Room that the last burst did not need is given back.
    fn begin_again(&mut self) {
        let used = self.nodes.len().max(FEW_NODES);
        self.free = 0;
        self.nodes.clear();
        self.packed.clear();
        if self.nodes.capacity() > 4 * used {
            self.nodes.shrink_to(used);
            self.packed.shrink_to(used);
        }
    }
}

/// What a chunk of this data costs in credit.
fn charge(data: &Bytes) -> u32 {
    u32::try_from(data.len()).expect("a frame is short") + FRAME_CHARGE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(block: &Bytes) -> Bytes {
        block.slice(..300)
    }

    #[test]
    fn inboxes_keep_their_chunks_in_order_and_apart() {
        let mut inboxes = Inboxes::default();
        let mut inbox = [Inbox::default(); 3];
        for number in 0..30u8 {
            let end = if number < 27 { End::None } else { End::Stream };
            inboxes.push(&mut inbox[usize::from(number % 3)], Bytes::from(vec![number]), end);
        }
        assert_eq!(inbox[1].charge(), 10 * 33);
        inboxes.clear(&mut inbox[1]);
        assert_eq!(inbox[1].charge(), 0);
        for first in [0, 2] {
            for number in (first..30u8).step_by(3) {
                let chunk = inboxes.pop(&mut inbox[usize::from(first)]).unwrap();
                assert_eq!(chunk.data[..], [number]);
                assert_eq!(chunk.end == End::Stream, number >= 27);
            }
        }
        assert_eq!(inbox.map(|mut inbox| inboxes.pop(&mut inbox)), [None, None, None]);
        assert_eq!((inboxes.in_use, inboxes.nodes.len(), inboxes.packed.len()), (0, 0, 0));
    }

    #[test]
    fn a_sleeping_reader_keeps_no_block_alive() {
        let mut inboxes = Inboxes::default();
        let (mut asleep, mut awake) = (Inbox::default(), Inbox::default());
        let block = Bytes::from(vec![7; 4096]);
        inboxes.push(&mut asleep, packed(&block), End::Part);
        for _ in 0..PROMPT_CHARGE / 332 {
            assert!(!block.is_unique(), "a prompt reader's chunk is not copied");
            inboxes.push(&mut awake, Bytes::from_static(&[1; 300]), End::None);
            inboxes.pop(&mut awake);
        }
        inboxes.push(&mut awake, Bytes::from_static(&[1; 300]), End::None);
        assert!(block.is_unique(), "the sleeping reader's chunk was copied");
        let chunk = inboxes.pop(&mut asleep).unwrap();
        assert_eq!((&chunk.data[..], chunk.end), (&[7; 300][..], End::Part));
    }

    #[test]
    fn bursts_alike_need_no_new_memory_and_small_ones_give_it_back() {
        let mut inboxes = Inboxes::default();
        let mut inbox = Inbox::default();
        let mut burst = |chunks: usize| {
            for _ in 0..chunks {
                inboxes.push(&mut inbox, Bytes::from_static(b"x"), End::None);
            }
            inboxes.clear(&mut inbox);
            inboxes.nodes.capacity()
        };
        let capacity = burst(10_000);
        assert_eq!(burst(9_000), capacity);
        assert!(burst(10) <= FEW_NODES);
    }
}
