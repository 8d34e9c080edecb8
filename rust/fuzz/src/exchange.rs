//! The reader of an exchange's parts.

use bytes::Bytes;
use cmgmux_exchange::parts::{End, Event, PartsError, Reader};
use http::Method;

use crate::script::Script;

/// Bytes that stand for the ends of a part and of the stream.
const END_OF_PART: u8 = 0;
const END_OF_STREAM: u8 = 1;

/// What a reader saw, pieces of data joined, up to its first error.
type Seen<H> = (Vec<Event<H>>, Result<bool, PartsError>);

pub(crate) fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let (kind, step) = (script.byte(), script.byte());
    let parts: Vec<(&[u8], End)> = script
        .rest()
        .split_inclusive(|&byte| byte == END_OF_PART || byte == END_OF_STREAM)
        .map(|part| match part.split_last() {
            Some((&END_OF_PART, part)) => (part, End::Part),
            Some((&END_OF_STREAM, part)) => (part, End::Stream),
            _ => (part, End::None),
        })
        .collect();
    match kind % 4 {
        0 => compare(Reader::request, &parts, step),
        1 => compare(|| Reader::response(&Method::GET), &parts, step),
        2 => compare(|| Reader::response(&Method::HEAD), &parts, step),
        _ => compare(Reader::response_to_switch, &parts, step),
    }
}

fn compare<H: std::fmt::Debug + PartialEq>(
    reader: impl Fn() -> Reader<H>,
    parts: &[(&[u8], End)],
    step: u8,
) {
    let (seen, outcome) = read(reader(), parts, usize::MAX);
    for most in [1, 2 + usize::from(step)] {
        let (in_pieces, same) = read(reader(), parts, most);
        match (&outcome, &same) {
            (Ok(complete), Ok(same)) => {
                assert_eq!(complete, same);
                assert_eq!(seen, in_pieces);
            }
            (Err(error), Err(same)) => {
                // Of a piece that is refused, smaller pieces may have been good.
                assert_eq!(error.code(), same.code(), "{error} in pieces: {same}");
                assert!(seen.len() <= in_pieces.len());
            }
            _ => panic!("whole: {outcome:?}, in pieces: {same:?}"),
        }
    }
}

/// Reads the parts in pieces of at most `most` bytes, each end with the last of its part.
fn read<H>(mut reader: Reader<H>, parts: &[(&[u8], End)], most: usize) -> Seen<H> {
    let mut events: Vec<Event<H>> = Vec::new();
    let mut is_complete = false;
    for (part, end) in parts {
        let mut rest = *part;
        loop {
            let (piece, behind) = rest.split_at(most.min(rest.len()));
            rest = behind;
            let end = if rest.is_empty() { *end } else { End::None };
            let received = match reader.handle_piece(Bytes::copy_from_slice(piece), end) {
                Ok(received) => received,
                Err(error) => return (events, Err(error)),
            };
            is_complete |= received.complete;
            match (received.event, events.last_mut()) {
                (Some(Event::Data(data)), Some(Event::Data(before))) => {
                    *before = [&before[..], &data[..]].concat().into();
                }
                (event, _) => events.extend(event),
            }
            if rest.is_empty() {
                break;
            }
        }
    }
    (events, Ok(is_complete))
}
