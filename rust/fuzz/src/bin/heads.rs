//! Says how a head of HTTP/1.1 is understood, so that another parser can be compared: `make
//! prove-heads`.
//!
//! On standard input each head is a byte that says what it is, as for the target `head`, the number
//! of its bytes in four, big-endian, and these bytes. Each is answered with a line of JSON.

use std::io::{self, Read, Write};

use bytes::BytesMut;
use cmgmux_exchange::h1::{BodyLength, RequestReader};
use cmgmux_exchange::head::HeadError;
use cmgmux_fuzz::answer_reader;
use http::HeaderMap;
use serde_json::{Value, json};

fn main() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut start = [0; 5];
    while input.read_exact(&mut start).is_ok() {
        let [kind, length @ ..] = start;
        let mut text = Vec::new();
        input.by_ref().take(u32::from_be_bytes(length).into()).read_to_end(&mut text)?;
        let mut text = BytesMut::from(&text[..]);
        let read = match kind {
            0 => read_request(&mut text),
            _ => read_answer(&mut text, kind),
        };
        let answer = match read {
            Ok(Some(mut head)) => {
                head["rest"] = text.len().into();
                head
            }
            Ok(None) => json!({ "refused": "it is not complete" }),
            Err(error) => json!({ "refused": error.to_string() }),
        };
        writeln!(output, "{answer}")?;
    }
    Ok(())
}

fn read_request(text: &mut BytesMut) -> Result<Option<Value>, HeadError> {
    let request = RequestReader::new().read(text)?;
    Ok(request.map(|request| {
        json!({
            "start": [request.head.method.as_str(), request.head.target.as_str()],
            "fields": fields(&request.head.fields),
            "body": body(request.body),
            "close": request.close,
            "waits": request.expects_continue,
        })
    }))
}

fn read_answer(text: &mut BytesMut, kind: u8) -> Result<Option<Value>, HeadError> {
    let answer = answer_reader(kind).read(text)?;
    Ok(answer.map(|answer| {
        json!({
            "start": [answer.head.status.as_u16()],
            "fields": fields(&answer.head.fields),
            "body": body(answer.body),
            "close": !answer.keep_alive,
            "waits": false,
        })
    }))
}

/// The pairs of name and value, each byte of a value as the character of that number.
fn fields(fields: &HeaderMap) -> Vec<(&str, String)> {
    let text = |value: &[u8]| value.iter().copied().map(char::from).collect();
    fields.iter().map(|(name, value)| (name.as_str(), text(value.as_bytes()))).collect()
}

fn body(length: BodyLength) -> Value {
    match length {
        BodyLength::Empty => 0.into(),
        BodyLength::Exact(bytes) => bytes.into(),
        BodyLength::Chunked => "chunked".into(),
        BodyLength::UntilClose => "until close".into(),
    }
}
