//! The streams that one initiator opened: pages of slots, found by index, never by hash.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::frame::StreamId;
use crate::stream::{Flags, Slot};

const PAGE: usize = 256;
/// Bit of a generation entry: the index has had a stream.
const USED: u16 = 0x100;

/// Slots in pages of 256; a page is freed when its last stream ends, but for one that is kept for the
/// next stream.
///
/// Generations outlive their page, at two bytes an index, so that an index never means the same
/// stream twice in a row.
#[derive(Debug, Hash)]
pub(crate) struct Table {
    initiator: u32,
    pages: Vec<Option<Page>>,
    /// By index: the generation that its next stream will have, and [`USED`].
    generations: Vec<u16>,
    /// Indexes that were used and are free again.
    free: Vec<u32>,
    /// Slots of an empty page.
    spare: Option<Box<[Slot]>>,
    live: u32,
}

struct Page {
    slots: Box<[Slot]>,
    live: u16,
}

/// Shows live slots alone: the others hold nothing.
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.slots.iter().enumerate();
        f.debug_map().entries(slots.filter(|(_, slot)| slot.flags.has(Flags::LIVE))).finish()
    }
}

impl Hash for Page {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let slots = self.slots.iter().enumerate();
        slots.filter(|(_, slot)| slot.flags.has(Flags::LIVE)).for_each(|slot| slot.hash(state));
    }
}

/// What an id that names no live stream may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Dead {
    /// A stream that once was.
    Past,
    /// Never opened.
    Unknown,
}

impl Table {
    pub(crate) fn new(initiator: u32) -> Self {
        // Index 0 is never used.
        Self {
            initiator,
            pages: Vec::new(),
            generations: vec![0],
            free: Vec::new(),
            spare: None,
            live: 0,
        }
    }

    pub(crate) fn initiator(&self) -> u32 {
        self.initiator
    }

    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// The id that [`insert`](Self::insert) will accept next when we are the opener; the caller
    /// bounds the number of live streams, and with it the indexes.
    pub(crate) fn next_id(&self) -> StreamId {
        let index = self.free.last().copied().unwrap_or_else(|| index_of(self.generations.len()));
        let entry = self.generations.get(index as usize).copied().unwrap_or(0);
        StreamId::new(self.initiator, generation_of(entry), index)
    }

    /// Takes the slot of `id`, which [`next_id`](Self::next_id) just named.
    pub(crate) fn insert_next(&mut self, id: StreamId, slot: Slot) -> &mut Slot {
        debug_assert_eq!(id, self.next_id());
        if self.free.pop().is_none() {
            self.generations.push(0);
        }
        self.occupy(id, slot)
    }

    /// Takes the slot that the peer chose. Refuses an index beyond `limit` or in use, and a
    /// generation that is not the index's next.
    pub(crate) fn insert_chosen(
        &mut self,
        id: StreamId,
        slot: Slot,
        limit: u32,
    ) -> Result<&mut Slot, &'static str> {
        let index = id.index() as usize;
        if index == 0 || index > limit as usize {
            return Err("index out of range");
        }
        if self.slot(id.index()).is_some_and(|slot| slot.flags.has(Flags::LIVE)) {
            return Err("index is in use");
        }
        let entry = self.generations.get(index).copied().unwrap_or(0);
        if generation_of(entry) != id.generation() {
            return Err("generation is not the next one of its index");
        }
        if index >= self.generations.len() {
            self.generations.resize(index + 1, 0);
        }
        Ok(self.occupy(id, slot))
    }

    fn occupy(&mut self, id: StreamId, slot: Slot) -> &mut Slot {
        let (page, offset) = place(id.index());
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| {
            let spare = self.spare.take();
            let slots = spare.unwrap_or_else(|| vec![Slot::EMPTY; PAGE].into_boxed_slice());
            Page { slots, live: 0 }
        });
        page.live += 1;
        self.live += 1;
        self.generations[id.index() as usize] = USED | u16::from(id.generation().wrapping_add(1));
        page.slots[offset] = slot;
        &mut page.slots[offset]
    }

    /// Frees the slot of a live stream. `reusable` puts its index up for our own next open.
    pub(crate) fn remove(&mut self, id: StreamId, reusable: bool) {
        let (page_index, offset) = place(id.index());
        let Some(page) = self.pages.get_mut(page_index).and_then(Option::as_mut) else {
            return;
        };
        page.slots[offset] = Slot::EMPTY;
        page.live -= 1;
        self.live -= 1;
        if page.live == 0 {
            self.spare = self.pages[page_index].take().map(|page| page.slots);
        }
        if reusable {
            self.free.push(id.index());
        }
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        let (page, offset) = place(index);
        self.pages.get(page)?.as_ref().map(|page| &page.slots[offset])
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Slot> {
        let (page, offset) = place(id.index());
        let slot = &mut self.pages.get_mut(page)?.as_mut()?.slots[offset];
        (slot.flags.has(Flags::LIVE) && slot.generation == id.generation()).then_some(slot)
    }

    /// What kind of dead id `id` is, given that it names no live stream.
    pub(crate) fn dead(&self, id: StreamId) -> Dead {
        let entry = self.generations.get(id.index() as usize).copied().unwrap_or(0);
        // Generations count modulo 256: those in the half behind the next one are past.
        let behind = generation_of(entry).wrapping_sub(id.generation());
        if entry & USED != 0 && (1..=128).contains(&behind) { Dead::Past } else { Dead::Unknown }
    }
}

fn place(index: u32) -> (usize, usize) {
    (index as usize / PAGE, index as usize % PAGE)
}

fn generation_of(entry: u16) -> u8 {
    (entry & 0xff) as u8
}

fn index_of(length: usize) -> u32 {
    u32::try_from(length).expect("indexes are bounded by the stream limit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::StreamKind;

    #[test]
    fn a_refused_id_takes_no_memory() {
        let mut table = Table::new(1);
        let slot = Slot::new(StreamKind::Exchange, 3, 0, 0);
        assert!(table.insert_chosen(StreamId::new(1, 3, 60_000), slot.clone(), 65_536).is_err());
        assert_eq!((table.generations.len(), table.pages.len()), (1, 0));
        assert!(table.insert_chosen(StreamId::new(1, 0, 60_000), slot, 65_536).is_ok());
    }
}
