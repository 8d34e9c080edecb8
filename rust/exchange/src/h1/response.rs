//! Answers to a client.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};

use crate::fields;
use crate::head::{HeadError, ResponseHead, encode_trailers, put_field, put_status_line};
use crate::parts::{Account, PartsError};

/// What tells a client to send the body that it holds back.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The circumstances of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The method of the request.
    pub method: &'a Method,
    /// Whether a body follows the head. If not, and there could be one, its length is given as 0.
    pub has_body: bool,
    /// Whether the connection is closed after the answer, which the answer then says.
    pub close: bool,
    /// The time, as `Date` wants it: `Sun, 06 Nov 1994 08:49:37 GMT`. Used if the head has none.
    pub date: &'a str,
}

/// Writes one answer: its head, then a [`frame`](Self::frame) around each piece of the body, then
/// [`finish`](Self::finish).
///
/// After an error, or if the body cannot be finished, close the connection: an unfinished answer
/// must never look like a finished one.
#[derive(Debug)]
pub struct ResponseWriter {
    account: Account,
    chunked: bool,
}

impl ResponseWriter {
    /// Appends a final head to `out` and gives the writer for the body. The body is sent in chunks
    /// unless the head has a `Content-Length`.
    ///
    /// # Errors
    ///
    /// [`PartsError::Head`] if `Content-Length` is no number or there twice,
    /// [`PartsError::OutOfOrder`] for an interim head, [`PartsError::BodyTooShort`] if a body is
    /// declared and none follows. `out` is unchanged then.
    pub fn start(
        head: &ResponseHead,
        circumstances: Circumstances<'_>,
        out: &mut BytesMut,
    ) -> Result<Self, PartsError> {
        if head.status.is_informational() {
            return Err(PartsError::OutOfOrder);
        }
        let account = Account::of_response(head, *circumstances.method == Method::HEAD)?;
        if !circumstances.has_body {
            account.finish()?;
        }
        let has_length = head.fields.contains_key(header::CONTENT_LENGTH);
        let chunked = circumstances.has_body && account.is_allowed() && !has_length;
        out.reserve(256 + 48 * head.fields.len());
        put_status_line(out, head.status);
        let length_allowed = head.status != StatusCode::NO_CONTENT;
        put_end_to_end(out, &head.fields, length_allowed);
        if !head.fields.contains_key(header::DATE) {
            put_field(out, "date", circumstances.date.as_bytes());
        }
        if chunked {
            out.put_slice(b"transfer-encoding: chunked\r\n");
        } else if account.is_allowed() && !has_length {
            out.put_slice(b"content-length: 0\r\n");
        }
        if circumstances.close {
            out.put_slice(b"connection: close\r\n");
        }
        out.put_slice(b"\r\n");
        Ok(Self { account, chunked })
    }

    /// The bytes to send around a piece of the body of `bytes` length. An empty piece needs none
    /// and has none.
    ///
    /// # Errors
    ///
    /// [`PartsError::BodyTooLong`] over the declared length, [`PartsError::BodyNotAllowed`].
    pub fn frame(&mut self, bytes: usize) -> Result<Frame, PartsError> {
        self.account.add(bytes)?;
        Ok(if self.chunked && bytes > 0 { Frame::chunk(bytes) } else { Frame::NONE })
    }

    /// Appends what ends the body to `out`. Trailers are sent if the body is chunked, else dropped.
    ///
    /// # Errors
    ///
    /// [`PartsError::BodyTooShort`] under the declared length; [`PartsError::Trailers`] if the
    /// trailers cannot be sent.
    pub fn finish(self, trailers: &HeaderMap, out: &mut BytesMut) -> Result<(), PartsError> {
        self.account.finish()?;
        if !self.chunked {
            return Ok(());
        }
        let start = out.len();
        out.put_slice(b"0\r\n");
        encode_trailers(trailers, out).map_err(|error| {
            out.truncate(start);
            PartsError::Trailers(error)
        })
    }
}

/// Appends an interim head to `out`.
///
/// # Errors
///
/// [`HeadError::Malformed`] if it is none, or switches protocols.
pub fn encode_interim(head: &ResponseHead, out: &mut BytesMut) -> Result<(), HeadError> {
    if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(HeadError::Malformed("the status is not that of an interim answer"));
    }
    put_status_line(out, head.status);
    put_end_to_end(out, &head.fields, false);
    out.put_slice(b"\r\n");
    Ok(())
}

/// Appends a head of status 101 to `out`; what follows it is the new protocol's.
///
/// # Errors
///
/// [`HeadError::Malformed`] if it does not switch to WebSocket.
pub fn encode_switch(head: &ResponseHead, out: &mut BytesMut) -> Result<(), HeadError> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS
        || head.fields.get(header::UPGRADE) != Some(&fields::WEBSOCKET)
    {
        return Err(HeadError::Malformed("the answer does not switch to WebSocket"));
    }
    put_status_line(out, head.status);
    put_end_to_end(out, &head.fields, false);
    out.put_slice(b"connection: upgrade\r\nupgrade: websocket\r\n\r\n");
    Ok(())
}

/// Fields that frame or concern the connection are this writer's alone.
fn put_end_to_end(out: &mut BytesMut, fields: &HeaderMap, length_allowed: bool) {
    for (name, value) in fields {
        let wanted = if *name == header::CONTENT_LENGTH {
            length_allowed
        } else {
            !fields::is_hop_by_hop(name)
        };
        if wanted {
            put_field(out, name.as_str(), value.as_bytes());
        }
    }
}

/// The bytes around one piece of a body, so that the piece itself is not copied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Right-aligned: the size in hexadecimal digits, CR LF.
    prefix: [u8; Self::MAX_PREFIX_BYTES],
    start: usize,
    suffix: &'static [u8],
}

impl Default for Frame {
    /// Nothing on either side.
    fn default() -> Self {
        Self::NONE
    }
}

impl Frame {
    const MAX_PREFIX_BYTES: usize = 18;
    pub(super) const NONE: Self =
        Self { prefix: [0; 18], start: Self::MAX_PREFIX_BYTES, suffix: b"" };

    pub(super) fn chunk(bytes: usize) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut prefix = [0; Self::MAX_PREFIX_BYTES];
        let mut start = Self::MAX_PREFIX_BYTES - 2;
        prefix[start..].copy_from_slice(b"\r\n");
        let mut left = bytes;
        while left > 0 {
            start -= 1;
            prefix[start] = DIGITS[left & 0xf];
            left >>= 4;
        }
        Self { prefix, start, suffix: b"\r\n" }
    }

    /// What goes before the piece.
    #[must_use]
    pub fn prefix(&self) -> &[u8] {
        &self.prefix[self.start..]
    }

    /// What goes after it.
    #[must_use]
    pub fn suffix(&self) -> &'static [u8] {
        self.suffix
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_switch_is_written_for_the_connection() {
        let mut head = ResponseHead::new(StatusCode::SWITCHING_PROTOCOLS);
        head.fields.insert("sec-websocket-accept", HeaderValue::from_static("x"));
        let mut out = BytesMut::new();
        assert!(encode_switch(&head, &mut out).is_err());
        head.fields.insert(header::UPGRADE, fields::WEBSOCKET);
        encode_switch(&head, &mut out).expect("a switch");
        let expected = "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: x\r\n\
                        connection: upgrade\r\nupgrade: websocket\r\n\r\n";
        assert_eq!(out, expected.as_bytes());
    }

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn head(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHead {
        let mut head = ResponseHead::new(StatusCode::from_u16(status).expect("a status"));
        for &(name, value) in fields {
            head.fields.append(name, HeaderValue::from_static(value));
        }
        head
    }

    /// The whole answer, or the first error.
    fn answer(
        method: &Method,
        head: &ResponseHead,
        close: bool,
        pieces: Option<&[&str]>,
        trailers: &HeaderMap,
    ) -> Result<String, PartsError> {
        let mut out = BytesMut::new();
        let circumstances = Circumstances { method, has_body: pieces.is_some(), close, date: DATE };
        let mut writer = ResponseWriter::start(head, circumstances, &mut out)?;
        for piece in pieces.unwrap_or_default() {
            let frame = writer.frame(piece.len())?;
            out.extend_from_slice(frame.prefix());
            out.extend_from_slice(piece.as_bytes());
            out.extend_from_slice(frame.suffix());
        }
        writer.finish(trailers, &mut out)?;
        Ok(String::from_utf8(out.to_vec()).expect("text"))
    }

    #[test]
    fn each_answer_has_the_framing_that_fits_it() {
        let none = HeaderMap::new();
        let length = head(200, &[("content-length", "3")]);
        let plain = head(200, &[]);
        let date = format!("date: {DATE}\r\n");
        for (method, head, pieces, expected) in [
            (
                Method::GET,
                &length,
                Some(&["ab", "c"] as &[_]),
                format!("200 OK\r\ncontent-length: 3\r\n{date}\r\nabc"),
            ),
            (
                Method::GET,
                &plain,
                Some(&["ab", "", "0123456789abcdef"]),
                format!(
                    "200 OK\r\n{date}transfer-encoding: chunked\r\n\r\n\
                     2\r\nab\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
                ),
            ),
            (Method::GET, &plain, None, format!("200 OK\r\n{date}content-length: 0\r\n\r\n")),
            (Method::HEAD, &length, None, format!("200 OK\r\ncontent-length: 3\r\n{date}\r\n")),
            (Method::HEAD, &plain, None, format!("200 OK\r\n{date}\r\n")),
            (
                Method::GET,
                &self::head(204, &[("content-length", "0")]),
                None,
                format!("204 No Content\r\n{date}\r\n"),
            ),
            (
                Method::GET,
                &self::head(304, &[("content-length", "9")]),
                None,
                format!("304 Not Modified\r\ncontent-length: 9\r\n{date}\r\n"),
            ),
        ] {
            let answer = answer(&method, head, false, pieces, &none);
            assert_eq!(answer, Ok(format!("HTTP/1.1 {expected}")), "{method} {head:?}");
        }
    }

    #[test]
    fn connection_and_framing_fields_are_the_writers_own() {
        let head = head(
            599,
            &[
                ("connection", "x"),
                ("transfer-encoding", "gzip"),
                ("date", "then"),
                ("a", "b"),
                ("a", "c"),
            ],
        );
        let answer = answer(&Method::GET, &head, true, None, &HeaderMap::new()).expect("valid");
        assert_eq!(
            answer,
            "HTTP/1.1 599 \r\ndate: then\r\na: b\r\na: c\r\n\
             content-length: 0\r\nconnection: close\r\n\r\n"
        );
    }

    #[test]
    fn trailers_follow_the_last_chunk() {
        let mut trailers = HeaderMap::new();
        trailers.insert("digest", HeaderValue::from_static("x"));
        let answer = |head: &ResponseHead, trailers: &HeaderMap| {
            self::answer(&Method::GET, head, false, Some(&["abc"]), trailers)
        };
        let sent = answer(&head(200, &[]), &trailers).expect("valid");
        assert!(sent.ends_with("3\r\nabc\r\n0\r\ndigest: x\r\n\r\n"), "{sent}");
        let sent = answer(&head(200, &[("content-length", "3")]), &trailers).expect("valid");
        assert!(sent.ends_with("\r\n\r\nabc"), "{sent}");
        trailers.insert("content-length", HeaderValue::from_static("1"));
        assert!(answer(&head(200, &[]), &trailers).is_err());
    }

    #[test]
    fn an_answer_of_another_length_is_never_finished() {
        let none = HeaderMap::new();
        let length = head(200, &[("content-length", "3")]);
        let get = |head: &ResponseHead, pieces: Option<&[&str]>| {
            answer(&Method::GET, head, false, pieces, &none)
        };
        assert!(matches!(get(&length, Some(&["abcd"])), Err(PartsError::BodyTooLong { .. })));
        assert!(matches!(get(&length, Some(&["ab"])), Err(PartsError::BodyTooShort { .. })));
        assert!(matches!(get(&length, None), Err(PartsError::BodyTooShort { .. })));
        assert_eq!(get(&head(204, &[]), Some(&["a"])), Err(PartsError::BodyNotAllowed));
        assert_eq!(get(&head(100, &[]), None), Err(PartsError::OutOfOrder));
    }

    #[test]
    fn interim_heads_carry_no_framing() {
        let mut out = BytesMut::new();
        let early = head(103, &[("link", "x"), ("content-length", "3")]);
        encode_interim(&early, &mut out).expect("interim");
        assert_eq!(&out[..], b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
        assert!(encode_interim(&head(101, &[]), &mut out).is_err());
        assert!(encode_interim(&head(200, &[]), &mut out).is_err());
    }

    #[test]
    fn the_largest_chunk_fits_its_prefix() {
        assert_eq!(Frame::chunk(usize::MAX).prefix(), b"ffffffffffffffff\r\n");
        assert_eq!(Frame::chunk(1).prefix(), b"1\r\n");
    }
}
