//! What is said in the conversations of `tests/vectors/conversations`: the same each time.

use bytes::BytesMut;
use cmgmux_mux::frame::{Control, EOM, FIN, Header, kind};
use cmgmux_mux::{Claim, Limits, ResumeCode, Resumed, StreamId};
use serde_json::json;

use crate::folder;
use crate::record::{INSTANCE, POINT, Recorder};

#[test]
#[ignore = "writes files; run it to write the conversations again"]
fn write_the_conversations() {
    for (name, about, tell) in CONVERSATIONS {
        let mut recorder = Recorder::default();
        tell(&mut recorder);
        let lines: Vec<String> =
            recorder.steps.iter().map(|step| format!("    {}", step)).collect();
        let text = format!(
            "{{\n  \"about\": {},\n  \"steps\": [\n{}\n  ]\n}}\n",
            json!(about),
            lines.join(",\n")
        );
        std::fs::write(folder().join(format!("conversations/{name}.json")), text).unwrap();
    }
}

type Tell = fn(&mut Recorder);

const CONVERSATIONS: &[(&str, &str, Tell)] = &[
    ("exchange", "a request and its answer in several parts, both halves ended by FIN", exchange),
    ("parts", "parts that are empty, span frames, or end in one frame with the half", parts),
    ("credit", "a writer stalls at its limit, and goes on when the reader has used data", credit),
    ("endings", "resets, stops, and what may cross them", endings),
    ("tickets", "an opener without tickets waits; an index is used again", tickets),
    ("draining", "GOAWAY, an OPEN that crosses it, CLOSE", draining),
    ("liveness", "a probe and its answer, an acknowledgement without company", liveness),
    ("resume", "a link is cut with frames under way in both directions", resume),
    ("move", "a channel moves while its link lives, and skips what it got twice", moving),
    ("retry", "an answer to a claim is lost; a late claim is refused", retry),
    ("beyond-credit", "a byte more than the credit", beyond_credit),
    ("beyond-tickets", "a stream more than the tickets", beyond_tickets),
    ("behind-the-end", "data behind FIN", behind_the_end),
    ("wrong-generation", "an index is used again without a new generation", wrong_generation),
    ("wrong-offset", "a reset that names another offset", wrong_offset),
    ("lowered-limit", "a limit is taken back", lowered_limit),
    ("acknowledged-too-much", "an acknowledgement of what was never sent", acknowledged_too_much),
    ("drained-after-too-much", "GOAWAY that counts more than before", drained_after_too_much),
    ("resumed-too-far", "a claim of what was never sent", resumed_too_far),
];

/// Few streams and small windows, so that limits are reached soon.
const SMALL: Limits = Limits { max_streams: 2, window_bytes: 16_384 };

fn stream(initiator: u32, index: u32, generation: u32) -> StreamId {
    StreamId::from_wire(initiator << 31 | generation << 23 | index)
}

fn raw(kind: u8, flags: u8, stream: StreamId, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&Header { length, kind, flags, stream }.encode()[..], body].concat()
}

fn control(control: &Control, stream: StreamId) -> BytesMut {
    let mut frame = BytesMut::new();
    control.encode(stream, &mut frame);
    frame
}

fn exchange(talk: &mut Recorder) {
    talk.greet(Limits::default(), Limits { max_streams: 16, ..Limits::default() });
    talk.open(INSTANCE, "i1.0");
    talk.send(INSTANCE, "i1.0", b"GET /notifications", "stream");
    talk.settle();
    talk.send(POINT, "i1.0", b"200", "part");
    talk.send(POINT, "i1.0", b"all is ", "none");
    talk.settle();
    talk.send(POINT, "i1.0", b"well", "part");
    talk.send(POINT, "i1.0", b"trailers", "stream");
    talk.settle();
    talk.call(POINT, json!({ "do": "complete" }));
    talk.open(POINT, "p1.0");
    talk.send(POINT, "p1.0", b"publication", "stream");
    talk.settle();
    talk.send(INSTANCE, "p1.0", b"accepted", "stream");
    talk.finish();
}

fn parts(talk: &mut Recorder) {
    talk.greet(Limits::default(), Limits::default());
    talk.open(INSTANCE, "i1.0");
    talk.settle();
    talk.send(INSTANCE, "i1.0", b"", "part");
    talk.send(INSTANCE, "i1.0", b"a", "none");
    talk.send(INSTANCE, "i1.0", b"b", "none");
    talk.send(INSTANCE, "i1.0", b"c", "part");
    talk.send(INSTANCE, "i1.0", b"", "part");
    talk.send(INSTANCE, "i1.0", &[0x6c; 600], "part");
    talk.send(INSTANCE, "i1.0", b"", "stream");
    talk.settle();
    talk.foreign(POINT, &raw(kind::DATA, FIN, stream(1, 1, 0), b"the part ends with the half"));
}

fn credit(talk: &mut Recorder) {
    talk.greet(SMALL, SMALL);
    talk.open(INSTANCE, "i1.0");
    for _ in 0..5 {
        talk.send(INSTANCE, "i1.0", &[0x63; 4_000], "none");
    }
    talk.open(INSTANCE, "i2.0");
    talk.send(INSTANCE, "i2.0", b"not held up", "stream");
    talk.settle();
    talk.call(POINT, json!({ "do": "consume", "stream": "i1.0", "bytes": 12_000 }));
    talk.send(INSTANCE, "i1.0", b"", "stream");
    talk.settle();
    talk.send(POINT, "i1.0", b"", "stream");
    talk.send(POINT, "i2.0", b"", "stream");
    talk.finish();
}

fn endings(talk: &mut Recorder) {
    talk.greet(Limits::default(), Limits::default());
    for (number, name) in ["i1.0", "i2.0", "i3.0", "i4.0"].into_iter().enumerate() {
        talk.open(INSTANCE, name);
        talk.send(INSTANCE, name, &[0x65; 10][..=number], "part");
    }
    talk.settle();
    talk.call(INSTANCE, json!({ "do": "reset", "stream": "i1.0", "code": 1 }));
    talk.call(POINT, json!({ "do": "stop", "stream": "i2.0", "code": 0x101 }));
    // This end overtakes that stop, which is not sent any more.
    talk.call(POINT, json!({ "do": "stop", "stream": "i3.0", "code": 3 }));
    talk.send(INSTANCE, "i3.0", b"dropped", "stream");
    talk.deliver_some(INSTANCE, usize::MAX);
    talk.settle();
    for name in ["i1.0", "i2.0", "i3.0"] {
        talk.send(POINT, name, b"", "stream");
    }
    talk.settle();
    // Given up before a byte went out.
    talk.open(POINT, "p1.0");
    talk.call(POINT, json!({ "do": "reset", "stream": "p1.0", "code": 1 }));
    talk.call(POINT, json!({ "do": "stop", "stream": "p1.0", "code": 1 }));
    talk.finish();
    // CREDIT and STOP on a stream that is over.
    talk.foreign(POINT, &control(&Control::Credit { max: 1 << 40 }, stream(1, 1, 0)));
    talk.foreign(POINT, &control(&Control::Stop { code: 1 }, stream(1, 1, 0)));
}

fn tickets(talk: &mut Recorder) {
    talk.greet(SMALL, SMALL);
    for (name, data) in [("i1.0", b"one"), ("i2.0", b"two")] {
        talk.open(INSTANCE, name);
        talk.send(INSTANCE, name, data, "stream");
    }
    talk.settle();
    talk.send(POINT, "i1.0", b"", "stream");
    talk.settle();
    talk.call(POINT, json!({ "do": "complete" }));
    talk.settle();
    talk.open(INSTANCE, "i1.1");
    talk.send(INSTANCE, "i1.1", b"three", "stream");
    talk.settle();
    talk.finish();
    talk.foreign(POINT, &control(&Control::Tickets { max_opens: 1 }, StreamId::CHANNEL));
}

fn draining(talk: &mut Recorder) {
    talk.greet(Limits::default(), Limits::default());
    talk.open(INSTANCE, "i1.0");
    talk.send(INSTANCE, "i1.0", b"before", "part");
    talk.finish();
    talk.call(POINT, json!({ "do": "go_away", "code": 0, "grace_ms": 5_000 }));
    talk.open(INSTANCE, "i2.0");
    talk.send(INSTANCE, "i2.0", b"crossing", "part");
    talk.deliver_some(INSTANCE, usize::MAX);
    talk.settle();
    // Less grace, and no count of the stream that came between.
    talk.call(POINT, json!({ "do": "go_away", "code": 0, "grace_ms": 1_000 }));
    talk.settle();
    talk.send(INSTANCE, "i1.0", b"and after", "stream");
    talk.send(POINT, "i1.0", b"answer", "stream");
    talk.finish();
    talk.call(POINT, json!({ "do": "close", "code": 0, "text": "drained" }));
    talk.deliver_some(POINT, 1);
}

fn liveness(talk: &mut Recorder) {
    talk.greet(Limits::default(), Limits::default());
    talk.open(INSTANCE, "i1.0");
    talk.settle();
    talk.advance(25_000);
    talk.settle();
    talk.advance(15_000_000);
    talk.finish();
    talk.foreign(POINT, &raw(0x1f, 4, StreamId::CHANNEL, b"for a later version"));
    talk.foreign(POINT, &raw(0x0e, 4, stream(0, 7, 7), b"counts"));
}

fn resume(talk: &mut Recorder) {
    talk.greet(Limits::default(), Limits::default());
    for name in ["i1.0", "i2.0"] {
        talk.open(INSTANCE, name);
        talk.send(INSTANCE, name, b"first", "part");
    }
    talk.settle();
    talk.send(INSTANCE, "i1.0", b"arrives", "part");
    talk.send(INSTANCE, "i2.0", b"is lost", "stream");
    talk.deliver_some(INSTANCE, 1);
    talk.send(POINT, "i1.0", b"is lost as well", "part");
    talk.call(POINT, json!({ "do": "stop", "stream": "i2.0", "code": 1 }));
    talk.cut();
    talk.send(POINT, "i2.0", b"written without a link", "stream");
    talk.call(INSTANCE, json!({ "do": "reset", "stream": "i1.0", "code": 0x123 }));
    let claim = talk.claim();
    talk.ask(claim);
    talk.answer();
    talk.settle();
    talk.send(POINT, "i1.0", b"and on", "stream");
    talk.finish();
}

fn moving(talk: &mut Recorder) {
    talk.greet(Limits::default(), Limits::default());
    talk.open(INSTANCE, "i1.0");
    talk.send(INSTANCE, "i1.0", b"one", "part");
    talk.settle();
    talk.send(INSTANCE, "i1.0", b"two", "part");
    talk.send(INSTANCE, "i1.0", b"three", "part");
    talk.send(INSTANCE, "i1.0", b"four", "part");
    talk.deliver_some(INSTANCE, 1);
    let claim = talk.claim();
    // The old link still delivers: these are sent again, and skipped.
    talk.deliver_some(INSTANCE, 1);
    talk.ask(claim);
    talk.answer();
    talk.settle();
    talk.send(INSTANCE, "i1.0", b"five", "stream");
    talk.send(POINT, "i1.0", b"five were read", "stream");
    talk.finish();
}

fn retry(talk: &mut Recorder) {
    talk.greet(Limits::default(), Limits::default());
    talk.open(INSTANCE, "i1.0");
    talk.send(INSTANCE, "i1.0", b"one", "part");
    talk.cut();
    let first = talk.claim();
    talk.ask(first);
    // The answer and the link with it are lost.
    talk.world.answer = None;
    let second = talk.claim();
    talk.ask(second);
    talk.answer();
    talk.settle();
    talk.ask(first);
    talk.steps.last_mut().unwrap()["foreign"] = json!(true);
    let refusal = Resumed::refusal(first.epoch, ResumeCode::STALE_EPOCH);
    assert_eq!(talk.world.answer, Some(refusal));
    talk.answer();
    talk.link -= 1;
    talk.send(INSTANCE, "i1.0", b"two", "stream");
    talk.finish();
}

/// A stream of the instance that both ends know.
fn one_stream(talk: &mut Recorder) {
    talk.greet(SMALL, SMALL);
    talk.open(INSTANCE, "i1.0");
    talk.settle();
}

fn beyond_credit(talk: &mut Recorder) {
    one_stream(talk);
    let id = stream(1, 1, 0);
    talk.foreign(INSTANCE, &raw(kind::DATA, 0, id, &[0x61; 16_000]));
    talk.foreign(INSTANCE, &raw(kind::DATA, EOM, id, &[0x61; 384 - 64 + 1]));
}

fn beyond_tickets(talk: &mut Recorder) {
    talk.greet(SMALL, SMALL);
    for index in 1..=2 {
        talk.foreign(INSTANCE, &raw(kind::OPEN, 0, stream(1, index, 0), &[0, 0, 0, 0]));
    }
    talk.foreign(INSTANCE, &raw(kind::OPEN, 0, stream(1, 3, 0), &[0, 0, 0, 0]));
}

fn behind_the_end(talk: &mut Recorder) {
    one_stream(talk);
    talk.foreign(INSTANCE, &raw(kind::DATA, FIN, stream(1, 1, 0), b"the end"));
    talk.foreign(INSTANCE, &raw(kind::DATA, 0, stream(1, 1, 0), b"more"));
}

fn wrong_generation(talk: &mut Recorder) {
    talk.greet(SMALL, SMALL);
    talk.open(INSTANCE, "i1.0");
    talk.send(INSTANCE, "i1.0", b"", "stream");
    talk.settle();
    talk.send(POINT, "i1.0", b"", "stream");
    talk.settle();
    talk.foreign(INSTANCE, &raw(kind::OPEN, 0, stream(1, 1, 0), &[1, 0, 0, 0]));
}

fn wrong_offset(talk: &mut Recorder) {
    one_stream(talk);
    talk.foreign(INSTANCE, &raw(kind::DATA, 0, stream(1, 1, 0), b"abc"));
    let reset = Control::Reset { code: 1, offset: 3 };
    talk.foreign(INSTANCE, &control(&reset, stream(1, 1, 0)));
}

fn lowered_limit(talk: &mut Recorder) {
    one_stream(talk);
    talk.foreign(POINT, &control(&Control::Credit { max: u64::MAX }, stream(1, 1, 0)));
    talk.foreign(POINT, &control(&Control::Credit { max: u64::MAX - 1 }, stream(1, 1, 0)));
}

fn acknowledged_too_much(talk: &mut Recorder) {
    one_stream(talk);
    let ack = Control::Ack { rx_pos: 13, delay_us: 0 };
    talk.foreign(POINT, &control(&ack, StreamId::CHANNEL));
}

fn drained_after_too_much(talk: &mut Recorder) {
    one_stream(talk);
    let go_away = |opens_accepted| {
        let go_away = Control::GoAway { opens_accepted, code: 0, grace_ms: 5_000 };
        control(&go_away, StreamId::CHANNEL)
    };
    talk.foreign(POINT, &go_away(1));
    talk.foreign(POINT, &go_away(0));
    talk.foreign(POINT, &go_away(1));
}

fn resumed_too_far(talk: &mut Recorder) {
    one_stream(talk);
    talk.cut();
    let claim = talk.claim();
    talk.ask(Claim { rx_pos: claim.rx_pos + 1, ..claim });
    talk.steps.last_mut().unwrap()["foreign"] = json!(true);
}
