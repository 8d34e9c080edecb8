//! Each frame of `frames.json` is decoded, compared field by field, and encoded again.

use bytes::BytesMut;
use cmgmux_mux::frame::{Control, EOM, FIN, HEADER_BYTES, Header, IGNORABLE, kind};
use cmgmux_mux::{
    Config, Hello, HelloOk, ProtocolError, Resume, Resumed, Side, StreamId, Timestamp,
};
use serde_json::{Value, json};

use crate::world::{End, name_of};
use crate::{from_hex, read, to_hex};

/// What a decoder makes of one vector.
#[derive(Debug)]
enum Outcome {
    Incomplete,
    Skipped,
    /// The frame, and its bytes when they are written again.
    Frame(Value, Vec<u8>),
}

// R-FRAME-1, R-FRAME-3, R-FRAME-4, R-FRAME-5, R-FRAME-6, R-FRAME-7, R-HELLO-3, R-HELLO-4, R-HELLO-5,
// R-OPEN-5, R-DATA-1, R-CLOSE-3, R-RESUME-1
#[test]
fn every_frame_decodes_to_its_fields_or_its_error_and_encodes_to_its_bytes() {
    let vectors = read("frames.json");
    for vector in vectors.as_array().unwrap() {
        let (name, bytes) = (&vector["name"], from_hex(&vector["hex"]));
        let in_handshake = vector["in"] == "handshake";
        match outcome(&bytes, in_handshake) {
            Err(error) => assert_eq!(vector["error"], format!("{:?}", error.code()), "{name}"),
            Ok(Outcome::Incomplete) => assert_eq!(vector["incomplete"], true, "{name}"),
            Ok(Outcome::Skipped) => assert_eq!(vector["skipped"], true, "{name}"),
            Ok(Outcome::Frame(frame, again)) => {
                assert_eq!(frame, vector["frame"], "{name}");
                let canonical = vector["canonical"] != false;
                assert_eq!(again == bytes, canonical, "{name}: {}", to_hex(&again));
            }
        }
    }
}

#[test]
fn every_type_and_code_has_a_vector() {
    let vectors = read("frames.json");
    let has = |key: &str, part: &str, wanted: &str| {
        vectors.as_array().unwrap().iter().any(|vector| {
            let found = if part.is_empty() { &vector[key] } else { &vector[key][part] };
            found == wanted
        })
    };
    for kind in (0..32).filter(|kind| kind::name(*kind) != "unknown") {
        assert!(has("frame", "type", kind::name(kind)), "{}", kind::name(kind));
    }
    for code in ["FRAME_SIZE", "UNKNOWN_FRAME", "MALFORMED", "VERSION", "STREAM_STATE"] {
        assert!(has("error", "", code), "{code}");
    }
}

fn outcome(bytes: &[u8], in_handshake: bool) -> Result<Outcome, ProtocolError> {
    let Some(header) = Header::decode(bytes)? else {
        return Ok(Outcome::Incomplete);
    };
    if bytes.len() < header.frame_bytes() {
        return Ok(Outcome::Incomplete);
    }
    assert_eq!(bytes.len(), header.frame_bytes(), "a vector is one frame");
    let body = &bytes[HEADER_BYTES..];
    if in_handshake && header.kind != kind::CLOSE {
        let (fields, again) = handshake(header.kind, body)?;
        return Ok(Outcome::Frame(describe(&header, &fields), again));
    }
    if matches!(header.kind, kind::OPEN | kind::DATA) {
        return stream_frame(&header, bytes);
    }
    match Control::decode(&header, body) {
        Ok(control) => {
            let mut again = BytesMut::new();
            control.encode(header.stream, &mut again);
            Ok(Outcome::Frame(describe(&header, &fields(&control)), again.to_vec()))
        }
        Err(ProtocolError::UnknownFrame { .. }) if header.flags & IGNORABLE != 0 => {
            Ok(Outcome::Skipped)
        }
        Err(error) => Err(error),
    }
}

fn handshake(kind: u8, body: &[u8]) -> Result<(Value, Vec<u8>), ProtocolError> {
    Ok(match kind {
        kind::HELLO => {
            let hello = Hello::decode(body)?;
            let fields = json!({
                "max_streams": hello.limits.max_streams,
                "window": hello.limits.window_bytes,
                "instance": hello.instance,
                "ordinal": hello.ordinal,
                "boot_id": to_hex(&hello.boot_id),
            });
            (fields, hello.encode().to_vec())
        }
        kind::HELLO_OK => {
            let ok = HelloOk::decode(body)?;
            let fields = json!({
                "max_streams": ok.limits.max_streams,
                "window": ok.limits.window_bytes,
                "shards": ok.shards,
                "boot_id": to_hex(&ok.boot_id),
                "channel_id": to_hex(&ok.channel_id),
                "secret": to_hex(&ok.secret.0),
            });
            (fields, ok.encode().to_vec())
        }
        kind::RESUME => {
            let resume = Resume::decode(body)?;
            let fields = json!({
                "channel_id": to_hex(&resume.channel_id),
                "epoch": resume.claim.epoch,
                "rx_pos": resume.claim.rx_pos,
                "tx_first": resume.claim.tx_first,
                "nonce": to_hex(&resume.nonce),
                "proof": to_hex(&resume.proof),
            });
            (fields, resume.encode().to_vec())
        }
        kind::RESUMED => {
            let resumed = Resumed::decode(body)?;
            let fields = json!({
                "code": resumed.code.0,
                "epoch": resumed.epoch,
                "rx_pos": resumed.rx_pos,
                "tx_start": resumed.tx_start,
            });
            (fields, resumed.encode().to_vec())
        }
        kind => return Err(ProtocolError::UnknownFrame { kind }),
    })
}

/// OPEN and DATA have no decoder of their own: a fresh channel tells what it makes of them. A stream
/// that DATA is for is opened before.
fn stream_frame(header: &Header, bytes: &[u8]) -> Result<Outcome, ProtocolError> {
    let id = header.stream;
    let is_points = id.to_wire() >> 31 == 0;
    let side = if is_points { Side::Instance } else { Side::ConnectionPoint };
    let mut end = End::new(side, Config::default());
    let feed = |end: &mut End, bytes: &[u8]| {
        end.input.extend_from_slice(bytes);
        end.channel.handle_input(Timestamp::ZERO, &mut end.input, &mut end.app)
    };
    let is_open = header.kind == kind::OPEN;
    if !is_open && id != StreamId::CHANNEL {
        let open = Header { length: 4, kind: kind::OPEN, flags: 0, stream: id };
        feed(&mut end, &[&open.encode()[..], &[1, 0, 0, 0]].concat())?;
        end.app.events.clear();
    }
    feed(&mut end, bytes)?;
    let mut fields = json!({ "data": "" });
    let mut again = header.encode().to_vec();
    for event in &end.app.events {
        match event["event"].as_str().unwrap() {
            "opened" => {
                fields["kind"] = event["kind"].clone();
                again.extend([u8::from(event["kind"] == "exchange"), 0, 0, 0]);
            }
            "data" => {
                fields["data"] = event["data"].clone();
                again.extend(from_hex(&event["data"]));
            }
            other => panic!("unexpected {other}"),
        }
    }
    Ok(Outcome::Frame(describe(header, &fields), again))
}

fn describe(header: &Header, fields: &Value) -> Value {
    let flags: Vec<&str> = [(FIN, "FIN"), (EOM, "EOM"), (IGNORABLE, "IGNORABLE")]
        .into_iter()
        .filter(|(flag, _)| header.flags & flag != 0)
        .map(|(_, name)| name)
        .collect();
    json!({
        "type": kind::name(header.kind),
        "flags": flags,
        "stream": name_of(header.stream),
        "fields": fields,
    })
}

fn fields(control: &Control) -> Value {
    match control {
        Control::Credit { max } => json!({ "max": max }),
        Control::Reset { code, offset } => json!({ "code": code, "offset": offset }),
        Control::Stop { code } => json!({ "code": code }),
        Control::Tickets { max_opens } => json!({ "max_opens": max_opens }),
        Control::GoAway { opens_accepted, code, grace_ms } => {
            json!({ "opens_accepted": opens_accepted, "code": code, "grace_ms": grace_ms })
        }
        Control::Ack { rx_pos, delay_us } => json!({ "rx_pos": rx_pos, "delay_us": delay_us }),
        Control::Ping { id } => json!({ "id": id }),
        Control::Pong { id, rx_pos } => json!({ "id": id, "rx_pos": rx_pos }),
        Control::Close { code, text } => json!({ "code": code, "text": text }),
    }
}
