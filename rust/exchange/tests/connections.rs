//! A client's connection and a stream, fed whole and in pieces.

use bytes::{Bytes, BytesMut};
use cmgmux_exchange::h1::{BodyEvent, BodyReader, RequestReader};
use cmgmux_exchange::head::ResponseHead;
use cmgmux_exchange::parts::{End, Event, Reader};
use http::Method;
use proptest::prelude::*;

/// What a client front makes of the bytes of one connection: requests, bodies joined, the error
/// that ends it.
fn converse(pieces: &[&[u8]]) -> Vec<String> {
    let mut log = Vec::new();
    let mut input = BytesMut::new();
    let mut requests = RequestReader::new();
    let mut body: Option<(BodyReader, Vec<u8>)> = None;
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match &mut body {
                None => match requests.read(&mut input) {
                    Ok(None) => break,
                    Ok(Some(request)) => {
                        log.push(format!("{request:?}"));
                        match BodyReader::new(request.body, 64) {
                            Ok(reader) => body = Some((reader, Vec::new())),
                            Err(error) => {
                                log.push(error.to_string());
                                return log;
                            }
                        }
                    }
                    Err(error) => {
                        log.push(error.to_string());
                        return log;
                    }
                },
                Some((reader, data)) => match reader.read(&mut input) {
                    Ok(None) => break,
                    Ok(Some(BodyEvent::Data(bytes))) => data.extend_from_slice(&bytes),
                    Ok(Some(BodyEvent::Trailers(trailers))) => log.push(format!("{trailers:?}")),
                    Ok(Some(BodyEvent::End)) => {
                        log.push(format!("{data:?}"));
                        body = None;
                    }
                    Err(error) => {
                        log.push(format!("{data:?} {error}"));
                        return log;
                    }
                },
            }
        }
    }
    log
}

fn client_bytes() -> impl Strategy<Value = Vec<u8>> {
    let text = |text: &'static str| Just(text.as_bytes().to_vec());
    let piece = prop_oneof![
        6 => text("GET /a HTTP/1.1\r\nHost: h\r\n"),
        6 => text("POST /{b}/%2e HTTP/1.1\r\nhost: h\r\n"),
        4 => text("\r\n"),
        4 => text("Content-Length: 5\r\n\r\nabcde"),
        4 => text("Transfer-Encoding: chunked\r\n\r\n"),
        4 => text("5\r\nabcde\r\n"),
        2 => text("3;x=y\r\nabc\r\n"),
        4 => text("0\r\n\r\n"),
        2 => text("0\r\nDigest: x\r\nHost: y\r\n\r\n"),
        1 => text("40\r\n"),
        1 => text("Connection: close, a\r\n"),
        1 => text("A: b\r\n c\r\n"),
        1 => text("\n"),
        1 => text("\r"),
        1 => text("Content-Length: 65\r\n\r\n"),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// The events of a stream with body data joined, or the error.
fn exchange(pieces: &[(Bytes, End)]) -> Result<(Vec<String>, Vec<u8>, bool), String> {
    let mut reader = Reader::<ResponseHead>::response(&Method::GET);
    let (mut log, mut body, mut complete) = (Vec::new(), Vec::new(), false);
    for (data, end) in pieces {
        let received =
            reader.handle_piece(data.clone(), *end).map_err(|error| error.to_string())?;
        complete = received.complete;
        match received.event {
            Some(Event::Data(data)) => body.extend_from_slice(&data),
            Some(event) => log.push(format!("{event:?}")),
            None => {}
        }
    }
    Ok((log, body, complete))
}

fn parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let part = prop_oneof![
        Just("HTTP/1.1 103 Early Hints\r\n\r\n"),
        Just("HTTP/1.1 200 OK\r\n\r\n"),
        Just("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        Just("HTTP/1.1 204 No Content\r\n\r\n"),
        Just("abcde"),
        Just(""),
        Just("digest: x\r\n\r\n"),
    ];
    prop::collection::vec(part.prop_map(|part| part.as_bytes().to_vec()), 1..5)
}

proptest! {
    #[test]
    fn a_connection_means_the_same_whole_and_one_byte_at_a_time(bytes in client_bytes()) {
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(converse(&[&bytes]), converse(&single));
    }

    #[test]
    fn a_connection_means_the_same_wherever_it_is_cut(
        bytes in client_bytes(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (front, back) = bytes.split_at(cut.index(bytes.len() + 1));
        prop_assert_eq!(converse(&[&bytes]), converse(&[front, back]));
    }

    #[test]
    fn any_bytes_of_a_client_are_read_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        fields in "[ -~\r\n\t]{0,100}",
    ) {
        converse(&[&bytes]);
        converse(&[fields.as_bytes()]);
        converse(&[b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", &bytes]);
    }

    #[test]
    fn the_parts_of_a_stream_mean_the_same_however_they_are_cut(
        parts in parts(),
        size in 1..9_usize,
    ) {
        let last = parts.len() - 1;
        let end = |at: usize| if at == last { End::Stream } else { End::Part };
        let whole: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(at, part)| (Bytes::copy_from_slice(part), end(at)))
            .collect();
        // The same parts in small pieces, and the end of the stream after its last part.
        let mut cut = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            cut.extend(part.chunks(size).map(|piece| (Bytes::copy_from_slice(piece), End::None)));
            if at != last {
                cut.push((Bytes::new(), End::Part));
            }
        }
        cut.push((Bytes::new(), End::Stream));
        match (exchange(&whole), exchange(&cut)) {
            (Ok(whole), Ok(cut)) => prop_assert_eq!(whole, cut),
            (Err(_), Err(_)) => {}
            (whole, cut) => prop_assert!(false, "{:?} but {:?}", whole, cut),
        }
    }
}
