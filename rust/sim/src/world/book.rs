//! What the applications at both ends have said and heard, stream by stream.
//!
//! The bytes of a stream follow from its number, the direction and their position, so that none are
//! stored and one that is lost, doubled or another's shows at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use cmgmux_mux::{
    Application, CloseCode, End, FRAME_CHARGE, StreamCode, StreamId, StreamKind, Timestamp, Token,
};
use fastrand::Rng;

use crate::plan::Plan;

/// Codes with which applications reset and stop.
pub(super) const RESET: StreamCode = StreamCode(0x100);
pub(super) const STOP: StreamCode = StreamCode(0x101);

/// A prime, so that bytes moved by any round number differ.
const CONTENT: usize = 65_521;
static TABLE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut rng = Rng::with_seed(1);
    let mut table: Vec<u8> = (0..CONTENT).map(|_| rng.u8(..)).collect();
    table.extend_from_within(..);
    table.into()
});

/// The bytes from `position` on, at most a table full, of the half of stream `stream` on which
/// `writer` writes.
pub(super) fn content(stream: usize, writer: usize, position: u64, length: usize) -> Bytes {
    let start = (position as usize + (2 * stream + writer) * 7_919) % CONTENT;
    TABLE.slice(start..start + length.min(CONTENT))
}

/// All streams of the plan.
#[derive(Debug)]
pub(super) struct Book {
    /// By stream: the connection point's party and the instance's.
    pub(super) parties: Vec<[Party; 2]>,
    /// Whose stream an id names, by the number of its channel.
    pub(super) ids: BTreeMap<(usize, StreamId), usize>,
    pub(super) sides: [Side; 2],
    pub(super) compared_bytes: u64,
    /// Streams that were given up for the budget.
    pub(super) too_slow: u64,
}

/// What concerns all streams of one end's channel.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// Number of the channel.
    pub(super) channel: usize,
    pub(super) unread: u64,
    pub(super) budget: u64,
    pub(super) is_draining: bool,
    /// Accepted streams whose application has ended.
    pub(super) completed: u64,
    /// Streams with something to look at.
    pub(super) touched: VecDeque<usize>,
    pub(super) has_tickets: bool,
    pub(super) closed: Option<CloseCode>,
}

/// One end of a stream.
#[derive(Debug, Default)]
pub(super) struct Party {
    pub(super) id: Option<StreamId>,
    pub(super) tx: Tx,
    pub(super) rx: Rx,
    pub(super) written: u64,
    pub(super) received: u64,
    pub(super) consumed: u64,
    /// Lengths of what was received and not consumed.
    pub(super) unread: VecDeque<usize>,
    pub(super) is_touched: bool,
    pub(super) retired: bool,
    /// The application has ended.
    pub(super) released: bool,
    /// When each action may happen next, and the newest time at which it has been looked into.
    pub(super) due: [Timestamp; 3],
    pub(super) turns: [Timestamp; 3],
}

/// What an application does in its own time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Read,
    Write,
    Release,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Tx {
    #[default]
    Open,
    Finished,
    FinishedAndReset,
    Reset(StreamCode),
    Stopped(StreamCode),
    Lost,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Rx {
    #[default]
    Open,
    Ended,
    Reset(StreamCode),
    Stopped,
    TooSlow,
    Lost,
}

impl Party {
    /// Charge of what is unread.
    pub(super) fn charge(&self) -> u64 {
        self.unread.iter().map(|bytes| charge(*bytes)).sum()
    }

    /// A number that changes with everything that the stream does.
    pub(super) fn progress(&self) -> u64 {
        let ends = u64::from(self.tx != Tx::Open) + u64::from(self.rx != Rx::Open);
        let past = u64::from(self.retired) + u64::from(self.released);
        self.written + self.received + self.consumed + ends + past
    }

    /// Whether there will be nothing more to read.
    pub(super) fn is_read(&self) -> bool {
        self.rx != Rx::Open && self.unread.is_empty()
    }

    /// Whether nothing more can come or go.
    pub(super) fn is_done(&self) -> bool {
        self.tx != Tx::Open && self.is_read()
    }
}

pub(super) fn charge(bytes: usize) -> u64 {
    bytes as u64 + u64::from(FRAME_CHARGE)
}

impl Book {
    pub(super) fn new(plan: &Plan) -> Self {
        let side = |side: usize| Side { budget: plan.sizes[side].budget_bytes, ..Side::default() };
        Self {
            parties: plan.streams.iter().map(|_| Default::default()).collect(),
            ids: BTreeMap::new(),
            sides: [side(0), side(1)],
            compared_bytes: 0,
            too_slow: 0,
        }
    }

    pub(super) fn touch(&mut self, side: usize, stream: usize) {
        let party = &mut self.parties[stream][side];
        if !party.is_touched {
            party.is_touched = true;
            self.sides[side].touched.push_back(stream);
        }
    }

    /// One end has another channel, or will have.
    pub(super) fn begin(&mut self, side: usize, channel: usize) {
        let budget = self.sides[side].budget;
        self.sides[side] = Side { channel, budget, has_tickets: true, ..Side::default() };
        for parties in &mut self.parties {
            let party = &mut parties[side];
            party.is_touched = false;
            if party.id.is_some() && !party.released {
                party.tx = if party.tx == Tx::Open { Tx::Lost } else { party.tx };
                party.rx = if party.rx == Rx::Open { Rx::Lost } else { party.rx };
                party.unread.clear();
                party.released = true;
            }
        }
    }

    /// Whether an application at an end waits for one that has not seen its stream.
    pub(super) fn waits_for_unseen(&self, side: usize) -> bool {
        self.parties.iter().any(|ends| {
            let waits = ends[side].id.is_some() && ends[side].rx == Rx::Open;
            waits && ends[1 - side].id.is_none()
        })
    }

    /// The streams that have not ended at one of both ends.
    pub(super) fn open_streams(&self) -> impl Iterator<Item = usize> {
        let parties = self.parties.iter().enumerate();
        parties
            .filter(|(_, ends)| ends.iter().any(|end| end.id.is_some() && !end.released))
            .map(|(stream, _)| stream)
    }
}

/// What the channel of one end tells.
pub(super) struct View<'a> {
    pub(super) book: &'a mut Book,
    pub(super) plan: &'a Plan,
    pub(super) side: usize,
}

impl View<'_> {
    fn party(&mut self, stream: Token) -> &mut Party {
        self.book.touch(self.side, stream.0 as usize);
        let party = &mut self.book.parties[stream.0 as usize][self.side];
        assert!(!party.retired && !party.released, "told of stream {} that is gone", stream.0);
        party
    }
}

impl Application for View<'_> {
    fn opened(&mut self, id: StreamId, kind: StreamKind) -> Token {
        let key = (self.book.sides[self.side].channel, id);
        let stream = *self.book.ids.get(&key).expect("a stream that was opened");
        assert_eq!(kind, kind_of(stream), "kind of stream {stream}");
        assert_ne!(self.plan.streams[stream].opener, self.side, "opened by its own end");
        assert!(!self.book.sides[self.side].is_draining, "stream {stream} is seen behind GOAWAY");
        let token = Token(stream as u32);
        let party = self.party(token);
        assert_eq!(party.id.replace(id), None, "stream {stream} is opened twice");
        token
    }

    fn data(&mut self, token: Token, data: Bytes, end: End) {
        let (stream, writer) = (token.0 as usize, 1 - self.side);
        let part = behaviour(self.plan, stream, writer).part_bytes;
        let Party { written, tx, .. } = self.book.parties[stream][writer];
        let party = self.party(token);
        assert_eq!(party.rx, Rx::Open, "data of stream {stream} behind its end");
        let before = party.received;
        assert_eq!(
            data,
            content(stream, writer, before, data.len()),
            "stream {stream} at {before}"
        );
        party.received += data.len() as u64;
        party.unread.push_back(data.len());
        let part = u64::from(part);
        assert!(party.received <= written, "stream {stream} has more than was written");
        let ends_part = party.received.is_multiple_of(part) && !data.is_empty();
        let last = party.received.saturating_sub(1) / part;
        assert!(data.is_empty() || before / part == last, "stream {stream} lost the end of a part");
        match end {
            End::None => {
                assert!(!ends_part && !data.is_empty(), "stream {stream} lost the end of a part")
            }
            End::Part => assert!(ends_part, "stream {stream} has a part that nobody ended"),
            End::Stream => {
                assert_eq!(party.received, written, "stream {stream} was cut short");
                assert!(matches!(tx, Tx::Finished | Tx::FinishedAndReset), "nobody ended {stream}");
                party.rx = Rx::Ended;
            }
        }
        self.book.compared_bytes += data.len() as u64;
        self.book.sides[self.side].unread += charge(data.len());
    }

    fn unread(&self, token: Token, id: StreamId) -> u64 {
        let party = &self.book.parties[token.0 as usize][self.side];
        if party.id == Some(id) { party.charge() } else { 0 }
    }

    fn too_slow(&mut self, token: Token) {
        let stream = token.0 as usize;
        let side = &mut self.book.sides[self.side];
        let party = &mut self.book.parties[stream][self.side];
        assert!(side.unread > side.budget, "stream {stream} is given up without need");
        assert!(!party.unread.is_empty(), "stream {stream} holds nothing");
        side.unread -= party.charge();
        party.unread.clear();
        party.rx = Rx::TooSlow;
        self.book.too_slow += 1;
        self.book.touch(self.side, stream);
    }

    fn reset(&mut self, token: Token, code: StreamCode) {
        let (stream, side) = (token.0 as usize, self.side);
        let peer = &self.book.parties[stream][1 - side];
        let is_refusal = code == StreamCode::REFUSED && peer.id.is_none();
        let is_meant = match peer.tx {
            Tx::Reset(sent) => sent == code,
            Tx::FinishedAndReset => code == RESET,
            _ => is_refusal,
        };
        assert!(is_meant, "stream {stream} is reset with {code:?} by nobody");
        let party = self.party(token);
        assert_eq!(party.rx, Rx::Open, "a second end of stream {stream}");
        party.rx = Rx::Reset(code);
        let dropped = party.charge();
        party.unread.clear();
        self.book.sides[side].unread -= dropped;
    }

    fn stopped(&mut self, token: Token, code: StreamCode) {
        let stream = token.0 as usize;
        let peer = &self.book.parties[stream][1 - self.side];
        let is_meant = match code {
            StreamCode::SLOW_CONSUMER => peer.rx == Rx::TooSlow,
            StreamCode::REFUSED => peer.id.is_none(),
            code => code == STOP && peer.rx == Rx::Stopped,
        };
        assert!(is_meant, "stream {stream} is stopped with {code:?} by nobody");
        let party = self.party(token);
        assert!(
            matches!(party.tx, Tx::Open | Tx::Finished),
            "stream {stream} had ended: {:?}",
            party.tx
        );
        party.tx = Tx::Stopped(code);
    }

    fn writable(&mut self, token: Token) {
        assert_eq!(self.party(token).tx, Tx::Open, "stream {} takes nothing", token.0);
    }

    fn retired(&mut self, token: Token) {
        self.party(token).retired = true;
    }

    fn tickets(&mut self) {
        self.book.sides[self.side].has_tickets = true;
    }

    fn draining(&mut self, _code: CloseCode, _grace: Duration) {}

    fn closed(&mut self, code: CloseCode, _text: &str) {
        self.book.sides[self.side].closed = Some(code);
    }
}

pub(super) fn kind_of(stream: usize) -> StreamKind {
    if stream.is_multiple_of(3) { StreamKind::Control } else { StreamKind::Exchange }
}

/// What the application at `side` does on a stream.
pub(super) fn behaviour(plan: &Plan, stream: usize, side: usize) -> &crate::plan::Behaviour {
    let stream = &plan.streams[stream];
    &stream.applications[usize::from(stream.opener != side)]
}
