//! I18: the tables of states and events in `docs/protocol.md`, carried out cell by cell.
//!
//! Each cell of a half's table is tried with the other half in each of its states, so that every pair
//! of a stream's state and an event is.

mod channel;

use bytes::Bytes;
use cmgmux_mux::frame::{Control, FIN, Header, kind};
use cmgmux_mux::{
    CloseCode, Config, End, ProtocolError, Side, StreamCode, StreamId, Timestamp, UsageError,
};

use crate::frames::{OPEN, control, frame, split, theirs};
use crate::pair::Endpoint;

const PROTOCOL: &str = include_str!("../../../../docs/protocol.md");
const NOW: Timestamp = Timestamp::ZERO;
/// Arrives before everything else: more than half of the window, but for less than a frame.
const BEFORE: [usize; 2] = [10_000, 10_500];
const BEFORE_CHARGE: u64 = 20_500 + 2 * 32;
const TX: [&str; 4] = ["Open", "Finishing", "Resetting", "Sent"];
const RX: [&str; 4] = ["Open", "Stopped", "Ended", "Failed"];

/// The rows of the table under `heading` whose first column is called `first`: what stands in that
/// column, and below each other one.
fn table(heading: &str, first: &str) -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let (_, section) = PROTOCOL.split_once(&format!("\n### {heading}\n")).unwrap();
    let (section, _) = section.split_once("\n#").unwrap();
    let mut lines = section.lines().skip_while(|line| !line.starts_with(&format!("| {first} |")));
    let columns = cells(lines.next().unwrap());
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let row = cells(row);
        (row[0], columns[1..].iter().copied().zip(row[1..].iter().copied()).collect())
    })
    .collect()
}

fn cells(line: &'static str) -> Vec<&'static str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

/// What stands in a cell, word by word.
fn words(cell: &'static str) -> Vec<&'static str> {
    cell.split([',', ';']).map(str::trim).collect()
}

/// A connection point, and its stream that the test's instance has opened.
struct Point {
    end: Endpoint,
    stream: StreamId,
}

impl Point {
    /// With the stream's halves in these states.
    fn with(tx: &str, rx: &str) -> Self {
        let end = Endpoint::new(Side::ConnectionPoint, Config::default());
        let mut point = Self { end, stream: theirs(1, 0) };
        let stream = point.stream;
        point.takes(&frame(kind::OPEN, 0, stream, &OPEN)).unwrap();
        for bytes in BEFORE {
            point.takes(&frame(kind::DATA, 0, stream, &vec![1; bytes])).unwrap();
        }
        match rx {
            "Stopped" => point.end.stop(stream, StreamCode::CANCELLED),
            "Ended" => point.takes(&frame(kind::DATA, FIN, stream, b"")).unwrap(),
            "Failed" => {
                let reset = Control::Reset { code: 1, offset: BEFORE_CHARGE };
                point.takes(&control(&reset, stream)).unwrap();
            }
            _ => {}
        }
        point.says();
        let channel = &mut point.end.channel;
        match tx {
            // More than the credit, so that the end cannot be encoded.
            "Finishing" => channel.send(stream, vec![0; 50_000].into(), End::Stream).unwrap(),
            "Resetting" => {
                return {
                    channel.reset(stream, StreamCode(0x100));
                    point
                };
            }
            "Sent" => channel.send(stream, Bytes::new(), End::Stream).unwrap(),
            _ => {}
        }
        point.says();
        point
    }

    fn takes(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.end.wire.extend_from_slice(bytes);
        let result = self.end.deliver(NOW, usize::MAX);
        self.end.lose_wire();
        result
    }

    fn is_told_nothing(&mut self, before: &str) -> bool {
        format!("{:?}", self.end.app.streams) == before
    }

    /// The headers of what it sends.
    fn says(&mut self) -> Vec<Header> {
        let mut headers = Vec::new();
        while let Some(batch) = self.end.acknowledged_batch(NOW) {
            headers.extend(split(&batch).into_iter().map(|(header, _)| header));
        }
        headers
    }

    /// What it sends for its receiving half.
    fn says_of_receiving(&mut self) -> Vec<Header> {
        let mut said = self.says();
        said.retain(|header| matches!(header.kind, kind::STOP | kind::CREDIT));
        said
    }

    /// The state of the sending half, found by trying what only that state does.
    fn tx(&mut self) -> &'static str {
        let stream = self.stream;
        if self.end.channel.send(stream, Bytes::new(), End::Part).is_ok() {
            return "Open";
        }
        self.takes(&control(&Control::Credit { max: u64::MAX }, stream)).unwrap();
        let said = self.says();
        if said.iter().any(|header| header.flags & FIN != 0) {
            "Finishing"
        } else if said.iter().any(|header| header.kind == kind::RESET) {
            "Resetting"
        } else {
            "Sent"
        }
    }

    /// The state of the receiving half. A half that was stopped ends without a difference between
    /// Ended and Failed.
    fn rx(&mut self) -> &'static str {
        let before = self.end.app.streams[0].data.len();
        let probe = frame(kind::DATA, 0, self.stream, b"?");
        let taken = self.takes(&probe).is_ok();
        let seen = &self.end.app.streams[0];
        match (taken, seen.data.len() > before) {
            (true, true) => "Open",
            (true, false) => "Stopped",
            (false, _) if seen.ended > 0 => "Ended",
            (false, _) if seen.reset.is_some() => "Failed",
            (false, _) => "Ended or Failed",
        }
    }
}

fn code(error: &ProtocolError) -> String {
    format!("{:?}", error.code())
}

/// What an event did.
#[derive(Debug, Default)]
struct Outcome {
    error: Option<String>,
    refused: bool,
    queued: bool,
    queue_dropped: bool,
    limit_moved: bool,
    told: bool,
    delivered: bool,
    said: Vec<Header>,
}

impl Outcome {
    fn has_said(&self, kind: u8) -> bool {
        self.said.iter().any(|header| header.kind == kind)
    }

    /// Whether `word`, which is no state, is true of it.
    fn is(&self, word: &str) -> bool {
        match word {
            "refused" => self.refused,
            "queued" => self.queued && !self.refused,
            "queue dropped" => self.queue_dropped,
            "limit moves" => self.limit_moved,
            "application told" => self.told,
            "delivered" => self.delivered,
            "dropped" => !self.delivered && self.error.is_none(),
            "FIN" => self.said.last().is_some_and(|header| header.flags & FIN != 0),
            "RESET" => self.has_said(kind::RESET),
            "STOP" => self.has_said(kind::STOP),
            "CREDIT when due" => self.has_said(kind::CREDIT),
            "nothing" => self.said.is_empty() && !self.queued && self.error.is_none(),
            code => self.error.as_deref() == Some(code),
        }
    }
}

/// Carries out an event of a half's table.
fn carry_out(point: &mut Point, event: &str) -> Outcome {
    let stream = point.stream;
    let data_before = point.end.app.streams[0].data.len();
    let queued_before = point.end.channel.counters().queued_bytes;
    let told_before = (point.end.app.streams[0].stopped, point.end.app.streams[0].reset);
    let mut outcome = Outcome::default();
    let bytes = match event {
        "application sends data" | "application ends the half" => {
            let end = if event.ends_with("data") { End::None } else { End::Stream };
            let data = if event.ends_with("data") { &b"data"[..] } else { b"" };
            let sent = point.end.channel.send(stream, Bytes::from_static(data), end);
            outcome.refused = sent == Err(UsageError::Closed);
            None
        }
        "application resets" => {
            point.end.channel.reset(stream, StreamCode(0x300));
            None
        }
        "application stops" => {
            point.end.stop(stream, StreamCode(0x301));
            outcome.said = point.says_of_receiving();
            None
        }
        "application uses data" => {
            point.end.consume_all(0);
            outcome.said = point.says_of_receiving();
            None
        }
        "last of the queue is encoded" => {
            point.takes(&control(&Control::Credit { max: u64::MAX }, stream)).unwrap();
            outcome.said = point.says();
            None
        }
        "turn of RESET" => {
            outcome.said = point.says();
            None
        }
        "STOP arrives" => Some(control(&Control::Stop { code: 0x200 }, stream)),
        "CREDIT arrives, `max` not below the last" => {
            Some(control(&Control::Credit { max: 100_000 }, stream))
        }
        "CREDIT arrives, `max` below the last" => {
            Some(control(&Control::Credit { max: 1 }, stream))
        }
        "DATA arrives" => Some(frame(kind::DATA, 0, stream, b"data")),
        "DATA with FIN arrives" => Some(frame(kind::DATA, FIN, stream, b"data")),
        "RESET arrives, right offset" | "RESET arrives, wrong offset" => {
            let offset = BEFORE_CHARGE + u64::from(event.contains("wrong"));
            Some(control(&Control::Reset { code: 9, offset }, stream))
        }
        "DATA arrives beyond the credit" => Some(frame(kind::DATA, 0, stream, &[0; 16_376])),
        other => panic!("the test does not know the event {other:?}"),
    };
    if let Some(bytes) = bytes {
        outcome.error = point.takes(&bytes).err().map(|error| code(&error));
    }
    let queued = point.end.channel.counters().queued_bytes;
    outcome.queued = queued > queued_before;
    outcome.queue_dropped = queued == 0;
    outcome.delivered = point.end.app.streams[0].data.len() > data_before;
    let seen = &point.end.app.streams[0];
    outcome.told = (seen.stopped, seen.reset) != told_before;
    if event.starts_with("CREDIT") {
        let lower = control(&Control::Credit { max: 99_999 }, stream);
        outcome.limit_moved = point.takes(&lower).is_err() && outcome.error.is_none();
    }
    outcome
}

/// Carries out a half's table; `is_tx` says which half's. Gives the number of pairs tried.
fn carry_out_table(heading: &str, is_tx: bool) -> usize {
    let (states, others) = if is_tx { (TX, RX) } else { (RX, TX) };
    let mut tried = 0;
    for (event, row) in table(heading, "event") {
        assert!(row.iter().map(|(state, _)| *state).eq(states), "{event}: a column for each state");
        // What no state allows for, a cell leaves empty.
        for (state, cell) in row.into_iter().filter(|(_, cell)| !cell.is_empty()) {
            for other in others {
                let (tx, rx) = if is_tx { (state, other) } else { (other, state) };
                if tx == "Sent" && matches!(rx, "Ended" | "Failed") {
                    continue; // it is over, which has a table of its own
                }
                let what = format!("{event}: sending {tx}, receiving {rx}: {cell}");
                let mut point = Point::with(tx, rx);
                let outcome = carry_out(&mut point, event);
                let words = words(cell);
                let (named, rest): (Vec<_>, Vec<_>) =
                    words.iter().partition(|word| states.contains(word));
                for word in rest {
                    assert!(outcome.is(word), "{what}: {word:?} is not true of {outcome:?}");
                }
                for exception in ["application told", "delivered"] {
                    let expected = cell.contains(exception);
                    assert_eq!(outcome.is(exception), expected, "{what}: {outcome:?}");
                }
                let expected = named.first().map_or(state, |word| *word);
                let after = if is_tx { point.tx() } else { point.rx() };
                let is_either =
                    after == "Ended or Failed" && matches!(expected, "Ended" | "Failed");
                assert!(after == expected || is_either, "{what}: it is {after}");
                tried += 1;
            }
        }
    }
    tried
}

// R-STOP-1, R-CREDIT-4
#[test]
fn i18_every_pair_of_the_sending_half_has_its_written_result() {
    // Six events in every state, and two in one; Sent with two states of the other half.
    assert_eq!(carry_out_table("The sending half", true), 6 * (3 * 4 + 2) + 2 * 4);
}

// R-DATA-4, R-RESET-1, R-STOP-2
#[test]
fn i18_every_pair_of_the_receiving_half_has_its_written_result() {
    assert_eq!(carry_out_table("The receiving half", false), 7 * (2 * 4 + 2 * 3));
}

// R-STREAM-1
#[test]
fn i18_a_stream_is_live_and_over_as_written() {
    let rows = table("The stream", "sending half");
    let mut tried = 0;
    for (sending, row) in rows {
        let (receiving, expected) = (row[0].1, row[1].1);
        for tx in words(sending) {
            for rx in RX {
                if receiving != "any" && !words(receiving).contains(&rx) {
                    continue;
                }
                let live = Point::with(tx, rx).end.channel.counters().live;
                assert_eq!(live == 1, expected == "live", "{tx} and {rx}: {expected}");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 16);
}

// R-STREAM-2, R-DATA-4, R-OPEN-2
#[test]
fn i18_every_frame_on_every_kind_of_id_has_its_written_result() {
    let mut tried = 0;
    for (kind_of_id, row) in table("The stream", "frame for an id that is") {
        for (frames, cell) in row {
            for name in words(frames) {
                let (tx, rx) =
                    if kind_of_id == "over" { ("Sent", "Ended") } else { ("Open", "Open") };
                let mut point = Point::with(tx, rx);
                let id = match kind_of_id {
                    "live" | "over" => point.stream,
                    "never opened" => theirs(9, 0),
                    "of this end, OPEN not encoded" => point.end.open().unwrap(),
                    other => panic!("the test does not know ids that are {other:?}"),
                };
                let bytes = match name {
                    "OPEN" => frame(kind::OPEN, 0, id, &OPEN),
                    "DATA" => frame(kind::DATA, 0, id, b"data"),
                    "RESET" => control(&Control::Reset { code: 1, offset: BEFORE_CHARGE }, id),
                    "CREDIT" => control(&Control::Credit { max: u64::MAX }, id),
                    "STOP" => control(&Control::Stop { code: 1 }, id),
                    other => panic!("the test does not know the frame {other:?}"),
                };
                let before = format!("{:?}", point.end.app.streams);
                let result = point.takes(&bytes).map_err(|error| error.code());
                let what = format!("{name} on an id that is {kind_of_id}: {cell}");
                if cell.starts_with("STREAM_STATE") {
                    assert_eq!(result, Err(CloseCode::STREAM_STATE), "{what}");
                } else {
                    assert_eq!(result, Ok(()), "{what}");
                }
                let is_unseen =
                    cell.starts_with("STREAM_STATE") || cell == "ignored" || name == "CREDIT";
                assert_eq!(point.is_told_nothing(&before), is_unseen, "{what}");
                if cell.contains("next generation") {
                    point.takes(&frame(kind::OPEN, 0, theirs(1, 1), &OPEN)).unwrap();
                }
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 4 * 5);
}
