//! Received bytes and the passing of time.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tracing::{debug, trace};

use super::unread::Unread;
use super::{Application, Channel, End, Expiry, Pending, Token, table};
use crate::blocks::{PACKED_BYTES, Payloads};
use crate::churn::Weight;
use crate::credit;
use crate::error::{CloseCode, ProtocolError, StreamCode};
use crate::frame::{
    Control, EOM, FIN, HEADER_BYTES, Header, IGNORABLE, StreamId, StreamKind, kind,
};
use crate::liveness::Verdict;
use crate::stream::{Flags, RxState, Slot, TxState};
use crate::table::Dead;
use crate::time::Timestamp;

/// Payloads from this size on are handed over as part of the input buffer, smaller ones copied, so
/// that a small payload never keeps a large buffer alive. The smallest are packed.
const SHARE_BYTES: usize = 8 * 1024;
/// Bytes of an OPEN before its data.
const OPEN_PREFIX: usize = 4;

impl Channel {
    /// Applies the whole frames at the front of `input` and removes them from it. The rest, a
    /// partial frame, stays and belongs to the link: it is dropped when the link dies.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol. The refused frame has changed nothing; the channel is to be
    /// [closed](Self::close) with the error's code.
    pub fn handle_input(
        &mut self,
        now: Timestamp,
        input: &mut BytesMut,
        app: &mut impl Application,
    ) -> Result<(), ProtocolError> {
        self.liveness.handle_heard(now);
        let received = input.len();
        while let Some(header) = Header::decode(input)? {
            let frame_bytes = header.frame_bytes();
            if input.len() < frame_bytes {
                break;
            }
            trace!(?header, "received frame");
            let left = input.len() - frame_bytes;
            if self.links.skip > 0 && kind::is_tracked(header.kind) {
                self.skip(&header)?;
                input.advance(frame_bytes);
                continue;
            }
            match header.kind {
                kind::DATA => self.handle_data(now, &header, input, app)?,
                kind::OPEN => self.handle_open(now, &header, input, app)?,
                _ => self.handle_control(now, &header, input, app)?,
            }
            input.advance(input.len() - left);
            self.counters.frames_received += 1;
            self.counters.bytes_received += frame_bytes as u64;
            if kind::is_tracked(header.kind) {
                self.handle_tracked(now, frame_bytes as u64);
            }
        }
        let (none, partial) = (input.len() == received, !input.is_empty());
        self.liveness.handle_frames(now, none, partial);
        Ok(())
    }

    /// Passes over a frame that was applied when it came over an earlier link.
    fn skip(&mut self, header: &Header) -> Result<(), ProtocolError> {
        let frame_bytes = header.frame_bytes() as u64;
        let Some(left) = self.links.skip.checked_sub(frame_bytes) else {
            let excess_bytes = frame_bytes - self.links.skip;
            let frame = kind::name(header.kind);
            return Err(ProtocolError::ReplayBoundary { frame, excess_bytes });
        };
        self.links.skip = left;
        Ok(())
    }

    /// Lets the time pass to `now`, and says if it has run out.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Timestamp) -> Option<Expiry> {
        if let Some(until) = self.links.detached_until {
            return (now >= until).then_some(Expiry::Channel);
        }
        match self.liveness.handle_timeout(now) {
            Verdict::Fine => None,
            Verdict::Probe(id) => {
                self.ping = Some(id);
                self.ring.shrink();
                self.flight.shrink();
                self.payloads.shrink();
                None
            }
            Verdict::Dead => Some(Expiry::Link),
            Verdict::Dribbling => Some(Expiry::Frame),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) or [`poll_output`](Self::poll_output) has
    /// something to do next, if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Timestamp {
        if let Some(until) = self.links.detached_until {
            return until;
        }
        let liveness = self.liveness.deadline();
        self.ack_due.map_or(liveness, |due| due.min(liveness))
    }

    fn handle_tracked(&mut self, now: Timestamp, frame_bytes: u64) {
        self.rx_pos += frame_bytes;
        self.rx_at = now;
        let unacked = self.rx_pos - self.rx_acked;
        let delay =
            if unacked >= self.config.ack_bytes { Duration::ZERO } else { self.config.ack_delay };
        let due = now.after(delay);
        self.ack_due = Some(self.ack_due.map_or(due, |earlier| earlier.min(due)));
    }

    fn handle_open(
        &mut self,
        now: Timestamp,
        header: &Header,
        input: &mut BytesMut,
        app: &mut impl Application,
    ) -> Result<(), ProtocolError> {
        let id = header.stream;
        let malformed = |what| ProtocolError::Malformed { frame: "OPEN", what };
        let wrong = |what| ProtocolError::StreamState { frame: "OPEN", stream: id, what };
        let length = header.length as usize;
        if length < OPEN_PREFIX {
            return Err(malformed("body is too short"));
        }
        if header.flags & !(FIN | EOM) != 0 {
            return Err(malformed("flags that do not belong to its type"));
        }
        let [kind, reserved @ ..] = [
            input[HEADER_BYTES],
            input[HEADER_BYTES + 1],
            input[HEADER_BYTES + 2],
            input[HEADER_BYTES + 3],
        ];
        let kind = StreamKind::from_wire(kind).ok_or_else(|| malformed("unknown stream kind"))?;
        if reserved != [0; 3] {
            return Err(malformed("reserved bytes are not zero"));
        }
        if id.initiator() == self.side.initiator() {
            return Err(wrong("the peer used our initiator bit"));
        }
        if self.accepted >= self.granted_opens {
            let allowed = self.granted_opens;
            return Err(ProtocolError::OpenLimit { opened: self.accepted + 1, allowed });
        }
        let limits = &self.config;
        let (tx_window, rx_window) = (limits.peer.window_bytes, limits.local.window_bytes);
        let mut slot = Slot::new(kind, id.generation(), tx_window, rx_window);
        let payload_bytes = length - OPEN_PREFIX;
        let has_data = payload_bytes > 0 || header.flags != 0;
        if has_data {
            credit::receive(&mut slot, id, credit::charge(payload_bytes), now)?;
        }
        let slot = self.theirs.insert_chosen(id, slot, limits.local.max_streams).map_err(wrong)?;
        self.accepted += 1;
        if self.drained_after.is_some() {
            slot.flags.set(Flags::RELEASED);
            slot.tx = TxState::Resetting;
            slot.rx = RxState::Stopped;
            self.pending.push_back((id, Pending::Reset(StreamCode::REFUSED)));
            self.pending.push_back((id, Pending::Stop(StreamCode::REFUSED)));
        } else {
            slot.token = app.opened(id, kind).0;
        }
        debug!(stream = %id, refused = self.drained_after.is_some(), "accepted stream");
        if has_data {
            let data =
                payload(&mut self.payloads, input, HEADER_BYTES + OPEN_PREFIX, payload_bytes);
            let delivery =
                deliver(slot, &mut self.unread, id, data, End::from_flags(header.flags), app);
            self.handle_delivery(id, delivery, app);
        }
        Ok(())
    }

    #[inline]
    fn handle_data(
        &mut self,
        now: Timestamp,
        header: &Header,
        input: &mut BytesMut,
        app: &mut impl Application,
    ) -> Result<(), ProtocolError> {
        let id = header.stream;
        let malformed = |what| ProtocolError::Malformed { frame: "DATA", what };
        let wrong = |what| ProtocolError::StreamState { frame: "DATA", stream: id, what };
        if header.flags & !(FIN | EOM) != 0 {
            return Err(malformed("flags that do not belong to its type"));
        }
        if header.length == 0 && header.flags == 0 {
            return Err(malformed("neither data nor an end"));
        }
        let slot = table(&mut self.ours, &mut self.theirs, id)
            .get_mut(id)
            .filter(|slot| !slot.flags.has(Flags::UNOPENED))
            .ok_or_else(|| wrong("no live stream has this id"))?;
        if !matches!(slot.rx, RxState::Open | RxState::Stopped) {
            return Err(wrong("this half has ended"));
        }
        let payload_bytes = header.length as usize;
        credit::receive(slot, id, credit::charge(payload_bytes), now)?;
        let data = payload(&mut self.payloads, input, HEADER_BYTES, payload_bytes);
        let delivery =
            deliver(slot, &mut self.unread, id, data, End::from_flags(header.flags), app);
        self.handle_delivery(id, delivery, app);
        Ok(())
    }

    #[inline]
    fn handle_delivery(&mut self, id: StreamId, delivery: Delivery, app: &mut impl Application) {
        self.keep_budget(delivery.is_longer, app);
        if delivery.is_over {
            self.retire(id, app);
        }
    }

    fn handle_control(
        &mut self,
        now: Timestamp,
        header: &Header,
        input: &BytesMut,
        app: &mut impl Application,
    ) -> Result<(), ProtocolError> {
        let id = header.stream;
        let body = &input[HEADER_BYTES..header.frame_bytes()];
        let control = match Control::decode(header, body) {
            Err(ProtocolError::UnknownFrame { .. }) if header.flags & IGNORABLE != 0 => {
                return Ok(());
            }
            control => control?,
        };
        match control {
            Control::Credit { max } => self.handle_credit(now, id, max),
            Control::Reset { code, offset } => {
                self.churn.receive(now, "RESET", Weight::Half)?;
                self.handle_reset(id, StreamCode(code), offset, app)
            }
            Control::Stop { code } => {
                self.churn.receive(now, "STOP", Weight::Half)?;
                self.handle_stop(id, StreamCode(code), app)
            }
            Control::Tickets { max_opens } => {
                if max_opens > self.max_opens {
                    self.max_opens = max_opens;
                    app.tickets();
                }
                Ok(())
            }
            Control::GoAway { opens_accepted, code, grace_ms } => {
                let grace = Duration::from_millis(u64::from(grace_ms));
                self.handle_go_away(opens_accepted, CloseCode(code), grace, app)
            }
            Control::Ack { rx_pos, delay_us } => {
                let delay = Duration::from_micros(u64::from(delay_us));
                self.handle_ack(now, rx_pos, Some(delay))
            }
            Control::Ping { id } => {
                self.churn.receive(now, "PING", Weight::Whole)?;
                self.pong = Some(id);
                Ok(())
            }
            Control::Pong { rx_pos, .. } => self.handle_ack(now, rx_pos, None),
            Control::Close { code, text } => {
                app.closed(CloseCode(code), &text);
                Ok(())
            }
        }
    }

    fn handle_credit(
        &mut self,
        now: Timestamp,
        id: StreamId,
        max: u64,
    ) -> Result<(), ProtocolError> {
        let Some(slot) = self.live_or_past("CREDIT", id)? else {
            return self.churn.receive_late_credit(now);
        };
        let taken_back = ProtocolError::StreamState {
            frame: "CREDIT",
            stream: id,
            what: "a limit was taken back",
        };
        if max.checked_sub(slot.tx_max).ok_or(taken_back)? < credit::MIN_GRANT {
            self.churn.receive(now, "CREDIT", Weight::Whole)?;
        }
        let Some(slot) = table(&mut self.ours, &mut self.theirs, id).get_mut(id) else {
            return Ok(());
        };
        slot.tx_max = max;
        if slot.queue_head != 0 {
            self.scheduler.make_ready(slot, id);
        }
        Ok(())
    }

    fn handle_reset(
        &mut self,
        id: StreamId,
        code: StreamCode,
        offset: u64,
        app: &mut impl Application,
    ) -> Result<(), ProtocolError> {
        let wrong = |what| ProtocolError::StreamState { frame: "RESET", stream: id, what };
        let slot = table(&mut self.ours, &mut self.theirs, id)
            .get_mut(id)
            .filter(|slot| !slot.flags.has(Flags::UNOPENED))
            .ok_or_else(|| wrong("no live stream has this id"))?;
        if !matches!(slot.rx, RxState::Open | RxState::Stopped) {
            return Err(wrong("this half has ended"));
        }
        if offset != slot.rx_off {
            let received = slot.rx_off;
            return Err(ProtocolError::FinalOffset { stream: id, claimed: offset, received });
        }
        let wanted = slot.rx == RxState::Open;
        let token = Token(slot.token);
        slot.rx = RxState::Failed;
        self.unread.forget(slot);
        debug!(stream = %id, ?code, "peer reset stream");
        if wanted {
            app.reset(token, code);
        }
        self.retire_if_over(id, app);
        Ok(())
    }

    fn handle_stop(
        &mut self,
        id: StreamId,
        code: StreamCode,
        app: &mut impl Application,
    ) -> Result<(), ProtocolError> {
        let Some(slot) = self.live_or_past("STOP", id)? else {
            return Ok(());
        };
        if !matches!(slot.tx, TxState::Open | TxState::Finishing) {
            return Ok(());
        }
        let (token, released) = (Token(slot.token), slot.flags.has(Flags::RELEASED));
        debug!(stream = %id, ?code, "peer stopped stream");
        self.reset(id, code);
        if !released {
            app.stopped(token, code);
        }
        Ok(())
    }

    /// The slot of a live stream; `None` for one that is over, whose frames may still be under way.
    fn live_or_past(
        &mut self,
        frame: &'static str,
        id: StreamId,
    ) -> Result<Option<&mut Slot>, ProtocolError> {
        let what = "no stream has had this id";
        let unknown = ProtocolError::StreamState { frame, stream: id, what };
        let table = table(&mut self.ours, &mut self.theirs, id);
        if table.get_mut(id).is_none() {
            return if table.dead(id) == Dead::Past { Ok(None) } else { Err(unknown) };
        }
        match table.get_mut(id) {
            Some(slot) if slot.flags.has(Flags::UNOPENED) => Err(unknown),
            slot => Ok(slot),
        }
    }

    fn handle_ack(
        &mut self,
        now: Timestamp,
        position: u64,
        delay: Option<Duration>,
    ) -> Result<(), ProtocolError> {
        let (acked, encoded) = (self.ring.claimed(), self.ring.encoded());
        if !(acked..=encoded).contains(&position) {
            return Err(ProtocolError::AckRange { position, acked, encoded });
        }
        if self.ring.acknowledge(position) {
            self.liveness.handle_progress(now, self.ring.acked() < self.ring.sent());
        }
        if let Some(rtt) = self.flight.handle_ack(now, self.ring.acked(), delay) {
            self.liveness.handle_rtt(rtt);
        }
        Ok(())
    }
}

/// What the channel has to see to once data has been delivered.
struct Delivery {
    /// The queue of streams with unread data has become longer.
    is_longer: bool,
    /// Both halves of the stream have ended.
    is_over: bool,
}

/// Hands accepted data to the application, unless it wants no more, and notes the end.
///
/// A function of the fields instead of the channel, so that the slot is looked up once.
#[inline]
fn deliver(
    slot: &mut Slot,
    unread: &mut Unread,
    id: StreamId,
    data: Bytes,
    end: End,
    app: &mut impl Application,
) -> Delivery {
    let wanted = slot.rx == RxState::Open;
    if end == End::Stream {
        slot.rx = RxState::Ended;
    }
    let is_longer = wanted && unread.hold(slot, id, credit::charge(data.len()));
    if wanted {
        app.data(Token(slot.token), data, end);
    }
    Delivery { is_longer, is_over: slot.is_over() }
}

/// The `length` bytes of payload behind `prefix` bytes of `input`. Large ones are split off with
/// everything before them, small ones copied.
fn payload(packed: &mut Payloads, input: &mut BytesMut, prefix: usize, length: usize) -> Bytes {
    match length {
        0 => Bytes::new(),
        SHARE_BYTES.. => {
            input.advance(prefix);
            input.split_to(length).freeze()
        }
        PACKED_BYTES.. => Bytes::copy_from_slice(&input[prefix..prefix + length]),
        _ => packed.copy(&input[prefix..prefix + length]),
    }
}
