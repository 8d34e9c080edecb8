//! Heads and trailers as they arrive on a stream.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use httparse::{Header, ParserConfig, Request, Response, Status};

use super::{
    HeadError, MAX_STREAM_FIELDS, MAX_STREAM_HEAD_BYTES, MAX_TRAILER_BYTES, MAX_TRAILER_FIELDS,
    RequestHead, ResponseHead,
};
use crate::fields;
use crate::lines::{BlockLimits, BlockScanner};
use crate::target::Target;

const HEAD_LIMITS: BlockLimits = BlockLimits {
    first_line_bytes: MAX_STREAM_HEAD_BYTES,
    block_bytes: MAX_STREAM_HEAD_BYTES,
    start_lines: 1,
    fields: MAX_STREAM_FIELDS,
};

/// The limits of a trailer section, on a stream and from a client.
pub(crate) const TRAILER_LIMITS: BlockLimits = BlockLimits {
    first_line_bytes: MAX_TRAILER_BYTES,
    block_bytes: MAX_TRAILER_BYTES,
    start_lines: 0,
    fields: MAX_TRAILER_FIELDS,
};

impl RequestHead {
    /// Reads a request head from the whole part that carries it. The fields share its memory.
    ///
    /// # Errors
    ///
    /// [`HeadError`], also for a target that is not canonical, a missing or repeated `Host` and
    /// anything that must not travel on a stream.
    pub fn decode(part: &Bytes) -> Result<Self, HeadError> {
        check_block(part, HEAD_LIMITS)?;
        let mut table = [const { MaybeUninit::uninit() }; MAX_STREAM_FIELDS];
        let mut request = Request::new(&mut []);
        check_complete(request.parse_with_uninit_headers(part, &mut table), part)?;
        let (method, target) = match (request.method, request.path, request.version) {
            (Some(method), Some(target), Some(1)) => (method, target),
            _ => return Err(HeadError::Version),
        };
        let method = method_of(method)?;
        let canonical = Target::parse(target)?;
        if canonical.as_str() != target {
            return Err(HeadError::Malformed("the request target is not in canonical form"));
        }
        let fields = stream_fields(part, request.headers)?;
        if !fields.contains_key(header::HOST) {
            return Err(HeadError::Host("the field Host is missing"));
        }
        let may_switch = method == Method::GET && !fields.contains_key(header::CONTENT_LENGTH);
        if fields.contains_key(header::UPGRADE) && !may_switch {
            return Err(HeadError::HopByHop(header::UPGRADE));
        }
        Ok(Self { method, target: canonical, fields })
    }
}

impl ResponseHead {
    /// Reads a response head from the whole part that carries it. The fields share its memory.
    ///
    /// # Errors
    ///
    /// [`HeadError`], also for anything that must not travel on a stream.
    pub fn decode(part: &Bytes) -> Result<Self, HeadError> {
        check_block(part, HEAD_LIMITS)?;
        let mut table = [const { MaybeUninit::uninit() }; MAX_STREAM_FIELDS];
        let mut response = Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            part,
            &mut table,
        );
        check_complete(parsed, part)?;
        if response.version != Some(1) {
            return Err(HeadError::Version);
        }
        let status = response
            .code
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or(HeadError::Malformed("the status is malformed"))?;
        Ok(Self { status, fields: stream_fields(part, response.headers)? })
    }
}

/// Reads a trailer section from the whole part that carries it.
///
/// # Errors
///
/// [`HeadError`], also for fields that must not be trailers.
pub fn decode_trailers(part: &Bytes) -> Result<HeaderMap, HeadError> {
    check_block(part, TRAILER_LIMITS)?;
    let mut trailers = HeaderMap::new();
    for_each_trailer(part, |name, value| {
        if !fields::may_be_trailer(&name) {
            return Err(HeadError::NotInTrailers(name));
        }
        trailers.append(name, value);
        Ok(())
    })?;
    Ok(trailers)
}

/// Parses a trailer section whose end the scanner has found.
pub(crate) fn for_each_trailer(
    block: &Bytes,
    mut handle: impl FnMut(HeaderName, HeaderValue) -> Result<(), HeadError>,
) -> Result<(), HeadError> {
    let mut table = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    match httparse::parse_headers(block, &mut table).map_err(HeadError::of_syntax)? {
        Status::Complete((end, headers)) if end == block.len() => {
            headers.iter().try_for_each(|header| {
                let (name, value) = field(block, header)?;
                handle(name, value)
            })
        }
        _ => Err(HeadError::Malformed("the trailer section is malformed")),
    }
}

/// One field line as a pair that shares the memory of `block`.
pub(crate) fn field(
    block: &Bytes,
    line: &Header<'_>,
) -> Result<(HeaderName, HeaderValue), HeadError> {
    let name = HeaderName::from_bytes(line.name.as_bytes())
        .map_err(|_| HeadError::Malformed("a field name is malformed"))?;
    let value = HeaderValue::from_maybe_shared(block.slice_ref(line.value))
        .map_err(|_| HeadError::Malformed("a field value is malformed"))?;
    Ok((name, value))
}

/// A method from its bytes.
pub(crate) fn method_of(method: &str) -> Result<Method, HeadError> {
    Method::from_bytes(method.as_bytes())
        .map_err(|_| HeadError::Malformed("the method is malformed"))
}

/// Checks that the parser used the whole of a block whose end the scanner has found.
pub(crate) fn check_complete(
    parsed: httparse::Result<usize>,
    block: &[u8],
) -> Result<(), HeadError> {
    match parsed.map_err(HeadError::of_syntax)? {
        Status::Complete(end) if end == block.len() => Ok(()),
        _ => Err(HeadError::Malformed("it does not end where its empty line is")),
    }
}

fn check_block(part: &[u8], limits: BlockLimits) -> Result<(), HeadError> {
    if part.len() > limits.block_bytes {
        return Err(HeadError::TooLarge { limit_bytes: limits.block_bytes });
    }
    if part.starts_with(b"\r\n") {
        return Err(HeadError::Malformed("it begins with an empty line"));
    }
    match BlockScanner::default().scan(part, limits) {
        Ok(Some(end)) if end == part.len() => Ok(()),
        Ok(Some(_)) => Err(HeadError::Malformed("something follows its empty line")),
        Ok(None) => Err(HeadError::Malformed("it lacks the empty line at its end")),
        Err(error) => Err(HeadError::of_block(error, limits)),
    }
}

fn stream_fields(part: &Bytes, lines: &[Header<'_>]) -> Result<HeaderMap, HeadError> {
    let mut map = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let (name, value) = field(part, line)?;
        if fields::stays_behind(&name, &value) {
            return Err(HeadError::HopByHop(name));
        }
        if fields::is_single(&name) && map.contains_key(&name) {
            return Err(HeadError::Repeated(name));
        }
        if name == header::CONTENT_LENGTH {
            fields::parse_content_length(&value)?;
        }
        map.append(name, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<RequestHead, HeadError> {
        RequestHead::decode(&Bytes::copy_from_slice(text.as_bytes()))
    }

    fn response(text: &str) -> Result<ResponseHead, HeadError> {
        ResponseHead::decode(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_head_survives_the_stream() {
        let head = request("CCM_POST /a?b HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: x\r\na: 2\r\n\r\n")
            .expect("accepted");
        let mut wire = bytes::BytesMut::new();
        head.encode(&mut wire).expect("encodes");
        assert_eq!(RequestHead::decode(&wire.freeze()), Ok(head));

        let head =
            response("HTTP/1.1 404 whatever\r\nContent-Length: 3\r\n\r\n").expect("accepted");
        let mut wire = bytes::BytesMut::new();
        head.encode(&mut wire).expect("encodes");
        assert_eq!(&wire[..], b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\n");
        assert_eq!(ResponseHead::decode(&wire.freeze()), Ok(head));
    }

    #[test]
    fn i13_request_heads_that_break_a_rule_are_refused() {
        for text in [
            "",
            "\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\r\nx",
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: h\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /a/../b HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET https://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket, x\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nClient-Cert: :a:\r\nClient-Cert: :b:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\nC: d\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\0c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n",
        ] {
            assert!(request(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn i13_size_and_number_of_fields_are_bounded() {
        let many = "a: b\r\n".repeat(10_000);
        assert_eq!(
            request(&format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n")),
            Err(HeadError::TooLarge { limit_bytes: MAX_STREAM_HEAD_BYTES })
        );
        let many = "a: b\r\n".repeat(MAX_STREAM_FIELDS);
        assert!(response(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).is_ok());
        assert_eq!(
            response(&format!("HTTP/1.1 200 OK\r\na: b\r\n{many}\r\n")),
            Err(HeadError::TooManyFields { limit: MAX_STREAM_FIELDS })
        );
        let long = "b".repeat(MAX_STREAM_HEAD_BYTES);
        assert!(response(&format!("HTTP/1.1 200 OK\r\na: {long}\r\n\r\n")).is_err());
        let mut head = ResponseHead::new(StatusCode::OK);
        head.fields.insert("a", HeaderValue::from_str(&long).expect("a value"));
        let mut out = bytes::BytesMut::from("before");
        assert!(head.encode(&mut out).is_err());
        assert_eq!(&out[..], b"before");
    }

    #[test]
    fn i13_response_heads_that_break_a_rule_are_refused() {
        for text in [
            "HTTP/1.1 99 x\r\n\r\n",
            "HTTP/1.1 099 x\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\n\r\n",
        ] {
            assert!(response(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn hop_by_hop_fields_are_not_encoded() {
        let mut head = ResponseHead::new(StatusCode::OK);
        head.fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let mut out = bytes::BytesMut::new();
        assert_eq!(head.encode(&mut out), Err(HeadError::HopByHop(header::CONNECTION)));
        let mut head = ResponseHead::new(StatusCode::OK);
        head.fields.append(header::HOST, HeaderValue::from_static("h"));
        assert_eq!(head.encode(&mut out), Ok(()));
        out.clear();
        head.fields.append(header::HOST, HeaderValue::from_static("h"));
        assert_eq!(head.encode(&mut out), Err(HeadError::Repeated(header::HOST)));
        assert!(out.is_empty());
    }

    #[test]
    fn trailers_carry_no_framing_and_no_identity() {
        let trailers =
            decode_trailers(&Bytes::from_static(b"Digest: a\r\nb: c\r\n\r\n")).expect("accepted");
        assert_eq!(trailers.len(), 2);
        for text in ["Content-Length: 1\r\n\r\n", "Client-Cert: :a:\r\n\r\n", "\r\n", "a: b\r\n"] {
            assert!(decode_trailers(&Bytes::from_static(text.as_bytes())).is_err(), "{text:?}");
        }
    }
}
