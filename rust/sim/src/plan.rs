//! What happens in one run: sizes, streams and faults, drawn from a seed or read from a file.
//!
//! A plan is complete: the same plan gives the same run. Everything in it stands by itself, so that a
//! stream or a fault can be taken out and the rest happens as before.

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// One run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Plan {
    /// Decides how links delay and split what they carry.
    pub seed: u64,
    /// What the connection point allows, and the instance.
    pub sizes: [Sizes; 2],
    /// Every link.
    pub net: Net,
    /// When the faults are over and everything has to come to an end, in ms.
    pub heal_ms: u32,
    /// What applications do.
    pub streams: Vec<Stream>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// Settings of one end.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Sizes {
    /// As in [`Limits`](cmgmux_mux::Limits).
    pub max_streams: u32,
    /// As in [`Limits`](cmgmux_mux::Limits).
    pub window_bytes: u32,
    /// As in [`Config`](cmgmux_mux::Config), like those that follow.
    pub max_window_bytes: u32,
    /// Of unread data.
    pub budget_bytes: u64,
    /// Of a stream's send queue.
    pub queue_bytes: u32,
    /// Of the replay ring.
    pub ring_bytes: u64,
    /// Time without a link.
    pub resume_window_ms: u32,
}

impl Sizes {
    /// The window that a stream begins with, and the largest that it may have.
    pub(crate) fn windows(&self) -> (u64, u64) {
        let first = u64::from(self.window_bytes);
        (first, first.max(u64::from(self.max_window_bytes)))
    }
}

/// How links carry bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Net {
    /// Longest delay of a piece.
    pub delay_us: u32,
    /// Pieces in a thousand that take up to 5 s.
    pub late_per_mille: u32,
    /// Longest piece that arrives in one go.
    pub piece_bytes: u32,
    /// What a link takes before its writer has to wait.
    pub buffer_bytes: u32,
}

/// A stream and what both of its applications do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Stream {
    /// When it is opened, or first tried to.
    pub at_us: u64,
    /// 0 the connection point, 1 the instance.
    pub opener: usize,
    /// The opener's application, and the acceptor's.
    pub applications: [Behaviour; 2],
}

/// What an application does with its end of a stream.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Behaviour {
    /// Writes back what it reads, instead of bytes of its own.
    pub echoes: bool,
    /// Bytes that it writes of its own.
    pub bytes: u64,
    /// At most so many at a time.
    pub piece_bytes: u32,
    /// A part ends behind each multiple of this.
    pub part_bytes: u32,
    /// Time between two pieces.
    pub write_pace_us: u32,
    /// What follows the last byte.
    pub ending: Ending,
    /// Time between two pieces that it reads.
    pub read_pace_us: u32,
    /// Reads nothing until the faults are over.
    pub sleeps: bool,
    /// Stops the peer when it has read so many bytes.
    pub stop_at: Option<u64>,
    /// Time between the end of both halves and the end of the application.
    pub linger_us: u32,
}

/// How a sending half ends.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Ending {
    /// The end stands behind the last bytes.
    Joined,
    /// The end comes alone.
    Alone,
    /// The half is reset.
    Reset,
    /// It is ended, and reset at once.
    EndedAndReset,
    /// Nothing, until the faults are over.
    Endless,
}

/// Something that goes wrong, and when.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Fault {
    /// From the beginning of the run.
    pub at_us: u64,
    /// What it is.
    pub kind: Kind,
}

/// The faults. Sides are 0, the connection point, and 1, the instance.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Kind {
    /// The present link, or the next one, carries so many more bytes to either end, and breaks.
    Cut {
        /// Of the next link instead of the present one.
        next: bool,
        /// To each end.
        bytes: [u32; 2],
    },
    /// The present link carries nothing to the ends named for so long.
    Freeze {
        /// Towards which end.
        to: [bool; 2],
        /// For how long.
        ms: u32,
    },
    /// A process stands still.
    Pause {
        /// Whose.
        side: usize,
        /// For how long.
        ms: u32,
    },
    /// The connection point moves to a new link while the present one lives.
    Move,
    /// An earlier claim arrives again, on a link that nobody reads.
    Repeat {
        /// Counted back from the newest.
        back: usize,
    },
    /// A process dies and another takes its place.
    Restart {
        /// Whose.
        side: usize,
    },
    /// The present link breaks, and no new one can be made for so long.
    Outage {
        /// For how long.
        ms: u32,
    },
    /// One end takes no more streams and closes the channel when those that it has are over.
    Drain {
        /// Whose.
        side: usize,
        /// What they may take.
        grace_ms: u32,
    },
}

const KINDS: usize = 8;

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let heal_ms = wide(&mut rng, 100, 60_000) as u32;
        let mut plan = Self {
            seed,
            sizes: [sizes(&mut rng), sizes(&mut rng)],
            net: net(&mut rng),
            heal_ms,
            streams: streams(&mut rng, heal_ms, 1, 400),
            faults: faults(&mut rng, heal_ms),
        };
        if one_in(&mut rng, 40) {
            plan.crowd(&mut rng);
        }
        if one_in(&mut rng, 8) {
            plan.squeeze(&mut rng);
        }
        plan
    }

    /// Makes it a run in which half of the readers sleep, and the budgets are smaller than what is written.
    fn squeeze(&mut self, rng: &mut Rng) {
        let mut bytes = 0;
        for application in self.streams.iter_mut().flat_map(|stream| &mut stream.applications) {
            application.sleeps |= rng.bool();
            bytes += application.bytes;
        }
        for sizes in &mut self.sizes {
            sizes.budget_bytes = wide(rng, 100, 100 + bytes / 4);
        }
    }

    /// Makes it a run of so many streams that what ends them does not fit into one batch: most of them
    /// are given up at once, the others are answered at the same time.
    fn crowd(&mut self, rng: &mut Rng) {
        self.streams = streams(rng, self.heal_ms, 500, 3_000);
        self.sizes.iter_mut().for_each(|sizes| sizes.max_streams = 3_000);
        let steadfast = wide(rng, 2, 50) as u32;
        for stream in &mut self.streams {
            let [opener, acceptor] = &mut stream.applications;
            opener.ending = Ending::Endless;
            (acceptor.echoes, acceptor.sleeps) = (true, true);
            acceptor.stop_at = (!one_in(rng, steadfast)).then_some(0);
        }
    }
}

/// A number between both, small ones as likely as large ones.
fn wide(rng: &mut Rng, least: u64, most: u64) -> u64 {
    let (low, high) = ((least.max(1) as f64).ln(), (most as f64 + 1.0).ln());
    #[allow(clippy::cast_sign_loss, reason = "a power is positive")]
    let drawn = (low + (high - low) * rng.f64()).exp() as u64;
    if least == 0 && rng.u8(..8) == 0 { 0 } else { drawn.clamp(least, most) }
}

fn one_in(rng: &mut Rng, count: u32) -> bool {
    rng.u32(..count) == 0
}

fn sizes(rng: &mut Rng) -> Sizes {
    let window_bytes = wide(rng, 16 * 1024, 256 * 1024) as u32;
    let is_fixed = rng.bool();
    let room = if one_in(rng, 3) { wide(rng, 40_000, 2_000_000) } else { 64 << 20 };
    Sizes {
        max_streams: wide(rng, 1, 300) as u32,
        window_bytes,
        max_window_bytes: if is_fixed { window_bytes } else { 8 << 20 },
        budget_bytes: room,
        queue_bytes: wide(rng, 1, 64 * 1024) as u32,
        ring_bytes: if rng.bool() { wide(rng, 20_000, 1 << 20) } else { 16 << 20 },
        resume_window_ms: if rng.bool() { 60_000 } else { wide(rng, 500, 60_000) as u32 },
    }
}

fn net(rng: &mut Rng) -> Net {
    let is_splitting = one_in(rng, 3);
    Net {
        delay_us: wide(rng, 0, 300_000) as u32,
        late_per_mille: if one_in(rng, 4) { rng.u32(1..20) } else { 0 },
        piece_bytes: if is_splitting { wide(rng, 1, 200) } else { wide(rng, 200, 65_536) } as u32,
        buffer_bytes: wide(rng, 500, 1 << 20) as u32,
    }
}

/// Many small streams, or few large ones.
fn streams(rng: &mut Rng, heal_ms: u32, least: u64, most: u64) -> Vec<Stream> {
    let count = wide(rng, least, most);
    let bytes = wide(rng, 1, 1_500_000) / count + 1;
    let sides: [usize; 2] = *rng.choice(&[[0, 0], [1, 1], [0, 1]]).expect("three");
    let is_plain = rng.bool();
    let span = u64::from(heal_ms) * 1_000;
    let spread = wide(rng, 1, span);
    (0..count)
        .map(|_| {
            let at_us = rng.u64(0..spread);
            let opener = behaviour(rng, bytes, is_plain, None);
            let acceptor = behaviour(rng, bytes, is_plain, Some(opener.bytes));
            let side = sides[rng.usize(..2)];
            Stream { at_us, opener: side, applications: [opener, acceptor] }
        })
        .collect()
}

/// An application that writes about as many bytes, or those that its peer is going to write.
fn behaviour(rng: &mut Rng, bytes: u64, is_plain: bool, peer_bytes: Option<u64>) -> Behaviour {
    let ending = match rng.u8(..if is_plain { 6 } else { 12 }) {
        0..=2 => Ending::Joined,
        3..=5 => Ending::Alone,
        6 | 7 => Ending::Reset,
        8 => Ending::EndedAndReset,
        9 => Ending::Endless,
        _ => Ending::Joined,
    };
    let pace = |rng: &mut Rng| if one_in(rng, 3) { wide(rng, 1, 500_000) as u32 } else { 0 };
    let echoed = peer_bytes.filter(|_| one_in(rng, 4));
    let bytes = echoed.unwrap_or_else(|| wide(rng, 0, 4 * bytes));
    // Neither pieces nor the time between them make a stream take for ever.
    let piece_bytes = wide(rng, 1 + bytes / 200, 1 + bytes.max(20_000)) as u32;
    Behaviour {
        echoes: echoed.is_some(),
        bytes,
        piece_bytes,
        part_bytes: wide(rng, 1 + bytes / 300, 1 + 4 * bytes) as u32,
        write_pace_us: pace(rng),
        ending,
        read_pace_us: pace(rng),
        sleeps: !is_plain && one_in(rng, 10),
        stop_at: (!is_plain && one_in(rng, 8)).then(|| wide(rng, 0, bytes + 1)),
        linger_us: pace(rng),
    }
}

fn faults(rng: &mut Rng, heal_ms: u32) -> Vec<Fault> {
    let mut kinds: Vec<usize> = (0..KINDS).filter(|_| rng.bool()).collect();
    if one_in(rng, 3) {
        kinds = vec![rng.usize(..KINDS)];
    }
    let count = if kinds.is_empty() { 0 } else { wide(rng, 0, 40) };
    let comes_in_bursts = one_in(rng, 3);
    let mut at_us = 0;
    (0..count)
        .map(|_| {
            at_us = if comes_in_bursts && !one_in(rng, 5) {
                at_us + wide(rng, 1, 200_000)
            } else {
                rng.u64(0..u64::from(heal_ms) * 1_000)
            };
            let kind = kinds[rng.usize(..kinds.len())];
            Fault { at_us, kind: fault(rng, kind) }
        })
        .collect()
}

fn fault(rng: &mut Rng, kind: usize) -> Kind {
    let side = rng.usize(..2);
    match kind {
        0 => {
            let next = rng.bool();
            let most = if next && rng.bool() { 200 } else { 200_000 };
            let mut bytes = || wide(rng, 0, most) as u32;
            Kind::Cut { next, bytes: [bytes(), bytes()] }
        }
        1 => {
            let to = *rng.choice(&[[true, true], [true, false], [false, true]]).expect("three");
            Kind::Freeze { to, ms: wide(rng, 1, 40_000) as u32 }
        }
        2 => Kind::Pause { side, ms: wide(rng, 1, 30_000) as u32 },
        3 => Kind::Move,
        4 => Kind::Repeat { back: rng.usize(..3) },
        5 => Kind::Restart { side },
        6 => Kind::Outage { ms: wide(rng, 10, 90_000) as u32 },
        _ => Kind::Drain { side, grace_ms: wide(rng, 1, 20_000) as u32 },
    }
}
