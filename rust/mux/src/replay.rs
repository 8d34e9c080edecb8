//! The ring: output queue and retransmission store in one.
//!
//! Tracked frames are encoded into it once, written to the link straight from it, and freed by the
//! peer's cumulative position. A position counts the bytes of all tracked frames since the channel
//! began; it is never sent with a frame. When the channel moves to another link, the ring goes back
//! to the position that the peer names and is written again from there, batch by batch as before.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::blocks::Blocks;
use crate::frame::{HEADER_BYTES, Header, StreamId, kind};
use crate::stream::Side;

/// Size of a block for headers and small payloads.
const BLOCK: usize = 64 * 1024;
/// Blocks kept to be used again, while there is traffic: 1 MiB.
const MAX_KEPT: usize = 16;
/// Payloads from this size on are shared instead of copied.
const SHARE_BYTES: usize = 1024;

/// Encoded tracked frames from the oldest unacknowledged one on.
#[derive(Debug, Default, Hash)]
pub(crate) struct Ring {
    segments: VecDeque<Segment>,
    /// Segments at the front that have been written to the link.
    written: usize,
    /// The one being filled holds the bytes encoded since the last segment.
    blocks: Blocks<BLOCK, MAX_KEPT>,
    /// What the peer says it has, and how much of that has been written to the present link.
    claimed: u64,
    acked: u64,
    sent: u64,
    encoded: u64,
    /// Nothing more is written, whatever is left.
    is_closed: bool,
}

#[derive(Debug, Hash)]
struct Segment {
    bytes: Bytes,
    /// Position behind its last byte.
    end: u64,
    /// The last one of a batch, behind which other frames may go.
    ends_batch: bool,
}

impl Ring {
    /// Position up to which the bytes are gone: the peer has acknowledged them.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// Position that the peer says it has; more than [`acked`](Self::acked) while a new link brings
    /// it what it has from an earlier one.
    pub(crate) fn claimed(&self) -> u64 {
        self.claimed
    }

    /// Position behind the last byte encoded.
    pub(crate) fn encoded(&self) -> u64 {
        self.encoded
    }

    /// Position written to the present link.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes held: encoded and not acknowledged.
    pub(crate) fn bytes(&self) -> u64 {
        self.encoded - self.acked
    }

    /// The streams of the OPENs held, in order; `None` if what is held does not begin with a frame of this
    /// side, because the peer has acknowledged a part of one. Takes a look at every frame held.
    pub(crate) fn opens(&self, side: Side) -> Option<Vec<StreamId>> {
        let mut opens = Vec::new();
        let mut next = self.acked;
        for Segment { bytes, end, .. } in &self.segments {
            // A header never lies in two segments.
            while next < *end {
                let held = usize::try_from(*end - next).expect("a segment is in memory");
                let header = Header::decode(&bytes[bytes.len() - held..]).ok().flatten()?;
                if header.kind == kind::OPEN {
                    if header.stream.initiator() != side.initiator() {
                        return None;
                    }
                    opens.push(header.stream);
                }
                next += header.frame_bytes() as u64;
            }
        }
        (next == self.encoded).then_some(opens)
    }

    /// Begins a frame; exactly `header.length` bytes of payload must follow.
    pub(crate) fn header(&mut self, header: &Header) {
        if (header.length as usize) < SHARE_BYTES {
            self.reserve(header.frame_bytes());
        }
        self.copy(&header.encode());
        self.encoded += header.frame_bytes() as u64;
    }

    /// Appends payload of the frame begun last; shares it if it is large.
    #[inline]
    pub(crate) fn payload(&mut self, data: Bytes) {
        if data.len() < SHARE_BYTES {
            self.copy(&data);
        } else {
            let end = self.seal() + data.len() as u64;
            self.segments.push_back(Segment { bytes: data, end, ends_batch: false });
        }
    }

    /// Appends a whole frame that `encode` writes.
    pub(crate) fn frame(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        self.reserve(HEADER_BYTES + 64);
        let open = self.blocks.open();
        let before = open.len();
        encode(open);
        self.encoded += (open.len() - before) as u64;
    }

    /// Appends a copy of a piece of the frame begun last.
    #[inline]
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.blocks.open().put_slice(bytes);
    }

    #[inline]
    fn reserve(&mut self, room: usize) {
        if self.blocks.room() < room {
            self.begin_block();
        }
    }

    #[cold]
    fn begin_block(&mut self) {
        self.seal();
        self.blocks.begin_block();
    }

    /// Turns the open bytes into a segment and returns the position behind the last segment.
    fn seal(&mut self) -> u64 {
        let last = self.segments.back().map_or(self.acked, |segment| segment.end);
        let open = self.blocks.open();
        if open.is_empty() {
            return last;
        }
        let bytes = open.split().freeze();
        let end = last + bytes.len() as u64;
        self.segments.push_back(Segment { bytes, end, ends_batch: false });
        end
    }

    /// Closes the batch: what was encoded may be written now.
    pub(crate) fn close_batch(&mut self) {
        let end = self.seal();
        debug_assert_eq!(end, self.encoded, "a frame's payload is as long as its header says");
        if let Some(last) = self.segments.back_mut() {
            last.ends_batch = true;
        }
    }

    /// Whether something has been encoded and not written to the present link.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.written < self.segments.len()
    }

    /// The first batch that has not been written, in order.
    pub(crate) fn unwritten(&self) -> impl Iterator<Item = &[u8]> {
        let batch = self.segments.range(self.written..self.batch_end());
        batch.map(|segment| &segment.bytes[..])
    }

    /// Notes that all of [`unwritten`](Self::unwritten) has been written.
    pub(crate) fn mark_written(&mut self) {
        self.written = self.batch_end();
        if let Some(last) = self.written.checked_sub(1) {
            self.sent = self.segments[last].end;
        }
        self.trim();
    }

    /// From here on there is nothing to write, not even what a rewind has brought back.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether nothing more is written.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Number of segments up to the end of the first unwritten batch.
    fn batch_end(&self) -> usize {
        if self.is_closed {
            return self.written;
        }
        let mut unwritten = self.segments.range(self.written..);
        let length = unwritten.position(|segment| segment.ends_batch).map_or(0, |last| last + 1);
        self.written + length
    }

    /// Takes note that the peer has everything up to `position`, a frame boundary at or below what
    /// was encoded. Says whether that freed something.
    ///
    /// Beyond what was written to the present link the bytes stay: the peer, who has them from an
    /// earlier link, skips them on this one by counting.
    pub(crate) fn acknowledge(&mut self, position: u64) -> bool {
        debug_assert!((self.claimed..=self.encoded).contains(&position));
        self.claimed = position;
        self.trim()
    }

    /// Goes back to `position`, a frame boundary from which the peer needs everything again on a
    /// new link. What lies before it is freed.
    pub(crate) fn rewind(&mut self, position: u64) {
        debug_assert!((self.acked..=self.encoded).contains(&position));
        self.sent = position;
        self.claimed = self.claimed.max(position);
        self.acked = position;
        self.written = 0;
        while self.segments.front().is_some_and(|segment| segment.end <= position) {
            self.segments.pop_front();
        }
        if let Some(front) = self.segments.front_mut() {
            let excess = front.bytes.len() as u64 - (front.end - position);
            front.bytes.advance(usize::try_from(excess).expect("a segment is in memory"));
        }
    }

    fn trim(&mut self) -> bool {
        let position = self.claimed.min(self.sent);
        let moved = position > self.acked;
        self.acked = position;
        while self.written > 0
            && self.segments.front().is_some_and(|segment| segment.end <= position)
        {
            self.segments.pop_front();
            self.written -= 1;
        }
        moved
    }

    /// Gives back the memory of an empty ring.
    pub(crate) fn shrink(&mut self) {
        if self.bytes() == 0 {
            self.segments = VecDeque::new();
            self.blocks.shrink();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(ring: &mut Ring, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap();
        ring.header(&Header { length, kind: kind::DATA, flags: 0, stream: StreamId::from_wire(1) });
        ring.payload(Bytes::copy_from_slice(payload));
    }

    fn written(ring: &mut Ring) -> Vec<u8> {
        ring.close_batch();
        let bytes = ring.unwritten().flatten().copied().collect();
        ring.mark_written();
        bytes
    }

    #[test]
    fn small_payloads_share_a_segment_and_large_ones_are_not_copied() {
        let mut ring = Ring::default();
        let large = Bytes::from(vec![7; SHARE_BYTES]);
        push(&mut ring, b"a");
        push(&mut ring, b"b");
        let length = u32::try_from(large.len()).unwrap();
        let stream = StreamId::from_wire(1);
        ring.header(&Header { length, kind: kind::DATA, flags: 0, stream });
        ring.payload(large.clone());
        ring.close_batch();
        let segments: Vec<&[u8]> = ring.unwritten().collect();
        assert_eq!(segments.len(), 2);
        assert_eq!(segments[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn an_acknowledgement_inside_a_segment_keeps_the_segment() {
        let mut ring = Ring::default();
        push(&mut ring, b"one");
        push(&mut ring, b"two");
        assert_eq!(written(&mut ring).len(), 22);
        assert!(ring.acknowledge(11));
        assert_eq!(ring.bytes(), 11);
        assert!(!ring.acknowledge(11));
        push(&mut ring, b"three");
        assert_eq!(&written(&mut ring)[8..], b"three");
        assert!(ring.acknowledge(35));
        assert_eq!((ring.bytes(), ring.segments.len(), ring.written), (0, 0, 0));
    }

    #[test]
    fn an_empty_ring_gives_its_memory_back_and_another_keeps_it() {
        let mut ring = Ring::default();
        push(&mut ring, b"one");
        written(&mut ring);
        ring.shrink();
        assert!(ring.segments.capacity() > 0 && ring.blocks.room() > 0);
        ring.acknowledge(11);
        ring.shrink();
        assert_eq!((ring.segments.capacity(), ring.blocks.room()), (0, 0));
    }

    #[test]
    fn a_steady_trickle_reuses_its_block() {
        let mut ring = Ring::default();
        push(&mut ring, &[0; 300]);
        written(&mut ring);
        let block = ring.blocks.open().as_ptr() as usize;
        for _ in 0..2_000 {
            ring.acknowledge(ring.sent());
            push(&mut ring, &[0; 300]);
            written(&mut ring);
            let now = ring.blocks.open().as_ptr() as usize;
            assert!(now.abs_diff(block) <= BLOCK, "a second block was allocated");
        }
    }
}
