//! Request and answer heads, from the bytes of a client or a role to their form on a stream.

use bytes::{Bytes, BytesMut};
use cmgmux_exchange::fields;
use cmgmux_exchange::h1::{Request, RequestReader, RequestWriter, Response, ResponseReader};
use cmgmux_exchange::head::{HeadError, RequestHead, ResponseHead};
use cmgmux_exchange::target::Target;
use http::{HeaderMap, Method};

use crate::script::Script;

/// More fields than any head may have.
const MANY_FIELDS: usize = 256;

pub(crate) fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let kind = script.byte() % 6;
    let text = script.rest();
    match kind {
        0 => check_request(text),
        4 => drop(RequestHead::decode(&Bytes::copy_from_slice(text)).map(|head| travel(&head))),
        5 => drop(ResponseHead::decode(&Bytes::copy_from_slice(text)).map(|head| back(&head))),
        _ => check_answer(text, || answer_reader(kind)),
    }
}

/// A reader for the answers that the first byte of an input announces: 2 for one to HEAD, 3 for one
/// to a request that asks to switch, any other number for one to a plain GET.
#[must_use]
pub fn answer_reader(kind: u8) -> ResponseReader {
    let method = if kind == 2 { Method::HEAD } else { Method::GET };
    ResponseReader::new(&method, kind == 3)
}

fn check_request(text: &[u8]) {
    let Some((request, rest)) = read(text, RequestReader::new, |reader, input| reader.read(input))
    else {
        return;
    };
    let Request { mut head, .. } = request;
    // One empty line may come before a head.
    let block = &text[..text.len() - rest];
    let block = block.strip_prefix(b"\r\n").unwrap_or(block);
    let mut table = [httparse::EMPTY_HEADER; MANY_FIELDS];
    let mut other = httparse::Request::new(&mut table);
    assert_eq!(other.parse(block), Ok(httparse::Status::Complete(block.len())));
    assert_eq!(other.method, Some(head.method.as_str()));
    check_fields(&head.fields, block, other.headers);
    let canonical = Target::parse(head.target.as_str()).unwrap();
    assert_eq!(canonical, head.target, "a canonical target stays as it is");

    fields::ensure_traceparent(&mut head.fields, || [7; 24]);
    travel(&head);
    let mut wire = BytesMut::new();
    let RequestHead { method, target, fields } = &head;
    RequestWriter::start(method, target.as_str(), fields, false, &mut wire);
    let forwarded = RequestReader::new().read(&mut wire).unwrap().unwrap();
    assert!(wire.is_empty(), "the role reads one head");
    assert_eq!((&forwarded.head.method, &forwarded.head.target), (method, target));
    for name in fields.keys() {
        assert!(fields.get_all(name).iter().eq(forwarded.head.fields.get_all(name)), "{name}");
    }
}

fn check_answer(text: &[u8], reader: impl Fn() -> ResponseReader) {
    let Some((answer, rest)) = read(text, reader, |reader, input| reader.read(input)) else {
        return;
    };
    let Response { head, .. } = answer;
    let block = &text[..text.len() - rest];
    let mut table = [httparse::EMPTY_HEADER; MANY_FIELDS];
    let mut other = httparse::Response::new(&mut table);
    assert_eq!(other.parse(block), Ok(httparse::Status::Complete(block.len())));
    assert_eq!(other.code, Some(head.status.as_u16()));
    check_fields(&head.fields, block, other.headers);
    if head.encode(&mut BytesMut::new()).is_ok() {
        back(&head);
    }
}

/// Reads a head from the front of `text`, whole and byte by byte, which must come to the same. Gives
/// it with the number of bytes behind it.
fn read<R, H: std::fmt::Debug + PartialEq>(
    text: &[u8],
    reader: impl Fn() -> R,
    read: impl Fn(&mut R, &mut BytesMut) -> Result<Option<H>, HeadError>,
) -> Option<(H, usize)> {
    let (mut whole, mut bytewise) = (BytesMut::from(text), BytesMut::new());
    let mut in_pieces = Ok(None);
    let mut patient = reader();
    for byte in text {
        bytewise.extend_from_slice(&[*byte]);
        in_pieces = read(&mut patient, &mut bytewise);
        if in_pieces != Ok(None) {
            break;
        }
    }
    let head = read(&mut reader(), &mut whole);
    assert_eq!(head, in_pieces);
    let head = head.ok()??;
    assert!(bytewise.is_empty(), "a head takes its own bytes");
    Some((head, whole.len()))
}

/// The fields that were kept are lines of the head for a parser, and for a reader who is content
/// with LF and looks for the first colon.
fn check_fields(kept: &HeaderMap, block: &[u8], parsed: &[httparse::Header<'_>]) {
    let mut lines = block.split(|&byte| byte == b'\n').skip(1);
    for header in parsed {
        let line = lines.next().unwrap();
        let colon = line.iter().position(|&byte| byte == b':').unwrap();
        assert_eq!(line[..colon], *header.name.as_bytes());
        assert_eq!(line[colon + 1..].trim_ascii(), header.value.trim_ascii());
    }
    assert_eq!(lines.next(), Some(&b"\r"[..]), "the fields end with the empty line");
    for name in kept.keys().filter(|name| *name != http::header::UPGRADE) {
        let lines = parsed.iter().filter(|header| header.name.eq_ignore_ascii_case(name.as_str()));
        assert!(kept.get_all(name).iter().eq(lines.map(|header| header.value)), "{name}");
    }
}

/// Whoever receives the head on a stream reads the same.
fn travel(head: &RequestHead) {
    let mut wire = BytesMut::new();
    head.encode(&mut wire).unwrap();
    assert_eq!(RequestHead::decode(&wire.freeze()).as_ref(), Ok(head));
}

/// As [`travel`], for an answer.
fn back(head: &ResponseHead) {
    let mut wire = BytesMut::new();
    head.encode(&mut wire).unwrap();
    assert_eq!(ResponseHead::decode(&wire.freeze()).as_ref(), Ok(head));
}
