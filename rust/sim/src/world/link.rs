//! A connection between both ends: bytes under way, in order, cut and delayed.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use cmgmux_mux::Timestamp;
use fastrand::Rng;

use crate::plan::Net;

/// What a link that is well takes at least before its writer has to wait.
const WELL_BYTES: usize = 64 * 1024;

/// One connection. Sides are 0, the connection point, and 1, the instance.
#[derive(Debug)]
pub(super) struct Link {
    /// What is under way to either end.
    pub(super) ways: [Way; 2],
    /// What either end has to do with it.
    pub(super) roles: [Role; 2],
    /// What has arrived at either end of the first frame.
    pub(super) heads: [BytesMut; 2],
    /// The channel that is to be resumed on it.
    pub(super) channel: Option<usize>,
    /// Whether it has had its end.
    pub(super) is_dead: bool,
    /// What it takes before its writer has to wait; one link is not as wide as the next.
    buffer_bytes: usize,
    rng: Rng,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Waits for the first frame.
    Opening,
    /// The channel of that end is on it.
    Attached,
    /// Has closed it.
    Left,
}

/// What is under way to one end.
#[derive(Debug, Default)]
pub(super) struct Way {
    pieces: VecDeque<Piece>,
    bytes: usize,
    newest: Timestamp,
    /// Bytes that the link still takes before it breaks.
    left: Option<usize>,
    pub(super) frozen_until: Timestamp,
}

#[derive(Debug)]
pub(super) enum Piece {
    Data(Bytes),
    /// The connection is over.
    End,
}

impl Link {
    pub(super) fn new(seed: u64, net: &Net) -> Self {
        let mut rng = Rng::with_seed(seed);
        let widest = net.buffer_bytes as usize;
        Self {
            ways: Default::default(),
            roles: [Role::Opening; 2],
            heads: Default::default(),
            channel: None,
            is_dead: false,
            buffer_bytes: (widest >> rng.u32(..6)).max(500),
            rng,
        }
    }

    /// Bytes that it takes towards `side`.
    pub(super) fn room(&self, side: usize) -> usize {
        let way = &self.ways[side];
        if way.left == Some(0) || self.roles[side] == Role::Left {
            return usize::MAX;
        }
        self.buffer_bytes.saturating_sub(way.bytes)
    }

    /// Takes bytes towards `side` and says when their pieces arrive.
    pub(super) fn write(
        &mut self,
        now: Timestamp,
        side: usize,
        net: &Net,
        mut bytes: Bytes,
    ) -> Vec<Timestamp> {
        let mut arrivals = Vec::new();
        let way = &mut self.ways[side];
        if self.roles[side] == Role::Left || way.left == Some(0) {
            return arrivals;
        }
        if let Some(left) = &mut way.left {
            bytes.truncate(*left);
            *left -= bytes.len();
        }
        while bytes.has_remaining() {
            let length = self.rng.usize(1..=net.piece_bytes as usize).min(bytes.len());
            let is_late = self.rng.u32(..1000) < net.late_per_mille;
            let most = if is_late { 5_000_000 } else { u64::from(net.delay_us) };
            arrivals.push(way.put(now, self.rng.u64(..=most), Piece::Data(bytes.split_to(length))));
        }
        if way.left == Some(0) {
            arrivals.push(way.put(now, 0, Piece::End));
        }
        arrivals
    }

    /// Breaks when so many more bytes have been carried to `side`, counting those under way. Says when
    /// that is known to arrive.
    pub(super) fn cut(&mut self, now: Timestamp, side: usize, bytes: usize) -> Option<Timestamp> {
        let way = &mut self.ways[side];
        if way.left == Some(0) {
            return None;
        }
        if bytes > way.bytes {
            way.left = Some(bytes - way.bytes);
            return None;
        }
        way.truncate(bytes);
        way.left = Some(0);
        Some(way.put(now, 0, Piece::End))
    }

    /// `side` resets the link as likely as not: any part of what it has under way may be lost then.
    pub(super) fn lose_part(&mut self, side: usize) {
        let way = &mut self.ways[1 - side];
        if way.left != Some(0) && self.rng.bool() {
            way.truncate(self.rng.usize(..=way.bytes));
        }
    }

    /// `side` is done with the link; what it has written still arrives, and then the end.
    pub(super) fn leave(&mut self, now: Timestamp, side: usize) -> Option<Timestamp> {
        self.roles[side] = Role::Left;
        self.is_dead = true;
        self.ways[side] = Way::default();
        let way = &mut self.ways[1 - side];
        if self.roles[1 - side] == Role::Left || way.left == Some(0) {
            return None;
        }
        way.left = Some(0);
        Some(way.put(now, 0, Piece::End))
    }

    /// It is not narrow any more.
    pub(super) fn widen(&mut self) {
        self.buffer_bytes = self.buffer_bytes.max(WELL_BYTES);
    }

    /// Nothing more goes wrong with it; says how many pieces can arrive at once towards `side`.
    pub(super) fn heal(&mut self, now: Timestamp, side: usize) -> usize {
        let way = &mut self.ways[side];
        way.frozen_until = Timestamp::ZERO;
        way.newest = now;
        way.left = way.left.filter(|left| *left == 0);
        way.pieces.len()
    }

    /// The next piece towards `side`.
    pub(super) fn take(&mut self, side: usize) -> Option<Piece> {
        let way = &mut self.ways[side];
        let piece = way.pieces.pop_front()?;
        if let Piece::Data(bytes) = &piece {
            way.bytes -= bytes.len();
        }
        Some(piece)
    }
}

impl Way {
    fn put(&mut self, now: Timestamp, delay_us: u64, piece: Piece) -> Timestamp {
        if let Piece::Data(bytes) = &piece {
            self.bytes += bytes.len();
        }
        self.pieces.push_back(piece);
        let arrival = Timestamp::from_micros(now.as_micros() + delay_us);
        self.newest = self.newest.max(arrival);
        self.newest
    }

    fn truncate(&mut self, bytes: usize) {
        while self.bytes > bytes {
            match self.pieces.pop_back() {
                Some(Piece::Data(mut data)) => {
                    let excess = self.bytes - bytes;
                    self.bytes -= data.len();
                    if data.len() > excess {
                        data.truncate(data.len() - excess);
                        self.bytes += data.len();
                        self.pieces.push_back(Piece::Data(data));
                    }
                }
                Some(Piece::End) | None => return,
            }
        }
    }
}
