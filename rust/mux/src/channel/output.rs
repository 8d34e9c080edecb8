//! What the channel has to write, batch by batch.

use bytes::BytesMut;
use tracing::trace;

use super::{Application, Channel, Pending, Token, table};
use crate::credit::{self, Terms};
use crate::frame::{Control, FIN, FRAME_CHARGE, HEADER_BYTES, Header, MAX_BODY, StreamId, kind};
use crate::queue::Front;
use crate::replay::Ring;
use crate::scheduler::{Class, QUANTUM};
use crate::stream::{Flags, RxState, Slot, TxState};
use crate::time::Timestamp;

/// A stream with more than this to send waits for that much credit instead of sending crumbs.
const MIN_SEND: usize = 1024;
/// Ring bytes beyond its cap that frames without data may use.
const CONTROL_RESERVE: u64 = 256 * 1024;
/// Bytes beyond what the link holds that small messages may have in flight.
const SMALL_RESERVE: u64 = 64 * 1024;
/// Longest frame without data, header included.
const CONTROL_BYTES: usize = 32;

impl Channel {
    /// Prepares the next batch of at most 16 KiB: everything that fits of what is due, small
    /// messages never together with bulk. Returns `false` when nothing is to be written.
    ///
    /// After `true`, write all of [`output`](Self::output) and say so with
    /// [`handle_written`](Self::handle_written) before asking again.
    pub fn poll_output(&mut self, now: Timestamp, app: &mut impl Application) -> bool {
        debug_assert!(self.untracked.is_empty());
        if self.ring.is_closed() {
            return false;
        }
        if let Some((code, text)) = self.close.take() {
            let close = Control::Close { code: code.0, text };
            close.encode(StreamId::CHANNEL, &mut self.untracked);
            self.ring.close();
            return true;
        }
        if !self.links.is_attached() {
            return false;
        }
        if let Some(id) = self.pong.take() {
            let pong = Control::Pong { id, rx_pos: self.rx_pos };
            pong.encode(StreamId::CHANNEL, &mut self.untracked);
        }
        if let Some(id) = self.ping.take() {
            Control::Ping { id }.encode(StreamId::CHANNEL, &mut self.untracked);
        }
        // After a move to a new link, first what the old one did not deliver.
        if !self.ring.has_unwritten() {
            let before = self.ring.encoded();
            self.encode_tracked(now, app);
            if self.ring.encoded() > before {
                self.ring.close_batch();
            }
        }
        let has_tracked = self.ring.has_unwritten();
        if !has_tracked && self.ring.bytes() < self.flight.cap() {
            self.flight.handle_dry();
        }
        self.encode_ack(now, has_tracked || !self.untracked.is_empty());
        has_tracked || !self.untracked.is_empty()
    }

    /// Plaintext to be written ahead of the kernel, in bytes: about what the link takes in 2 ms. What has
    /// been written cannot be overtaken any more by a small message.
    #[must_use]
    pub fn encode_ahead(&self) -> usize {
        self.flight.encode_ahead()
    }

    /// The batch to be written, in order.
    pub fn output(&self) -> impl Iterator<Item = &[u8]> {
        let untracked = (!self.untracked.is_empty()).then_some(&self.untracked[..]);
        untracked.into_iter().chain(self.ring.unwritten())
    }

    /// All of [`output`](Self::output) has been handed to the link.
    pub fn handle_written(&mut self, now: Timestamp) {
        self.counters.batches_sent += 1;
        self.counters.bytes_sent += self.output().map(|piece| piece.len() as u64).sum::<u64>();
        self.untracked.clear();
        self.ring.mark_written();
        if self.ring.sent() > self.ring.acked() {
            self.liveness.handle_sent(now);
            self.flight.handle_sent(now, self.ring.sent());
        }
    }

    /// An acknowledgement goes out when it is due, and with any batch that is.
    fn encode_ack(&mut self, now: Timestamp, in_company: bool) {
        let Some(due) = self.ack_due else { return };
        if !in_company && now < due {
            return;
        }
        self.ack_due = None;
        self.rx_acked = self.rx_pos;
        let delay_us = u32::try_from(now.since(self.rx_at).as_micros()).unwrap_or(u32::MAX);
        let ack = Control::Ack { rx_pos: self.rx_pos, delay_us };
        ack.encode(StreamId::CHANNEL, &mut self.untracked);
    }

    fn encode_tracked(&mut self, now: Timestamp, app: &mut impl Application) {
        // An acknowledgement may join the batch and must fit into its record.
        let mut room = QUANTUM - self.untracked.len() - CONTROL_BYTES;
        if self.ring.bytes() < self.config.ring_bytes + CONTROL_RESERVE {
            self.encode_channel_frames(&mut room);
            self.encode_pending(now, &mut room, app);
        }
        self.encode_turn(room, app);
    }

    /// Encodes data of one class into a batch that has `room` left.
    fn encode_turn(&mut self, mut room: usize, app: &mut impl Application) {
        let whole = room;
        while room == whole {
            let Some(class) = self.scheduler.turn().filter(|class| self.may_fly(*class)) else {
                return;
            };
            if class == Class::Bulk && room < QUANTUM - CONTROL_BYTES {
                return; // small frames are in the batch already
            }
            if self.encode_class(class, &mut room, app) {
                return;
            }
        }
    }

    /// Whether more of `class` may be in flight. Small messages have a reserve, so that they need not
    /// wait for an acknowledgement when bulk has filled the link.
    fn may_fly(&self, class: Class) -> bool {
        let reserve = if class == Class::Small { SMALL_RESERVE } else { 0 };
        let cap = (self.flight.cap() + reserve).min(self.config.ring_bytes);
        self.ring.bytes() < cap
    }

    /// Encodes data of as many small streams as fit, or of one bulk stream. Says whether the next stream
    /// needs more room than is left.
    fn encode_class(&mut self, class: Class, room: &mut usize, app: &mut impl Application) -> bool {
        let (whole, mut is_full) = (*room, false);
        while *room >= CONTROL_BYTES && self.may_fly(class) {
            let Some(ready) = self.next_ready(class) else {
                break;
            };
            let before = *room;
            if self.encode_stream(ready.id, room, app) {
                self.return_ready(ready, before - *room);
                is_full = true;
                break;
            }
            if class == Class::Bulk && *room < before {
                break;
            }
        }
        self.scheduler.served(class, whole - *room);
        is_full
    }

    #[inline]
    fn encode_channel_frames(&mut self, room: &mut usize) {
        let allowed = self.completed + u64::from(self.config.local.max_streams);
        let fresh = allowed - self.granted_opens;
        let exhausted = self.accepted == self.granted_opens;
        if fresh >= u64::from(self.config.local.max_streams / 8).max(1) || exhausted && fresh > 0 {
            self.granted_opens = allowed;
            self.encode_control(&Control::Tickets { max_opens: allowed }, StreamId::CHANNEL, room);
        }
        if let Some((code, grace)) = self.go_away.take() {
            self.encode_go_away(code, grace, room);
        }
    }

    pub(super) fn encode_control(&mut self, control: &Control, stream: StreamId, room: &mut usize) {
        trace!(?control, %stream, "encoding frame");
        self.ring.frame(|out: &mut BytesMut| {
            let before = out.len();
            control.encode(stream, out);
            *room = room.saturating_sub(out.len() - before);
        });
    }

    fn encode_pending(&mut self, now: Timestamp, room: &mut usize, app: &mut impl Application) {
        let may_grow = self.unread.bytes < self.config.budget_bytes / 4;
        let terms = Terms {
            now,
            rtt: self.liveness.rtt(),
            initial_window: self.config.local.window_bytes,
            max_window: if may_grow { self.config.max_window_bytes } else { 0 },
        };
        while *room >= 2 * CONTROL_BYTES {
            let Some((id, pending)) = self.pending.pop_front() else {
                return;
            };
            let Some(slot) = table(&mut self.ours, &mut self.theirs, id).get_mut(id) else {
                continue;
            };
            if slot.flags.has(Flags::UNOPENED) {
                self.encoded_opens += 1;
                *room -= encode_open(&mut self.ring, id, slot, Front::default());
            }
            let control = match pending {
                Pending::Credit => {
                    slot.flags.take(Flags::CREDIT_DUE);
                    if slot.rx != RxState::Open {
                        continue;
                    }
                    let Some(max) = credit::grant(slot, &terms) else { continue };
                    Control::Credit { max }
                }
                Pending::Stop(_) if slot.rx != RxState::Stopped => continue,
                Pending::Stop(code) => Control::Stop { code: code.0 },
                Pending::Reset(code) => {
                    slot.tx = TxState::Sent;
                    Control::Reset { code: code.0, offset: slot.tx_off }
                }
            };
            self.encode_control(&control, id, room);
            self.retire_if_over(id, app);
        }
    }

    /// Encodes what the stream may send in one turn of at most `room` bytes; says whether more
    /// could go at once.
    fn encode_stream(
        &mut self,
        id: StreamId,
        room: &mut usize,
        app: &mut impl Application,
    ) -> bool {
        loop {
            let slot = table(&mut self.ours, &mut self.theirs, id).get_mut(id);
            let Some(slot) = slot else { return false };
            let opening = slot.flags.has(Flags::UNOPENED);
            let overhead = HEADER_BYTES + if opening { 4 } else { 0 };
            if *room < overhead + (slot.queued as usize).min(MIN_SEND) {
                return opening || slot.queue_head != 0;
            }
            let credit = usize::try_from(slot.tx_max - slot.tx_off).unwrap_or(usize::MAX);
            let wanted = FRAME_CHARGE as usize + (slot.queued as usize).min(MIN_SEND);
            let may_send = slot.queue_head != 0 && credit >= wanted;
            if !may_send {
                if opening {
                    self.encoded_opens += 1;
                    *room -= encode_open(&mut self.ring, id, slot, Front::default());
                }
                self.retire_if_over(id, app);
                return false;
            }
            let body = MAX_BODY + HEADER_BYTES - overhead;
            let limit = body.min(*room - overhead).min(credit - FRAME_CHARGE as usize);
            let front = self.queues.front(slot, limit);
            slot.tx_off += u64::from(credit::charge(front.bytes));
            if front.flags & FIN != 0 {
                slot.tx = TxState::Sent;
            }
            *room -= if opening {
                self.encoded_opens += 1;
                encode_open(&mut self.ring, id, slot, front)
            } else {
                encode_header(&mut self.ring, kind::DATA, id, front.bytes, front.flags)
            };
            self.queues.take(slot, front, |piece| self.ring.payload(piece));
            if slot.flags.has(Flags::WANTS_ROOM)
                && slot.tx == TxState::Open
                && self.queues.has_room(2 * self.queues.charge(slot), self.config.queue_bytes)
            {
                slot.flags.take(Flags::WANTS_ROOM);
                app.writable(Token(slot.token));
            }
            if slot.is_over() {
                self.retire(id, app);
                return false;
            }
            if slot.queue_head == 0 {
                return false;
            }
        }
    }
}

/// Encodes OPEN up to its data and returns the bytes of the whole frame.
fn encode_open(ring: &mut Ring, id: StreamId, slot: &mut Slot, front: Front) -> usize {
    slot.flags.take(Flags::UNOPENED);
    let frame_bytes = encode_header(ring, kind::OPEN, id, front.bytes + 4, front.flags);
    ring.copy(&[slot.kind().to_wire(), 0, 0, 0]);
    frame_bytes
}

/// Encodes a header and returns the bytes of the whole frame.
#[inline]
fn encode_header(ring: &mut Ring, kind: u8, stream: StreamId, body: usize, flags: u8) -> usize {
    let length = u32::try_from(body).expect("a frame is short");
    let header = Header { length, kind, flags, stream };
    ring.header(&header);
    header.frame_bytes()
}
