//! Memory for small pieces of bytes: packed into blocks that are used again.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Received payloads below this size are packed: they share blocks of 4 KiB, which live as long as
/// any of their payloads does.
pub const PACKED_BYTES: usize = 1024;

/// Blocks of `BYTES` that may be in use, of which up to `KEPT` are used again.
#[derive(Debug, Default, Hash)]
pub(crate) struct Blocks<const BYTES: usize, const KEPT: usize> {
    /// The block being filled, with what it holds that has not been split off.
    open: Option<BytesMut>,
    /// Those that have been filled, oldest first.
    full: VecDeque<BytesMut>,
}

/// Blocks for received payloads: more than an application with prompt readers has in use.
pub(crate) type Payloads = Blocks<{ 4 * PACKED_BYTES }, 128>;

impl<const BYTES: usize, const KEPT: usize> Blocks<BYTES, KEPT> {
    /// A copy of `payload`, which is not longer than a block.
    #[inline]
    pub(crate) fn copy(&mut self, payload: &[u8]) -> Bytes {
        if self.room() < payload.len() {
            self.begin_block();
        }
        let block = self.open();
        block.extend_from_slice(payload);
        block.split().freeze()
    }

    /// Bytes that the block being filled still takes.
    pub(crate) fn room(&self) -> usize {
        self.open.as_ref().map_or(0, |block| block.capacity() - block.len())
    }

    /// The block being filled, with what it holds that has not been split off.
    pub(crate) fn open(&mut self) -> &mut BytesMut {
        self.open.get_or_insert_with(|| BytesMut::with_capacity(BYTES))
    }

    /// Begins to fill the oldest block if nothing of it is in use any more, otherwise a new one.
    #[cold]
    pub(crate) fn begin_block(&mut self) {
        self.full.extend(self.open.take());
        let is_free = self.full.front_mut().is_some_and(|oldest| oldest.try_reclaim(BYTES));
        let is_many = self.full.len() == KEPT;
        let oldest = if is_free || is_many { self.full.pop_front() } else { None };
        self.open = oldest.filter(|_| is_free);
        self.open();
    }

    /// Gives back what is not in use.
    pub(crate) fn shrink(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_packed_and_their_blocks_used_again() {
        let mut blocks = Payloads::default();
        let mut in_use = VecDeque::new();
        let mut places = Vec::new();
        for number in 0..10_000usize {
            let payload = vec![u8::try_from(number % 251).unwrap(); 300];
            in_use.push_back((blocks.copy(&payload), payload));
            if in_use.len() > 800 {
                let (copy, payload) = in_use.pop_front().unwrap();
                assert_eq!(copy, payload);
            }
            places.push(in_use.back().map_or(0, |(copy, _)| copy.as_ptr() as usize / 4096));
        }
        places.sort_unstable();
        places.dedup();
        // 801 payloads, 13 a block, at any place of the heap.
        assert!(places.len() <= 2 * 70, "{} blocks were allocated", places.len());
        assert!(blocks.full.len() < 70);
    }

    #[test]
    fn payloads_that_stay_do_not_make_the_pool_grow() {
        let mut blocks = Payloads::default();
        let held: Vec<Bytes> = (0..10_000).map(|_| blocks.copy(&[7; 300])).collect();
        assert_eq!(blocks.full.len(), 127);
        assert!(held.iter().all(|payload| payload[..] == [7; 300]));
    }
}
