//! What happens on different streams reaches the application in the order of the frames.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use cmgmux_mux::frame::{Control, EOM, FIN, HEADER_BYTES, Header, kind};
use cmgmux_mux::{Config, End, Limits, ResumeCode, StreamCode, StreamId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::frames::split;
use crate::pair::{Endpoint, Pair, Told};

/// Bytes of an OPEN's body before its data.
const OPEN_PREFIX: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Action {
    Open,
    Send {
        stream: usize,
        bytes: usize,
        end: End,
    },
    Reset {
        stream: usize,
    },
    Stop {
        stream: usize,
    },
    Consume {
        stream: usize,
    },
    Write,
    Deliver {
        bytes: usize,
    },
    /// The channel moves to a new link; the old one delivers so much after the claim, if it lives.
    Move {
        is_cut: bool,
        late: usize,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let stream = || 0..8usize;
    let bytes = || prop_oneof![0..40usize, 900..1_200usize, 10_000..60_000usize];
    let end = prop_oneof![4 => Just(End::None), 2 => Just(End::Part), 1 => Just(End::Stream)];
    prop_oneof![
        3 => Just(Action::Open),
        8 => (stream(), bytes(), end)
            .prop_map(|(stream, bytes, end)| Action::Send { stream, bytes, end }),
        1 => stream().prop_map(|stream| Action::Reset { stream }),
        1 => stream().prop_map(|stream| Action::Stop { stream }),
        3 => stream().prop_map(|stream| Action::Consume { stream }),
        5 => Just(Action::Write),
        5 => prop_oneof![1..200usize, 5_000..40_000usize, Just(usize::MAX)]
            .prop_map(|bytes| Action::Deliver { bytes }),
        1 => (any::<bool>(), 0..30_000usize)
            .prop_map(|(is_cut, late)| Action::Move { is_cut, late }),
    ]
}

/// What an end has done, and how much its application had been told by then.
#[derive(Clone, Copy, Debug)]
enum Did {
    /// Its application wants no more.
    Stopped(StreamId),
    /// Its half cannot be stopped any more.
    Ended(StreamId),
}

/// What one end has put on its links, and done.
#[derive(Default)]
struct Record {
    /// All tracked frames, as first written.
    history: Vec<u8>,
    /// Position written to the present link.
    written: usize,
    did: Vec<(usize, Did)>,
}

/// Both ends, the connection point first.
struct Scene {
    pair: Pair,
    records: [Record; 2],
    said: u8,
}

impl Scene {
    fn ends(&mut self, side: usize) -> (&mut Endpoint, &mut Endpoint) {
        let Pair { point, instance, .. } = &mut self.pair;
        if side == 0 { (point, instance) } else { (instance, point) }
    }

    fn note(&mut self, side: usize, did: Did) {
        let told = self.ends(side).0.app.told.len();
        self.records[side].did.push((told, did));
    }

    fn handle(&mut self, side: usize, action: Action) {
        let now = self.pair.now;
        let (end, _) = self.ends(side);
        match action {
            Action::Open => drop(end.open()),
            Action::Send { stream, bytes, end: ending } => {
                let Some((_, id)) = end.app.pick(stream) else { return };
                self.said = self.said.wrapping_add(1);
                let data = Bytes::from(vec![self.said; bytes]);
                let _ = self.ends(side).0.channel.send(id, data, ending);
            }
            Action::Reset { stream } => {
                let Some((_, id)) = end.app.pick(stream) else { return };
                end.channel.reset(id, StreamCode(0x100));
                self.note(side, Did::Ended(id));
            }
            Action::Stop { stream } => {
                let Some((_, id)) = end.app.pick(stream) else { return };
                end.stop(id, StreamCode(0x101));
                self.note(side, Did::Stopped(id));
            }
            Action::Consume { stream } => {
                if let Some((number, _)) = end.app.pick(stream) {
                    end.consume_all(number);
                }
            }
            Action::Write => drop(self.write(side)),
            Action::Deliver { bytes } => end.deliver(now, bytes).unwrap(),
            Action::Move { is_cut, late } => self.carry_on(is_cut, late),
        }
    }

    /// Writes a batch, which begins where the last one ended; says whether there was one.
    fn write(&mut self, side: usize) -> bool {
        let now = self.pair.now;
        let (end, peer) = self.ends(side);
        let Some(batch) = end.batch(now) else { return false };
        peer.wire.extend_from_slice(&batch);
        for (header, frame) in split(&batch) {
            if header.kind == kind::RESET || header.flags & FIN != 0 {
                self.note(side, Did::Ended(header.stream));
            }
            if kind::is_tracked(header.kind) {
                self.records[side].write(frame);
            }
        }
        true
    }

    fn carry_on(&mut self, is_cut: bool, late: usize) {
        let now = self.pair.now;
        if is_cut {
            self.pair.cut();
        }
        let Pair { point, instance, .. } = &mut self.pair;
        let claim = point.channel.claim();
        point.deliver(now, late).unwrap();
        let resumed = instance.channel.handle_claim(now, &claim).unwrap();
        assert_eq!(resumed.code, ResumeCode::ACCEPTED);
        instance.lose_wire();
        point.lose_wire();
        assert!(point.channel.handle_resumed(now, &resumed).unwrap());
        self.records[0].written = resumed.rx_pos as usize;
        self.records[1].written = resumed.tx_start as usize;
    }

    /// Lets both ends say and read everything.
    fn finish(&mut self) {
        for _ in 0..2_000 {
            for side in 0..2 {
                let (end, _) = self.ends(side);
                for number in 0..end.app.streams.len() {
                    end.consume_all(number);
                    let seen = &end.app.streams[number];
                    if let (Some(id), false) = (seen.id, seen.retired) {
                        let _ = end.channel.send(id, Bytes::new(), End::Stream);
                    }
                }
                while self.write(side) {}
            }
            self.pair.now = self.pair.now.after(Duration::from_millis(25));
            let now = self.pair.now;
            for side in 0..2 {
                self.ends(side).0.deliver(now, usize::MAX).unwrap();
            }
            let is_done = |end: &Endpoint| {
                end.app.streams.iter().all(|seen| seen.retired)
                    && end.channel.counters().ring_bytes == 0
            };
            if is_done(&self.pair.point) && is_done(&self.pair.instance) {
                return;
            }
        }
        panic!("streams do not end: {:#?}", self.pair);
    }
}

impl Record {
    fn write(&mut self, frame: &[u8]) {
        let after = self.written + frame.len();
        if self.written == self.history.len() {
            self.history.extend_from_slice(frame);
        }
        assert_eq!(self.history.get(self.written..after), Some(frame), "sent again, and different");
        self.written = after;
    }
}

/// What an application has to be told that has done all that, when these frames are applied.
fn expected(history: &[u8], did: &[(usize, Did)]) -> Vec<Told> {
    let (mut told, mut did) = (Vec::new(), did.iter().peekable());
    let (mut unwanted, mut ended) = (BTreeSet::new(), BTreeSet::new());
    for (header, frame) in split(history) {
        // What it has done before it was told of this frame.
        while let Some((_, did)) = did.next_if(|(at, _)| *at <= told.len()) {
            match did {
                Did::Stopped(id) => unwanted.insert(*id),
                Did::Ended(id) => ended.insert(*id),
            };
        }
        let id = header.stream;
        let is_wanted = !unwanted.contains(&id);
        match header.kind {
            kind::OPEN => {
                told.push(Told::Opened(id));
                if header.length as usize > OPEN_PREFIX || header.flags != 0 {
                    told.push(data(&header, &frame[HEADER_BYTES + OPEN_PREFIX..]));
                }
            }
            kind::DATA if is_wanted => told.push(data(&header, &frame[HEADER_BYTES..])),
            kind::DATA => {}
            _ => match Control::decode(&header, &frame[HEADER_BYTES..]).unwrap() {
                Control::Reset { code, .. } if is_wanted => {
                    told.push(Told::Reset(id, StreamCode(code)));
                }
                Control::Stop { code } if ended.insert(id) => {
                    told.push(Told::Stopped(id, StreamCode(code)));
                }
                Control::Tickets { .. } => told.push(Told::Tickets),
                _ => {}
            },
        }
    }
    told
}

fn data(header: &Header, data: &[u8]) -> Told {
    let end = match header.flags {
        flags if flags & FIN != 0 => End::Stream,
        flags if flags & EOM != 0 => End::Part,
        _ => End::None,
    };
    Told::Data(header.stream, Bytes::copy_from_slice(data), end)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    // R-FRAME-9, R-RESUME-7
    #[test]
    fn an_application_is_told_of_all_streams_in_the_order_of_the_frames_also_across_links(
        actions in vec((0..2usize, action()), 0..150),
        max_streams in 1..12u32,
    ) {
        let limits = Limits { max_streams, ..Limits::default() };
        let config = Config { local: limits, peer: limits, ..Config::default() };
        let mut scene = Scene { pair: Pair::new(&config), records: Default::default(), said: 0 };
        for (side, action) in actions {
            scene.handle(side, action);
        }
        scene.finish();
        for side in 0..2 {
            let expected = expected(&scene.records[1 - side].history, &scene.records[side].did);
            let told = &scene.ends(side).0.app.told;
            let differs = told.iter().zip(&expected).position(|(told, frame)| told != frame);
            prop_assert_eq!(differs, None, "{:?} and {:?}", told, &expected);
            prop_assert_eq!(told.len(), expected.len());
        }
    }
}
