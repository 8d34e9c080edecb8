//! The state of one channel, and the calls of the application.

mod drain;
mod input;
mod links;
mod output;
mod unread;

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tracing::debug;

use self::links::Links;
use self::unread::Unread;
use crate::blocks::Payloads;
use crate::churn::Churn;
use crate::config::Config;
use crate::credit;
use crate::error::{CloseCode, StreamCode, UsageError};
use crate::flight::Flight;
use crate::frame::{EOM, FIN, MAX_BODY, StreamId, StreamKind};
use crate::liveness::Liveness;
use crate::queue::Queues;
use crate::replay::Ring;
use crate::scheduler::{Class, Ready, Scheduler};
use crate::stream::{Flags, RxState, Side, Slot, TxState};
use crate::table::Table;
use crate::time::Timestamp;

/// Most bytes that one call of [`Channel::send`] takes.
const MAX_CHUNK: usize = 16 * 1024 * 1024;

/// The application's own name for a stream; the channel hands it back and never looks at it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Token(pub u32);

/// What ends behind a piece of data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Nothing.
    None,
    /// A part of the exchange.
    Part,
    /// The part and the stream's half with it.
    Stream,
}

impl End {
    const fn to_flags(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Part => EOM,
            Self::Stream => EOM | FIN,
        }
    }

    const fn from_flags(flags: u8) -> Self {
        match flags & (FIN | EOM) {
            0 => Self::None,
            EOM => Self::Part,
            _ => Self::Stream,
        }
    }
}

/// What the channel tells the application, in the order in which it happened.
pub trait Application {
    /// The peer opened the stream `id`. The returned token names it from now on; the application
    /// owes a [`Channel::release`].
    fn opened(&mut self, id: StreamId, kind: StreamKind) -> Token;
    /// Data arrived. It used up credit, which [`Channel::consume`] gives back to the peer. Data below
    /// [`PACKED_BYTES`](crate::PACKED_BYTES) shares a block with other data, data of 8 KiB and more
    /// the input buffer; whoever keeps a piece for long copies it.
    fn data(&mut self, stream: Token, data: Bytes, end: End);
    /// Charge of the data of stream `id` that has not been consumed: its length and
    /// [`FRAME_CHARGE`](crate::FRAME_CHARGE) a piece. 0 if the token has become another stream's.
    fn unread(&self, stream: Token, id: StreamId) -> u64;
    /// The stream's reader was too slow for the [budget](Config::budget_bytes): nothing more will
    /// arrive, and what it holds unread is to be dropped, also of a stream that has been retired.
    fn too_slow(&mut self, stream: Token);
    /// The peer abandoned its sending half: nothing more will arrive, and what is unread is to be
    /// dropped.
    fn reset(&mut self, stream: Token, code: StreamCode);
    /// The peer wants no more data: the sending half is closed, its queue dropped.
    fn stopped(&mut self, stream: Token, code: StreamCode);
    /// A full send queue has room again; only after [`Channel::has_room`] said no.
    fn writable(&mut self, stream: Token);
    /// Both halves have ended and the id means nothing any more. Not called after a release.
    fn retired(&mut self, stream: Token);
    /// More streams may be opened than before.
    fn tickets(&mut self);
    /// The peer takes no new streams; those under way may go on for `grace`.
    fn draining(&mut self, code: CloseCode, grace: Duration);
    /// The peer closed the channel.
    fn closed(&mut self, code: CloseCode, text: &str);
}

/// Totals of a channel's life and its present size.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Plaintext bytes of whole frames received.
    pub bytes_received: u64,
    /// Plaintext bytes of frames handed out for writing.
    pub bytes_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Batches handed out for writing.
    pub batches_sent: u64,
    /// Streams that this end opened.
    pub opened: u64,
    /// Streams that the peer opened.
    pub accepted: u64,
    /// Streams live now, of either initiator.
    pub live: u32,
    /// Accepted streams that have ended but whose handler has not.
    pub unfinished: u64,
    /// Bytes encoded and not acknowledged.
    pub ring_bytes: u64,
    /// Bytes in send queues.
    pub queued_bytes: u64,
    /// Charge of data that the application has not consumed.
    pub unread_bytes: u64,
    /// Streams given up because their readers were too slow for the budget.
    pub slow_consumers: u64,
    /// Smoothed round-trip time, once measured.
    pub rtt: Option<Duration>,
    /// Times that the channel moved to a new link.
    pub resumes: u64,
    /// Bytes that were to be sent again because of that.
    pub replayed_bytes: u64,
}

/// What has run out of time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expiry {
    /// The link is silent: it counts as dead.
    Link,
    /// A frame has been arriving for too long: the link counts as dead.
    Frame,
    /// There was no new link in time: the channel has ended, and its streams with it.
    Channel,
}

/// A frame of a stream that has to go out before data.
#[derive(Clone, Copy, Debug, Hash)]
enum Pending {
    Credit,
    Reset(StreamCode),
    Stop(StreamCode),
}

/// One end of a channel.
///
/// Feed it received bytes with [`handle_input`](Self::handle_input) and the time with
/// [`handle_timeout`](Self::handle_timeout); then drain [`poll_output`](Self::poll_output) until it
/// says that there is nothing to write, and come back at [`next_deadline`](Self::next_deadline).
///
/// It outlives its link: after [`handle_link_lost`](Self::handle_link_lost) the connection point's end
/// makes a [`claim`](Self::claim), the instance's [handles](Self::handle_claim) it, and the answer
/// [goes back](Self::handle_resumed).
#[derive(Debug)]
pub struct Channel {
    config: Config,
    side: Side,
    /// Streams that we opened, and those that the peer opened.
    ours: Table,
    theirs: Table,
    queues: Queues,
    payloads: Payloads,
    scheduler: Scheduler,
    unread: Unread,
    churn: Churn,
    ring: Ring,
    liveness: Liveness,
    flight: Flight,
    links: Links,

    /// Frames of streams to go out before data, in order; at most three a stream.
    pending: VecDeque<(StreamId, Pending)>,
    /// Untracked frames of the batch being written.
    untracked: BytesMut,
    ping: Option<u64>,
    pong: Option<u64>,
    go_away: Option<(CloseCode, Duration)>,
    close: Option<(CloseCode, String)>,

    /// Position up to which the peer's tracked frames have been applied, and acknowledged.
    rx_pos: u64,
    rx_acked: u64,
    /// When the newest tracked frame arrived, and when an acknowledgement is due.
    rx_at: Timestamp,
    ack_due: Option<Timestamp>,

    /// Streams that we may open, have opened, and the peer can know of.
    max_opens: u64,
    opens: u64,
    encoded_opens: u64,
    /// Streams that the peer may open, has opened, and that are over with their handler.
    granted_opens: u64,
    accepted: u64,
    completed: u64,
    /// Once the peer drains: how many of our opens it has taken, at most.
    taken_opens: Option<u64>,
    /// Streams of ours of which the peer had not acknowledged the OPEN by then, in order, but for those
    /// that have been given up because of that.
    crossing: Vec<StreamId>,
    /// Once this end has encoded GOAWAY: how many of the peer's opens had arrived by then.
    drained_after: Option<u64>,

    counters: Counters,
}

impl Channel {
    /// A channel whose handshake has just been completed.
    #[must_use]
    pub fn new(side: Side, config: Config, now: Timestamp) -> Self {
        let peer = match side {
            Side::ConnectionPoint => Side::Instance,
            Side::Instance => Side::ConnectionPoint,
        };
        Self {
            ours: Table::new(side.initiator()),
            theirs: Table::new(peer.initiator()),
            queues: Queues::default(),
            payloads: Payloads::default(),
            scheduler: Scheduler::default(),
            unread: Unread::default(),
            churn: Churn::new(&config, now),
            ring: Ring::default(),
            liveness: Liveness::new(&config, now),
            flight: Flight::new(config.ring_bytes, 0, now),
            links: Links::default(),
            pending: VecDeque::new(),
            untracked: BytesMut::new(),
            ping: None,
            pong: None,
            go_away: None,
            close: None,
            rx_pos: 0,
            rx_acked: 0,
            rx_at: now,
            ack_due: None,
            max_opens: u64::from(config.peer.max_streams),
            opens: 0,
            encoded_opens: 0,
            granted_opens: u64::from(config.local.max_streams),
            accepted: 0,
            completed: 0,
            taken_opens: None,
            crossing: Vec::new(),
            drained_after: None,
            counters: Counters::default(),
            side,
            config,
        }
    }

    /// Opens a stream, which costs one ticket. The peer learns of it with the next output; data may
    /// follow at once. The application owes a [`release`](Self::release).
    ///
    /// # Errors
    ///
    /// [`UsageError::NoTicket`] until [`Application::tickets`], [`UsageError::Detached`] until there is
    /// a new link, [`UsageError::Draining`] for good.
    pub fn open(&mut self, kind: StreamKind, token: Token) -> Result<StreamId, UsageError> {
        if !self.accepts_opens() {
            return Err(UsageError::Draining);
        }
        if !self.links.is_attached() {
            return Err(UsageError::Detached);
        }
        // A peer that gives tickets for more would have them take indexes that it refuses.
        if self.opens >= self.max_opens || self.ours.live() >= self.config.peer.max_streams {
            return Err(UsageError::NoTicket);
        }
        self.opens += 1;
        let id = self.ours.next_id();
        let Config { local, peer, .. } = &self.config;
        let mut slot = Slot::new(kind, id.generation(), peer.window_bytes, local.window_bytes);
        slot.flags.set(Flags::UNOPENED);
        slot.token = token.0;
        self.scheduler.make_ready(self.ours.insert_next(id, slot), id);
        debug!(stream = %id, "opened stream");
        Ok(id)
    }

    /// Queues `data` and what ends behind it. Takes everything or nothing. What is queued keeps all of the
    /// memory alive that `data` is a part of; whoever sends small parts of large buffers copies them.
    ///
    /// # Errors
    ///
    /// [`UsageError::QueueFull`] when as many bytes as may be are queued, or twice as much
    /// [charge](Config::queue_bytes), or `data` is longer than 16 MiB; never for the first call after
    /// there was [room](Self::has_room). [`UsageError::Closed`] after an end, a reset or the peer's stop,
    /// [`UsageError::UnknownStream`] for a dead id.
    pub fn send(&mut self, id: StreamId, mut data: Bytes, end: End) -> Result<(), UsageError> {
        let limit = self.config.queue_bytes;
        let slot = table(&mut self.ours, &mut self.theirs, id)
            .get_mut(id)
            .ok_or(UsageError::UnknownStream)?;
        if slot.tx != TxState::Open {
            return Err(UsageError::Closed);
        }
        let is_full = slot.queued >= limit || self.queues.charge(slot) >= 2 * u64::from(limit);
        if is_full || data.len() > MAX_CHUNK {
            return Err(UsageError::QueueFull);
        }
        while data.len() > MAX_BODY {
            self.queues.push(slot, data.split_to(MAX_BODY), 0);
        }
        if !data.is_empty() || end != End::None {
            self.queues.push(slot, data, end.to_flags());
        }
        if end == End::Stream {
            slot.tx = TxState::Finishing;
        }
        self.scheduler.make_ready(slot, id);
        Ok(())
    }

    /// Whether it is time to [`send`](Self::send) more, which takes it after a yes. After a no,
    /// [`Application::writable`] follows once there is room.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), but for `QueueFull`.
    pub fn has_room(&mut self, id: StreamId) -> Result<bool, UsageError> {
        let limit = self.config.queue_bytes;
        let slot = table(&mut self.ours, &mut self.theirs, id)
            .get_mut(id)
            .ok_or(UsageError::UnknownStream)?;
        if slot.tx != TxState::Open {
            return Err(UsageError::Closed);
        }
        let room = self.queues.has_room(self.queues.charge(slot), limit);
        if !room {
            slot.flags.set(Flags::WANTS_ROOM);
        }
        Ok(room)
    }

    /// Gives the charge of one piece of data of `data_bytes`, which the application has used, back to
    /// the peer. Says whether there is something to write because of it.
    pub fn consume(&mut self, id: StreamId, data_bytes: usize) -> bool {
        let Some(slot) = table(&mut self.ours, &mut self.theirs, id).get_mut(id) else {
            return false;
        };
        let before = slot.rx_unread;
        let due = credit::consume(slot, credit::charge(data_bytes));
        self.unread.release(u64::from(before - slot.rx_unread));
        if due {
            self.pending.push_back((id, Pending::Credit));
        }
        due
    }

    /// As [`consume`](Self::consume) for a stream that has been [retired](Application::retired): the
    /// peer learns nothing, but the [budget](Config::budget_bytes) does.
    pub fn consume_retired(&mut self, data_bytes: usize) {
        self.unread.release(u64::from(credit::charge(data_bytes)));
    }

    /// Abandons the sending half: what is queued is dropped, the peer learns `code`. Does nothing
    /// once the end of the half has been queued and encoded.
    pub fn reset(&mut self, id: StreamId, code: StreamCode) {
        let Some(slot) = table(&mut self.ours, &mut self.theirs, id).get_mut(id) else {
            return;
        };
        if matches!(slot.tx, TxState::Open | TxState::Finishing) {
            self.queues.clear(slot);
            slot.tx = TxState::Resetting;
            self.pending.push_back((id, Pending::Reset(code)));
        }
    }

    /// Asks the peer to send no more; what still arrives is dropped, and what is unread is to be, too.
    pub fn stop(&mut self, id: StreamId, code: StreamCode) {
        let Some(slot) = table(&mut self.ours, &mut self.theirs, id).get_mut(id) else {
            return;
        };
        self.unread.forget(slot);
        if slot.rx == RxState::Open {
            slot.rx = RxState::Stopped;
            self.pending.push_back((id, Pending::Stop(code)));
        }
    }

    /// The application has let go of a live stream and finished or reset both of its halves. No
    /// call for it follows. A stream that has been [retired](Application::retired) before is
    /// released with [`complete`](Self::complete) instead.
    pub fn release(&mut self, id: StreamId) {
        let Some(slot) = table(&mut self.ours, &mut self.theirs, id).get_mut(id) else {
            return;
        };
        debug_assert!(slot.tx != TxState::Open && slot.rx != RxState::Open, "release of {id}");
        self.unread.forget(slot);
        slot.flags.set(Flags::RELEASED);
    }

    /// The handler of a stream that the peer opened, and that has been retired, has ended.
    pub fn complete(&mut self) {
        self.completed += 1;
        debug_assert!(self.completed <= self.accepted);
    }

    /// Tells the peer that the channel ends, with the next output and nothing after it. Without a link that
    /// is for a new one which the channel cannot go on over.
    pub fn close(&mut self, code: CloseCode, text: &str) {
        self.close.get_or_insert_with(|| (code, text.to_owned()));
    }

    /// The channel is over: gives back the memory of all that was under way. It knows no stream from here on
    /// and has nothing to write; its totals stay.
    pub fn dispose(&mut self) {
        let mut empty = Self::new(self.side, self.config.clone(), self.rx_at);
        empty.ring.close();
        let Self { counters, opens, accepted, .. } = *self;
        *self = Self { counters, opens, accepted, completed: accepted, ..empty };
    }

    /// Totals and present size.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            opened: self.opens,
            accepted: self.accepted,
            live: self.ours.live() + self.theirs.live(),
            unfinished: (self.accepted - self.completed)
                .saturating_sub(u64::from(self.theirs.live())),
            ring_bytes: self.ring.bytes(),
            queued_bytes: self.queues.bytes(),
            unread_bytes: self.unread.bytes,
            rtt: self.liveness.rtt(),
            ..self.counters
        }
    }

    /// Puts a stream back that has more to encode than its turn of `served` bytes allowed.
    fn return_ready(&mut self, ready: Ready, served: usize) {
        let Some(slot) = table(&mut self.ours, &mut self.theirs, ready.id).get_mut(ready.id) else {
            return;
        };
        slot.flags.set(Flags::READY);
        self.scheduler.put_back(Class::of(slot), ready, served);
    }

    /// Takes the first live stream of `class` out of its ready list. One whose class has changed
    /// while it waited goes to the end of the other list.
    #[inline]
    fn next_ready(&mut self, class: Class) -> Option<Ready> {
        loop {
            let ready = self.scheduler.list(class).pop_front()?;
            let slot = table(&mut self.ours, &mut self.theirs, ready.id).get_mut(ready.id);
            let Some(slot) = slot.filter(|slot| slot.flags.has(Flags::READY)) else {
                continue;
            };
            let present = Class::of(slot);
            if present == class {
                slot.flags.take(Flags::READY);
                return Some(ready);
            }
            self.scheduler.list(present).push_back(ready);
        }
    }

    /// Frees the slot of a stream whose halves have both ended.
    fn retire_if_over(&mut self, id: StreamId, app: &mut impl Application) {
        let slot = table(&mut self.ours, &mut self.theirs, id).get_mut(id);
        if slot.is_some_and(|slot| slot.is_over()) {
            self.retire(id, app);
        }
    }

    /// Frees the slot of a live stream.
    fn retire(&mut self, id: StreamId, app: &mut impl Application) {
        let is_ours = id.initiator() == self.side.initiator();
        let table = table(&mut self.ours, &mut self.theirs, id);
        let Some(slot) = table.get_mut(id) else { return };
        let (released, token) = (slot.flags.has(Flags::RELEASED), Token(slot.token));
        table.remove(id, is_ours);
        self.churn.note_end();
        match (released, is_ours) {
            (true, true) => {}
            (true, false) => self.complete(),
            (false, _) => app.retired(token),
        }
    }
}

/// What decides what an end does next while time stands still, for searches that have to know a state
/// again.
impl Hash for Channel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { side, ours, theirs, queues, payloads, scheduler, unread, churn, .. } = self;
        let Self { ring, links, pending, untracked, ping, pong, go_away, close, .. } = self;
        let Self { rx_pos, ack_due, max_opens, opens, encoded_opens, granted_opens, .. } = self;
        let Self { accepted, completed, taken_opens, crossing, drained_after, .. } = self;
        let Self { config: _, counters: _, flight: _, liveness: _, rx_acked: _, rx_at: _, .. } =
            self;
        (side, ours, theirs, queues, payloads, scheduler, unread, churn).hash(state);
        (ring, links, pending, untracked, ping, pong, go_away, close).hash(state);
        (rx_pos, ack_due, max_opens, opens, encoded_opens, granted_opens).hash(state);
        (accepted, completed, taken_opens, crossing, drained_after).hash(state);
    }
}

/// The table that `id` belongs to.
///
/// A function of the two fields instead of the channel, so that the slot it leads to borrows
/// nothing else.
fn table<'a>(ours: &'a mut Table, theirs: &'a mut Table, id: StreamId) -> &'a mut Table {
    if ours.initiator() == id.initiator() { ours } else { theirs }
}
