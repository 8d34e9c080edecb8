//! The side towards a role: requests out, answers in.

use std::mem::MaybeUninit;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use httparse::ParserConfig;

use super::field_lines::Framing;
use super::{BodyLength, Frame};
use crate::fields::WEBSOCKET;
use crate::head::{
    HeadError, MAX_STREAM_FIELDS, MAX_STREAM_HEAD_BYTES, ResponseHead, check_complete,
    encode_trailers, field, is_safe, put_fields,
};
use crate::lines::{BlockLimits, BlockScanner};
use crate::parts::MAX_INTERIM_HEADS;

/// An answer must fit a stream.
const LIMITS: BlockLimits = BlockLimits {
    first_line_bytes: MAX_STREAM_HEAD_BYTES,
    block_bytes: MAX_STREAM_HEAD_BYTES,
    start_lines: 1,
    fields: MAX_STREAM_FIELDS,
};

/// What each answer begins with.
const START: &[u8] = b"HTTP/1.";

/// Writes one request: its head, then a [`frame`](Self::frame) around each piece of the body, then
/// [`finish`](Self::finish). That the body has its declared length is checked where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct RequestWriter {
    chunked: bool,
}

impl RequestWriter {
    /// Appends the head to `out`: `target` is a path with its query, `fields` are the end-to-end
    /// fields, `Host` among them. `has_body` says that a body follows, which is sent in chunks
    /// unless the fields declare its length. A field `Upgrade` makes the request ask to switch to
    /// WebSocket; it has no body then.
    pub fn start(
        method: &Method,
        target: &str,
        fields: &HeaderMap,
        has_body: bool,
        out: &mut BytesMut,
    ) -> Self {
        let switches = fields.contains_key(header::UPGRADE);
        let has_length = fields.contains_key(header::CONTENT_LENGTH);
        let chunked = has_body && !has_length && !switches;
        out.reserve(64 + target.len() + 48 * fields.len());
        out.put_slice(method.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(target.as_bytes());
        out.put_slice(b" HTTP/1.1\r\n");
        put_fields(out, fields);
        if switches {
            out.put_slice(b"connection: upgrade\r\n");
        } else if chunked {
            out.put_slice(b"transfer-encoding: chunked\r\n");
        } else if !has_length && !is_safe(method) {
            // Some servers demand a length of methods that usually have a body (RFC 9110, 8.6).
            out.put_slice(b"content-length: 0\r\n");
        }
        out.put_slice(b"\r\n");
        Self { chunked }
    }

    /// The bytes to send around a piece of the body. An empty piece needs none and has none.
    #[must_use]
    pub fn frame(self, bytes: usize) -> Frame {
        if self.chunked && bytes > 0 { Frame::chunk(bytes) } else { Frame::NONE }
    }

    /// What ends the body. Trailers are sent if it is chunked, else dropped.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the trailers cannot be sent.
    pub fn finish(self, trailers: &HeaderMap) -> Result<Bytes, HeadError> {
        match self.chunked {
            false => Ok(Bytes::new()),
            true if trailers.is_empty() => Ok(Bytes::from_static(b"0\r\n\r\n")),
            true => {
                let mut out = BytesMut::from(&b"0\r\n"[..]);
                encode_trailers(trailers, &mut out)?;
                Ok(out.freeze())
            }
        }
    }
}

/// An answer as its head announces it.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The head, without hop-by-hop fields; only the consent to switch to WebSocket stays.
    pub head: ResponseHead,
    /// The body that follows. None follows an interim head.
    pub body: BodyLength,
    /// Whether the role allows a further request on the connection.
    pub keep_alive: bool,
}

/// Reads the heads of one answer, interim ones first, as their bytes come.
#[derive(Clone, Copy, Debug)]
pub struct ResponseReader {
    scanner: BlockScanner,
    to_head: bool,
    to_switch: bool,
    interim_heads: u8,
}

impl ResponseReader {
    /// A reader for the answer to a request of this method, which may ask to switch protocols.
    #[must_use]
    pub fn new(method: &Method, asks_to_switch: bool) -> Self {
        Self {
            scanner: BlockScanner::default(),
            to_head: *method == Method::HEAD,
            to_switch: asks_to_switch,
            interim_heads: 0,
        }
    }

    /// Takes the next head off the front of `input` and leaves what follows it. `None` while it is
    /// not complete. The fields share the memory of the head's bytes.
    ///
    /// # Errors
    ///
    /// [`HeadError`]: this is no answer that may be passed on.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<Response>, HeadError> {
        // Whoever speaks another protocol may wait for us, and never end a head.
        if !input.iter().zip(START).all(|(has, wants)| has == wants) {
            return Err(HeadError::Malformed("it does not begin as answers in HTTP/1.1 do"));
        }
        let end = self.scanner.scan(input, LIMITS);
        let Some(end) = end.map_err(|error| HeadError::of_block(error, LIMITS))? else {
            return Ok(None);
        };
        self.scanner = BlockScanner::default();
        let response = self.parse(&input.split_to(end).freeze())?;
        if response.head.status.is_informational() {
            if self.interim_heads == MAX_INTERIM_HEADS {
                return Err(HeadError::Malformed("there are too many interim answers"));
            }
            self.interim_heads += 1;
        }
        Ok(Some(response))
    }

    fn parse(&self, block: &Bytes) -> Result<Response, HeadError> {
        let mut table = [const { MaybeUninit::uninit() }; MAX_STREAM_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            block,
            &mut table,
        );
        check_complete(parsed, block)?;
        let is_current = response.version == Some(1);
        let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(HeadError::Malformed("the status is malformed"))?;
        let mut framing = Framing::default();
        let mut fields = HeaderMap::with_capacity(response.headers.len());
        for line in &*response.headers {
            let (name, value) = field(block, line)?;
            if framing.add(&name, &value)? {
                fields.append(name, value);
            }
        }
        framing.options.remove_named(&mut fields, block, response.headers)?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(&framing, fields);
        }
        if framing.chunked && !is_current {
            return Err(HeadError::Framing("Transfer-Encoding is there in HTTP/1.0"));
        }
        let has_both = framing.chunked && framing.content_length.is_some();
        if has_both || status.is_informational() || status == StatusCode::NO_CONTENT {
            // Chunks decide how long a body is, not what else it was said to be.
            fields.remove(header::CONTENT_LENGTH);
        }
        let body = self.body(status, &framing);
        let ends_with_body = has_both || framing.options.close || body == BodyLength::UntilClose;
        let keep_alive = is_current && !ends_with_body;
        Ok(Response { head: ResponseHead { status, fields }, body, keep_alive })
    }

    /// Where the body ends (RFC 9112, section 6.3).
    fn body(&self, status: StatusCode, framing: &Framing) -> BodyLength {
        let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if self.to_head || has_none || status.is_informational() {
            return BodyLength::Empty;
        }
        match (framing.chunked, framing.content_length) {
            (true, _) => BodyLength::Chunked,
            (false, Some(length)) => BodyLength::Exact(length),
            (false, None) => BodyLength::UntilClose,
        }
    }

    /// The consent to switch (RFC 6455, section 4.2.2), if it was asked for.
    fn switch(&self, framing: &Framing, mut fields: HeaderMap) -> Result<Response, HeadError> {
        if !self.to_switch {
            let why = "it switches protocols, which the request did not ask for";
            return Err(HeadError::Malformed(why));
        }
        if !framing.options.upgrade || !framing.names_websocket {
            return Err(HeadError::Malformed("it switches to another protocol than WebSocket"));
        }
        fields.remove(header::CONTENT_LENGTH);
        fields.insert(header::UPGRADE, WEBSOCKET);
        let head = ResponseHead { status: StatusCode::SWITCHING_PROTOCOLS, fields };
        Ok(Response { head, body: BodyLength::UntilClose, keep_alive: false })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn read(method: &Method, text: &str) -> Result<Option<Response>, HeadError> {
        ResponseReader::new(method, false).read(&mut BytesMut::from(text))
    }

    fn get(fields: &str) -> Result<Response, HeadError> {
        read(&Method::GET, &format!("HTTP/1.1 200 OK\r\n{fields}\r\n"))
            .map(|response| response.expect("whole"))
    }

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line =
            |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        lines.iter().map(line).collect()
    }

    #[test]
    fn each_answer_ends_where_its_head_says() {
        use BodyLength::{Chunked, Empty, Exact, UntilClose};
        for (method, text, body, keep_alive) in [
            (Method::GET, "1.1 200 OK\r\nContent-Length: 3\r\n", Exact(3), true),
            (Method::GET, "1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n", Chunked, true),
            (Method::GET, "1.1 200 \r\n", UntilClose, false),
            (Method::GET, "1.1 200\r\nConnection: close\r\nContent-Length: 0\r\n", Exact(0), false),
            (Method::GET, "1.0 200 OK\r\nContent-Length: 3\r\n", Exact(3), false),
            (
                Method::GET,
                "1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n",
                Chunked,
                false,
            ),
            (Method::GET, "1.1 204 No Content\r\nContent-Length: 3\r\n", Empty, true),
            (Method::GET, "1.1 304 Not Modified\r\nContent-Length: 3\r\n", Empty, true),
            (Method::HEAD, "1.1 200 OK\r\nContent-Length: 3\r\n", Empty, true),
            (Method::HEAD, "1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", Empty, true),
            (Method::GET, "1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 3\r\n", Empty, true),
        ] {
            let response = read(&method, &format!("HTTP/{text}\r\nrest")).expect(text);
            let response = response.expect("whole");
            assert_eq!((response.body, response.keep_alive), (body, keep_alive), "{text:?}");
            let framing = response.head.fields.contains_key("transfer-encoding");
            assert!(!framing, "{text:?}");
            let length = response.head.fields.contains_key("content-length");
            let is_kept = matches!(body, Exact(_)) || text.contains("304");
            assert_eq!(length, is_kept || method == Method::HEAD && text.contains("Length"));
        }
    }

    #[test]
    fn heads_follow_one_another_in_any_pieces() {
        let mut reader = ResponseReader::new(&Method::GET, false);
        let text = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\nbody";
        let mut input = BytesMut::new();
        let mut seen = Vec::new();
        for byte in text.bytes() {
            input.put_u8(byte);
            if seen.len() < 2 {
                seen.extend(reader.read(&mut input).expect("valid"));
            }
        }
        let statuses: Vec<_> = seen.iter().map(|seen| seen.head.status.as_u16()).collect();
        assert_eq!(statuses, [103, 200]);
        assert_eq!(seen[0].head.fields["link"], "x");
        assert_eq!(&input[..], b"body");
    }

    #[test]
    fn fields_of_the_connection_are_not_kept() {
        let response =
            get("Connection: X-Own, keep-alive\r\nX-Own: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n\
             Proxy-Authenticate: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n")
            .expect("valid");
        let mut kept: Vec<_> = response.head.fields.iter().map(|(name, _)| name.as_str()).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["content-length", "set-cookie", "set-cookie"]);
        assert!(response.keep_alive);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "SSH-2.0-x\r\n",
            "\x15\x03\x01",
            "HTTP/2",
            "HTTP/1.1 99 Low\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            &format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(MAX_STREAM_HEAD_BYTES)),
            &format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(MAX_STREAM_FIELDS + 1)),
        ] {
            assert!(read(&Method::GET, text).is_err(), "{:?}", &text[..text.len().min(60)]);
        }
    }

    #[test]
    fn interim_answers_are_bounded() {
        let mut reader = ResponseReader::new(&Method::GET, false);
        let text = "HTTP/1.1 100 Continue\r\n\r\n".repeat(usize::from(MAX_INTERIM_HEADS) + 1);
        let mut input = BytesMut::from(&*text);
        for _ in 0..MAX_INTERIM_HEADS {
            assert!(matches!(reader.read(&mut input), Ok(Some(_))));
        }
        assert!(reader.read(&mut input).is_err());
    }

    #[test]
    fn a_switch_is_passed_on_if_it_was_asked_for() {
        let read = |text: &str| {
            let text = format!("HTTP/1.1 101 Switching Protocols\r\n{text}\r\nraw");
            ResponseReader::new(&Method::GET, true).read(&mut BytesMut::from(&*text))
        };
        let consent = "Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: x\r\n";
        let response = read(consent).expect("valid").expect("whole");
        assert_eq!(response.head.fields["upgrade"], WEBSOCKET);
        assert_eq!(response.head.fields["sec-websocket-accept"], "x");
        assert!(!response.keep_alive);
        assert!(read("Connection: upgrade\r\nUpgrade: h2c\r\n").is_err());
        assert!(read("Upgrade: websocket\r\n").is_err());
    }

    #[test]
    fn each_request_has_the_framing_that_fits_it() {
        for (method, lines, has_body, expected) in [
            (Method::GET, &[("host", "h")][..], false, "host: h\r\n"),
            (Method::POST, &[], false, "content-length: 0\r\n"),
            (Method::POST, &[("content-length", "3")], true, "content-length: 3\r\n"),
            (Method::GET, &[], true, "transfer-encoding: chunked\r\n"),
            (
                Method::GET,
                &[("upgrade", "websocket")],
                true,
                "upgrade: websocket\r\nconnection: upgrade\r\n",
            ),
        ] {
            let mut out = BytesMut::new();
            let writer = RequestWriter::start(&method, "/a?b", &map(lines), has_body, &mut out);
            assert_eq!(out, format!("{method} /a?b HTTP/1.1\r\n{expected}\r\n").as_bytes());
            let chunked = expected.contains("chunked");
            assert_eq!(writer.frame(26).prefix(), if chunked { &b"1a\r\n"[..] } else { b"" });
            let end = writer.finish(&map(&[("digest", "x")])).expect("a trailer");
            assert_eq!(end, if chunked { &b"0\r\ndigest: x\r\n\r\n"[..] } else { b"" });
        }
        let mut out = BytesMut::new();
        let writer = RequestWriter::start(&Method::PUT, "/", &map(&[]), true, &mut out);
        assert!(writer.finish(&map(&[("host", "x")])).is_err());
        assert_eq!(writer.finish(&HeaderMap::new()).expect("none"), "0\r\n\r\n");
    }
}
