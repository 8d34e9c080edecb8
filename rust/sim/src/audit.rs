//! An independent account of a channel, kept from the bytes on its links alone.

use std::collections::{BTreeMap, BTreeSet};

use cmgmux_mux::frame::{Control, FIN, HEADER_BYTES, Header, kind};
use cmgmux_mux::{Claim, FRAME_CHARGE, Resumed, Side, StreamId};

/// Bytes of an OPEN before its data.
const OPEN_PREFIX: u32 = 4;

/// Both directions of a channel. Every method panics when an end breaks a rule.
#[derive(Debug)]
pub(crate) struct Audit {
    to_point: Direction,
    to_instance: Direction,
    /// Number of the newest claim that was accepted.
    epoch: u32,
}

/// What one end sends and the other applies.
#[derive(Debug, Default)]
struct Direction {
    /// All tracked frames, as first written.
    history: Vec<u8>,
    /// Position written to the present link.
    written: u64,
    /// Position up to which the receiver has applied them.
    applied: u64,
    /// Bytes of the present link that the receiver has applied before.
    skip: u64,
    /// Position of which the sender knows that the receiver is past it.
    claimed: u64,
    /// Position up to which the sender may have freed its ring.
    freed: u64,
    /// Credit of the streams that send in this direction.
    streams: BTreeMap<StreamId, Credit>,
    /// Credit that a stream begins with, and the most that one may have outstanding.
    window: u64,
    max_window: u64,
    /// Position that the receiver has acknowledged on the present link.
    told: u64,
    /// What the last TICKETS of the sender said.
    max_opens: u64,
    /// Frames that streams owe, by type, and the sender has not written.
    due: BTreeSet<(StreamId, u8)>,
    /// Number of the last PING that has arrived.
    pinged: Option<u64>,
    /// The sender has applied a GOAWAY.
    is_drained: bool,
    /// CLOSE has been written.
    is_closed: bool,
}

/// The account of one sending half, all in charge.
#[derive(Debug)]
struct Credit {
    sent: u64,
    /// What the sender knows that it may send, and what the receiver has granted.
    allowed: u64,
    granted: u64,
    consumed: u64,
    /// What was granted and not consumed when it was last granted.
    window: u64,
}

impl Audit {
    /// An account of a channel whose ends, connection point and instance, give their streams a window
    /// that begins with the first number of bytes and never exceeds the second.
    pub(crate) fn new([point, instance]: [(u64, u64); 2]) -> Self {
        let direction =
            |(window, max_window)| Direction { window, max_window, ..Direction::default() };
        Self { to_point: direction(point), to_instance: direction(instance), epoch: 0 }
    }

    /// The direction towards `side`, and the one from it.
    fn directions(&mut self, side: Side) -> (&mut Direction, &mut Direction) {
        match side {
            Side::ConnectionPoint => (&mut self.to_point, &mut self.to_instance),
            Side::Instance => (&mut self.to_instance, &mut self.to_point),
        }
    }

    /// Bytes that the ring of `side` has to hold.
    pub(crate) fn ring_bytes(&mut self, side: Side) -> u64 {
        let (_, from) = self.directions(side);
        from.history.len() as u64 - from.freed
    }

    /// Streams that `side` has allowed its peer beyond those that it began with.
    pub(crate) fn max_opens(&mut self, side: Side) -> u64 {
        self.directions(side).1.max_opens
    }

    /// Position that `side` has acknowledged on its link, and the one up to which it has applied.
    pub(crate) fn acknowledged(&mut self, side: Side) -> (u64, u64) {
        let (to, _) = self.directions(side);
        (to.told, to.applied)
    }

    /// Position that the peer of `side` has acknowledged, and whether more has been written.
    pub(crate) fn in_flight(&mut self, side: Side) -> (u64, bool) {
        let (_, from) = self.directions(side);
        (from.freed, from.written > from.freed)
    }

    /// Whether everything that was written has been applied and acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        [&self.to_point, &self.to_instance].iter().all(|direction| {
            let Direction { history, applied, freed, .. } = direction;
            history.len() as u64 == *applied && *applied == *freed
        })
    }

    /// The application of `side` has used data of a stream.
    pub(crate) fn handle_consumed(&mut self, side: Side, id: StreamId, charge: u64) {
        let (to, _) = self.directions(side);
        to.streams.get_mut(&id).expect("data of a stream that was opened").consumed += charge;
    }

    /// Whether `side` has granted enough on a stream of which its application has used everything: half of
    /// the window, which may have grown.
    pub(crate) fn has_granted(&mut self, side: Side, id: StreamId) -> bool {
        let (to, _) = self.directions(side);
        let credit = to.streams.get(&id);
        credit.is_none_or(|credit| credit.granted - credit.consumed >= to.window / 2)
    }

    /// The application of `side` has reset or stopped a stream.
    pub(crate) fn handle_due(&mut self, side: Side, id: StreamId, kind: u8) {
        self.directions(side).1.due.insert((id, kind));
    }

    /// Whether `side` has written every reset and stop of its application, but for streams that it has
    /// not opened because its peer drains.
    pub(crate) fn has_said_all(&mut self, side: Side) -> bool {
        let (_, from) = self.directions(side);
        from.due.iter().all(|(id, _)| !from.streams.contains_key(id))
    }

    /// `side` wrote a batch. Says whether there is a GOAWAY in it.
    pub(crate) fn handle_written(&mut self, side: Side, batch: &[u8]) -> bool {
        let mut drains = false;
        for (header, frame) in frames(batch) {
            let (to, from) = self.directions(side);
            assert!(!from.is_closed, "{side:?} writes behind its CLOSE");
            from.is_closed = header.kind == kind::CLOSE;
            drains |= header.kind == kind::GOAWAY;
            if kind::is_tracked(header.kind) {
                from.write(&header, frame, to);
                continue;
            }
            let said = control(&header, frame);
            if let Control::Pong { id, .. } = said {
                assert_eq!(to.pinged, Some(id), "{side:?} answers the last PING");
            }
            if let Control::Ack { rx_pos, .. } | Control::Pong { rx_pos, .. } = said {
                assert_eq!(rx_pos, to.applied, "{side:?} acknowledges what it has applied");
                to.told = rx_pos;
            }
        }
        self.directions(side).1.free();
        drains
    }

    /// `side` is about to apply the whole frames at the front of `input`.
    pub(crate) fn handle_delivered(&mut self, side: Side, input: &[u8]) {
        for (header, frame) in frames(input) {
            let (to, from) = self.directions(side);
            if kind::is_tracked(header.kind) {
                if to.apply(frame) {
                    from.handle_applied(&header, frame);
                }
                continue;
            }
            match control(&header, frame) {
                Control::Ack { rx_pos, .. } | Control::Pong { rx_pos, .. } => {
                    from.handle_ack(rx_pos);
                }
                Control::Ping { id } => to.pinged = Some(id),
                _ => {}
            }
        }
    }

    /// The instance accepted a claim and left its old link.
    pub(crate) fn handle_claim(&mut self, claim: &Claim, resumed: &Resumed) {
        assert_eq!(resumed.rx_pos, self.to_instance.applied, "the instance says where it stands");
        assert!(claim.rx_pos <= self.to_point.applied, "a claim from the future");
        assert!(claim.epoch > self.epoch, "claim {} after claim {}", claim.epoch, self.epoch);
        self.epoch = claim.epoch;
        self.to_instance.skip = 0;
        self.to_instance.told = resumed.rx_pos;
        self.to_point.restart(resumed.tx_start);
        assert!(resumed.tx_start <= self.to_point.applied, "the point would miss bytes");
    }

    /// The connection point moved to the link on which its claim was accepted.
    pub(crate) fn handle_resumed(&mut self, resumed: &Resumed) {
        assert_eq!(resumed.rx_pos, self.to_instance.applied, "nothing came after the answer");
        assert_eq!(resumed.epoch, self.epoch, "the instance has moved on");
        self.to_instance.restart(resumed.rx_pos);
        self.to_point.skip = self.to_point.applied - resumed.tx_start;
        self.to_point.told = resumed.tx_start;
    }
}

impl Direction {
    /// The sender goes back to `position` on a new link.
    fn restart(&mut self, position: u64) {
        assert!((self.freed..=self.history.len() as u64).contains(&position), "nothing to replay");
        self.written = position;
        self.claimed = self.claimed.max(position);
        self.freed = position;
    }

    fn write(&mut self, header: &Header, frame: &[u8], reverse: &mut Self) {
        let start = self.written as usize;
        self.written += frame.len() as u64;
        if let Some(first) = self.history.get(start..start + frame.len()) {
            assert!(first == frame, "a replayed {} differs", kind::name(header.kind));
            return;
        }
        assert_eq!(start, self.history.len(), "a frame straddles what was written before");
        self.history.extend_from_slice(frame);
        let id = header.stream;
        self.due.remove(&(id, header.kind));
        match header.kind {
            kind::OPEN => {
                assert!(!self.is_drained, "{id} is opened after GOAWAY has arrived");
                // Either direction of the stream begins; what its id meant before is over.
                let half = |direction: &Self| Credit {
                    sent: 0,
                    allowed: direction.window,
                    granted: direction.window,
                    consumed: 0,
                    window: direction.window,
                };
                self.streams.insert(id, half(self));
                reverse.streams.insert(id, half(reverse));
                if header.length > OPEN_PREFIX || header.flags != 0 {
                    self.spend(id, header.length - OPEN_PREFIX);
                }
            }
            kind::DATA => self.spend(id, header.length),
            kind::RESET => match control(header, frame) {
                Control::Reset { offset, .. } => {
                    assert_eq!(offset, self.streams[&id].sent, "final offset of {id}");
                }
                other => unreachable!("{other:?}"),
            },
            kind::CREDIT => match control(header, frame) {
                Control::Credit { max } => reverse.grant(id, max),
                other => unreachable!("{other:?}"),
            },
            kind::TICKETS => match control(header, frame) {
                Control::Tickets { max_opens } => {
                    assert!(max_opens > self.max_opens, "TICKETS that allow nothing");
                    self.max_opens = max_opens;
                }
                other => unreachable!("{other:?}"),
            },
            _ => {}
        }
    }

    fn spend(&mut self, id: StreamId, data_bytes: u32) {
        let credit = self.streams.get_mut(&id).expect("data of a stream that was opened");
        credit.sent += u64::from(data_bytes + FRAME_CHARGE);
        assert!(credit.sent <= credit.allowed, "{id} sends beyond its credit");
        assert!(credit.allowed <= credit.granted, "{id} was allowed more than was granted");
    }

    /// What is granted and not consumed is a window, to the byte: the one of before or twice that, or the
    /// first one or twice that, because a window that becomes small again is not granted at once.
    fn grant(&mut self, id: StreamId, max: u64) {
        let (first, largest) = (self.window, self.max_window);
        let credit = self.streams.get_mut(&id).expect("credit of a stream that was opened");
        assert!(max >= credit.granted, "credit of {id} was taken back");
        let window = max - credit.consumed;
        let doubled = |window: u64| window.max((2 * window).min(largest));
        let before = credit.window;
        assert!(
            [before, doubled(before), first, doubled(first)].contains(&window),
            "{id} has {window} bytes of credit, which is no window: it had {before}"
        );
        (credit.granted, credit.window) = (max, window);
    }

    /// The sender of this direction applied a frame of the other one.
    fn handle_applied(&mut self, header: &Header, frame: &[u8]) {
        if header.kind == kind::RESET || header.flags & FIN != 0 {
            self.due.remove(&(header.stream, kind::STOP));
        }
        self.is_drained |= header.kind == kind::GOAWAY;
        if header.kind == kind::CREDIT
            && let Control::Credit { max } = control(header, frame)
            && let Some(credit) = self.streams.get_mut(&header.stream)
        {
            credit.allowed = max;
        }
    }

    /// The receiver takes a frame; says whether it applies it.
    fn apply(&mut self, frame: &[u8]) -> bool {
        if self.skip > 0 {
            self.skip -= frame.len() as u64;
            return false;
        }
        let start = self.applied as usize;
        assert!(
            self.history.get(start..start + frame.len()) == Some(frame),
            "what is applied at {start} is not what was written there"
        );
        self.applied += frame.len() as u64;
        true
    }

    fn handle_ack(&mut self, position: u64) {
        assert!((self.claimed..=self.history.len() as u64).contains(&position), "impossible ack");
        self.claimed = position;
        self.free();
    }

    fn free(&mut self) {
        self.freed = self.freed.max(self.claimed.min(self.written));
    }
}

/// The whole frames at the front of `bytes`.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let header = Header::decode(bytes).expect("an honest end sends no such header")?;
        let (frame, rest) = bytes.split_at_checked(header.frame_bytes())?;
        bytes = rest;
        Some((header, frame))
    })
}

fn control(header: &Header, frame: &[u8]) -> Control {
    Control::decode(header, &frame[HEADER_BYTES..]).expect("an honest end sends no such frame")
}
