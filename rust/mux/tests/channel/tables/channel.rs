//! The table of a channel's states.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use cmgmux_mux::frame::{Control, kind};
use cmgmux_mux::{
    Claim, CloseCode, Config, End, Expiry, ProtocolError, ResumeCode, Resumed, Side, StreamId,
    Timestamp, UsageError,
};

use super::{NOW, code, table, words};
use crate::frames::{OPEN, control, frame, split};
use crate::pair::Endpoint;

/// An end with one stream, which has said the OPEN of it and had it acknowledged.
struct Held {
    end: Endpoint,
    now: Timestamp,
    side: Side,
}

impl Held {
    /// In all of these states, of which none is Attached, or in that one.
    fn with(side: Side, states: &[&str]) -> Self {
        let mut held = Self { end: Endpoint::new(side, Config::default()), now: NOW, side };
        held.end.open().unwrap();
        while held.end.acknowledged_batch(NOW).is_some() {}
        if states.contains(&"Draining") {
            held.end.channel.go_away(CloseCode::SHUTDOWN, Duration::from_secs(9));
            while held.end.acknowledged_batch(NOW).is_some() {}
        }
        if states.contains(&"Drained") {
            held.takes(&go_away(1)).unwrap();
        }
        if states.contains(&"Detached") {
            held.end.channel.handle_link_lost(NOW);
        }
        held.end.app.draining = None;
        held
    }

    /// Closes the channel, and says so if it can.
    fn close(&mut self) -> Vec<&'static str> {
        self.end.channel.close(CloseCode::SHUTDOWN, "");
        self.says()
    }

    fn takes(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.end.wire.extend_from_slice(bytes);
        let result = self.end.deliver(self.now, usize::MAX);
        self.end.lose_wire();
        result
    }

    /// The names of the frames that it sends.
    fn says(&mut self) -> Vec<&'static str> {
        let mut names = Vec::new();
        while let Some(batch) = self.end.batch(self.now) {
            names.extend(split(&batch).iter().map(|(header, _)| kind::name(header.kind)));
            assert!(names.len() < 100, "it never falls silent");
            if batch.is_empty() {
                names.push("nothing, again and again");
            }
        }
        names
    }

    fn waits(&mut self, time: Duration) -> Option<Expiry> {
        self.now = self.now.after(time);
        self.end.channel.handle_timeout(self.now)
    }

    /// A stream of the peer's.
    fn theirs(&self, index: u32) -> StreamId {
        StreamId::from_wire(u32::from(self.side == Side::ConnectionPoint) << 31 | index)
    }
}

fn go_away(opens_accepted: u64) -> BytesMut {
    let go_away = Control::GoAway { opens_accepted, code: 0, grace_ms: 1 };
    control(&go_away, StreamId::CHANNEL)
}

/// Carries out an event of the channel's table, and says in words what it did.
fn carry_out_on_channel(held: &mut Held, event: &str) -> Vec<String> {
    let mut did: Vec<String> = Vec::new();
    let (channel, was_attached) = (StreamId::CHANNEL, held.end.channel.is_attached());
    let sent = held.end.tracked_bytes();
    let mut refused = |result: Result<(), ProtocolError>| {
        if let Err(error) = result {
            did.push(code(&error));
        }
    };
    match event {
        "application opens a stream" => match held.end.open() {
            Ok(_) => {}
            Err(UsageError::Detached | UsageError::Draining) => did.push("refused".to_owned()),
            Err(other) => panic!("{other}"),
        },
        "application sends data" => {
            let stream = held.end.app.streams[0].id.unwrap();
            held.end.channel.send(stream, Bytes::from_static(b"data"), End::None).unwrap();
        }
        "application closes the channel" => held.end.channel.close(CloseCode::SHUTDOWN, ""),
        "application drains" => held.end.channel.go_away(CloseCode::SHUTDOWN, Duration::ZERO),
        "OPEN arrives" => {
            let open = frame(kind::OPEN, 0, held.theirs(1), &OPEN);
            refused(held.takes(&open));
        }
        "PING arrives" => refused(held.takes(&control(&Control::Ping { id: 1 }, channel))),
        "ACK of what was sent arrives" => {
            let ack = Control::Ack { rx_pos: sent, delay_us: 0 };
            refused(held.takes(&control(&ack, channel)));
        }
        "ACK of more arrives" => {
            let ack = Control::Ack { rx_pos: sent + 1, delay_us: 0 };
            refused(held.takes(&control(&ack, channel)));
        }
        "TICKETS arrive" => {
            refused(held.takes(&control(&Control::Tickets { max_opens: 70_000 }, channel)));
        }
        "GOAWAY arrives, `opens_accepted` possible" => refused(held.takes(&go_away(1))),
        "GOAWAY arrives, `opens_accepted` too high" => refused(held.takes(&go_away(2))),
        "CLOSE arrives" => {
            let close = Control::Close { code: 0, text: String::new() };
            refused(held.takes(&control(&close, channel)));
        }
        "link is lost" => held.end.channel.handle_link_lost(held.now),
        "15 s pass in silence" => {
            if held.waits(Duration::from_secs(15)).is_some() {
                did.push("over".to_owned());
            }
        }
        "60 s pass without a link" => {
            if held.waits(Duration::from_secs(60)) == Some(Expiry::Channel) {
                did.push("over".to_owned());
            }
        }
        claim if claim.starts_with("claim") => {
            let Claim { epoch, rx_pos, tx_first } = match claim {
                "claim of a later epoch" => Claim { epoch: 1, rx_pos: sent, tx_first: 0 },
                "claim of an epoch that was" => Claim { epoch: 0, rx_pos: sent, tx_first: 0 },
                "claim of what never was" => Claim { epoch: 1, rx_pos: 1 << 40, tx_first: 0 },
                other => panic!("the test does not know the event {other:?}"),
            };
            match held.end.channel.handle_claim(held.now, &Claim { epoch, rx_pos, tx_first }) {
                Ok(resumed) => did.push(format!("{:?}", resumed.code)),
                Err(error) => refused(Err(error)),
            }
        }
        answer if answer.starts_with("answer") => {
            let claim = held.end.channel.claim();
            let (epoch, rx_pos) = match answer {
                "answer to the latest claim" => (claim.epoch, sent),
                "answer to another claim" => (claim.epoch - 1, sent),
                "answer with a position that never was" => (claim.epoch, 1 << 40),
                other => panic!("the test does not know the event {other:?}"),
            };
            let tx_start = claim.rx_pos;
            let resumed = Resumed { code: ResumeCode::ACCEPTED, epoch, rx_pos, tx_start };
            match held.end.channel.handle_resumed(held.now, &resumed) {
                Ok(true) => did.push("ACCEPTED".to_owned()),
                Ok(false) => {}
                Err(error) => refused(Err(error)),
            }
        }
        other => panic!("the test does not know the event {other:?}"),
    }
    let app = &held.end.app;
    if app.draining.is_some() || app.tickets > 0 || app.closed.is_some() || !app.accepted.is_empty()
    {
        did.push("application told".to_owned());
    }
    did.extend(held.says().into_iter().filter(|name| *name != "ACK").map(str::to_owned));
    match (was_attached, held.end.channel.is_attached()) {
        (true, false) => did.push("Detached".to_owned()),
        (false, true) => did.push("Attached".to_owned()),
        _ => {}
    }
    if held.end.app.draining.is_some() {
        did.push("Drained".to_owned());
    }
    if did.is_empty() {
        did.push("nothing".to_owned());
    }
    did
}

/// The ends at which an event can happen.
fn sides(event: &str) -> &'static [Side] {
    match event {
        event if event.starts_with("claim") => &[Side::Instance],
        event if event.starts_with("answer") => &[Side::ConnectionPoint],
        _ => &[Side::Instance, Side::ConnectionPoint],
    }
}

/// Sets of states that a channel may be in; Attached is where it is in no other.
const STATES: [&[&str]; 8] = [
    &["Attached"],
    &["Detached"],
    &["Draining"],
    &["Drained"],
    &["Draining", "Drained"],
    &["Detached", "Draining"],
    &["Detached", "Drained"],
    &["Detached", "Draining", "Drained"],
];

/// What a row has for a channel in several states.
fn cell(row: &[(&str, &'static str)], states: &[&str]) -> &'static str {
    let of = |state: &str| row.iter().find(|(name, _)| *name == state).unwrap().1;
    if states.contains(&"Detached") {
        return of("Detached");
    }
    let attached = of("Attached");
    states.iter().map(|state| of(state)).find(|cell| *cell != attached).unwrap_or(attached)
}

// R-GOAWAY-1, R-GOAWAY-2, R-ACK-2, R-RESUME-3, R-RESUME-9, R-RESUME-10, R-RESUME-12, R-RESUME-13
#[test]
fn i18_every_pair_of_a_channel_s_states_and_an_event_has_its_written_result() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for (event, row) in table("The channel", "event") {
        for states in STATES {
            let cell = cell(&row, states);
            // What no state allows for, a cell leaves empty.
            for side in sides(event).iter().filter(|_| !cell.is_empty()) {
                let mut held = Held::with(*side, states);
                let mut did = carry_out_on_channel(&mut held, event);
                let mut written: Vec<String> = words(cell).into_iter().map(str::to_owned).collect();
                did.sort();
                written.sort();
                if did != written {
                    wrong.push(format!(
                        "{event} at {side:?} in {states:?}: {did:?}, not {written:?}"
                    ));
                }
                tried += 1;
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(tried, 208);
}

// R-CLOSE-1
#[test]
fn i18_behind_close_no_event_in_any_state_makes_a_channel_say_anything() {
    let mut tried = 0;
    for (event, row) in table("The channel", "event") {
        for states in STATES {
            let cell = cell(&row, states);
            // That it is closed again has a test of its own.
            let is_possible = !cell.is_empty() && cell != "CLOSE";
            for side in sides(event).iter().filter(|_| is_possible) {
                let mut held = Held::with(*side, states);
                assert_eq!(held.close(), ["CLOSE"]);
                let did = carry_out_on_channel(&mut held, event);
                let mut names = (0..0x20).map(kind::name);
                let is_silent = !names.any(|name| did.iter().any(|word| word == name));
                assert!(is_silent, "{event} at {side:?} in {states:?}: {did:?}");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 200);
}

// R-CLOSE-1
#[test]
fn i18_a_channel_that_is_closed_again_says_nothing() {
    for side in [Side::Instance, Side::ConnectionPoint] {
        let mut held = Held::with(side, &["Attached"]);
        assert_eq!(held.close(), ["CLOSE"]);
        assert!(held.close().is_empty());
    }
}
