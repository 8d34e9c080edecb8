//! Request bodies of a client.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::BodyLength;
use super::chunked::{ChunkDecoder, Next};
use crate::fields;
use crate::head::{HeadError, TRAILER_LIMITS, for_each_trailer};
use crate::lines::BlockScanner;
use crate::refusal::Reason;

/// From this size on a piece is handed over as a part of its buffer: a quarter of what is read at a time.
const SHARE_BYTES: usize = 4 * 1024;

/// What arrived of a body.
#[derive(Clone, Debug, PartialEq)]
pub enum BodyEvent {
    /// Bytes of the body, at least one.
    Data(Bytes),
    /// The trailers that may be passed on; [`BodyEvent::End`] follows.
    Trailers(HeaderMap),
    /// The body is complete. What is left of the input belongs to the next request.
    End,
}

/// Reads one body as its bytes come.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
    /// What may still come before the limit of the mapping is reached.
    room_bytes: u64,
}

#[derive(Debug)]
enum State {
    Exact { left: u64 },
    UntilClose,
    Chunks(ChunkDecoder),
    Trailers(BlockScanner),
    Over,
    Failed(BodyError),
}

impl BodyReader {
    /// A reader for a body of this length, of which at most `max_bytes` are accepted.
    ///
    /// # Errors
    ///
    /// [`BodyError::TooLarge`] if the length is known to be more.
    pub fn new(length: BodyLength, max_bytes: u64) -> Result<Self, BodyError> {
        let state = match length {
            BodyLength::Empty => State::Over,
            BodyLength::Exact(length) if length > max_bytes => return Err(BodyError::TooLarge),
            BodyLength::Exact(0) => State::Over,
            BodyLength::Exact(left) => State::Exact { left },
            BodyLength::Chunked => State::Chunks(ChunkDecoder::new()),
            BodyLength::UntilClose => State::UntilClose,
        };
        Ok(Self { state, room_bytes: max_bytes })
    }

    /// Takes the next event off the front of `input`; only little data is copied. `None` while more input
    /// is needed. Once the body is complete each call gives [`BodyEvent::End`] and takes nothing.
    ///
    /// # Errors
    ///
    /// [`BodyError`], and the same for each further call: answer with its
    /// [`reason`](BodyError::reason) and close.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<BodyEvent>, BodyError> {
        let event = self.advance(input);
        if let Err(error) = &event {
            self.state = State::Failed(*error);
        }
        event
    }

    /// Takes the end of the body off the front of `input` if it is there, with no data and no
    /// trailers before it; says whether the body is complete. Lets the last data and the end be
    /// passed on as one.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_end(&mut self, input: &mut BytesMut) -> Result<bool, BodyError> {
        if let State::Chunks(decoder) = &mut self.state {
            let handled = decoder.handle(input);
            let (used, next) = handled.inspect_err(|error| self.state = State::Failed(*error))?;
            input.advance(used);
            if next == Next::Trailers {
                self.state = State::Trailers(BlockScanner::default());
            }
        }
        if let State::Trailers(scanner) = &self.state
            && scanner.in_first_line()
            && input.starts_with(b"\r\n")
        {
            input.advance(2);
            self.state = State::Over;
        }
        Ok(self.is_complete())
    }

    /// Notes that the connection has ended, behind all that was read.
    ///
    /// # Errors
    ///
    /// [`BodyError::Truncated`] if the body is not complete with that.
    pub fn handle_end(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Over => Ok(()),
            State::UntilClose => {
                self.state = State::Over;
                Ok(())
            }
            State::Failed(error) => Err(error),
            _ => {
                self.state = State::Failed(BodyError::Truncated);
                Err(BodyError::Truncated)
            }
        }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn advance(&mut self, input: &mut BytesMut) -> Result<Option<BodyEvent>, BodyError> {
        match &mut self.state {
            State::Over => return Ok(Some(BodyEvent::End)),
            State::Failed(error) => return Err(*error),
            State::Exact { left } => {
                let data = take_piece(input, *left);
                *left -= data.len() as u64;
                if *left == 0 {
                    self.state = State::Over;
                }
                return Ok((!data.is_empty()).then_some(BodyEvent::Data(data)));
            }
            State::UntilClose => {
                let data = take_piece(input, self.room_bytes);
                if data.is_empty() && !input.is_empty() {
                    return Err(BodyError::TooLarge);
                }
                self.room_bytes -= data.len() as u64;
                return Ok((!data.is_empty()).then_some(BodyEvent::Data(data)));
            }
            State::Chunks(decoder) => {
                let (used, next) = decoder.handle(input)?;
                input.advance(used);
                match next {
                    Next::More => return Ok(None),
                    Next::Data(size) if size > self.room_bytes => return Err(BodyError::TooLarge),
                    Next::Data(size) => {
                        let data = take_piece(input, size);
                        decoder.took(data.len() as u64);
                        self.room_bytes -= data.len() as u64;
                        return Ok((!data.is_empty()).then_some(BodyEvent::Data(data)));
                    }
                    Next::Trailers => self.state = State::Trailers(BlockScanner::default()),
                }
            }
            State::Trailers(_) => {}
        }
        self.trailers(input)
    }

    fn trailers(&mut self, input: &mut BytesMut) -> Result<Option<BodyEvent>, BodyError> {
        let State::Trailers(scanner) = &mut self.state else {
            return Ok(None);
        };
        let end = scanner.scan(input, TRAILER_LIMITS);
        let Some(end) = end.map_err(|_| BodyError::Trailers)? else {
            return Ok(None);
        };
        let block = input.split_to(end).freeze();
        let mut trailers = HeaderMap::new();
        if block.len() > 2 {
            let kept = for_each_trailer(&block, |name, value| {
                if fields::may_be_trailer(&name) {
                    trailers.append(name, value);
                }
                Ok(())
            });
            kept.map_err(|_: HeadError| BodyError::Trailers)?;
        }
        self.state = State::Over;
        Ok(Some(if trailers.is_empty() { BodyEvent::End } else { BodyEvent::Trailers(trailers) }))
    }
}

/// Takes up to `limit` bytes off the front of `input`. Few are copied, as by [`own_piece`].
pub fn take_piece(input: &mut BytesMut, limit: u64) -> Bytes {
    let bytes = usize::try_from(limit).unwrap_or(usize::MAX).min(input.len());
    if bytes >= SHARE_BYTES {
        return input.split_to(bytes).freeze();
    }
    let copy = Bytes::copy_from_slice(&input[..bytes]);
    input.advance(bytes);
    copy
}

/// Copies a small piece, which may have to wait and should not keep the whole of a large buffer alive
/// meanwhile.
#[must_use]
pub fn own_piece(piece: Bytes) -> Bytes {
    if piece.len() >= SHARE_BYTES { piece } else { Bytes::copy_from_slice(&piece) }
}

/// A body that is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Longer than the mapping allows.
    #[error("the body is longer than the mapping allows")]
    TooLarge,
    /// Not the syntax of chunks.
    #[error("{0}")]
    Malformed(&'static str),
    /// Trailers that are malformed or too large.
    #[error("the trailers are malformed or too large")]
    Trailers,
    /// The connection ended within the body.
    #[error("the connection ended within the body")]
    Truncated,
}

impl BodyError {
    /// The reason to give the client.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLarge => Reason::BodyTooLarge,
            Self::Malformed(_) | Self::Trailers | Self::Truncated => Reason::BadBody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BYTES: u64 = 1000;

    /// Body, trailers and what is left of the input, or the error.
    fn read(
        length: BodyLength,
        max_bytes: u64,
        text: &str,
    ) -> Result<Option<(String, usize, String)>, BodyError> {
        let mut reader = BodyReader::new(length, max_bytes)?;
        let mut input = BytesMut::from(text);
        let (mut body, mut trailers) = (Vec::new(), 0);
        loop {
            match reader.read(&mut input)? {
                None => return Ok(None),
                Some(BodyEvent::Data(data)) => body.extend_from_slice(&data),
                Some(BodyEvent::Trailers(map)) => trailers = map.len(),
                Some(BodyEvent::End) => {
                    assert!(reader.is_complete());
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    return Ok(Some((text(&body), trailers, text(&input))));
                }
            }
        }
    }

    fn chunked(text: &str) -> Result<Option<(String, usize, String)>, BodyError> {
        read(BodyLength::Chunked, MAX_BYTES, text)
    }

    #[test]
    fn a_small_piece_leaves_the_buffer_to_what_comes_next_and_a_large_one_is_not_copied() {
        let mut input = BytesMut::with_capacity(2 * SHARE_BYTES);
        let buffer = input.as_ptr() as usize;
        let held: Vec<Bytes> = (0..10 * SHARE_BYTES)
            .map(|_| {
                input.reserve(2 * SHARE_BYTES);
                input.extend_from_slice(b"x");
                take_piece(&mut input, u64::MAX)
            })
            .collect();
        assert_eq!(input.as_ptr() as usize - buffer, 1, "only the last byte has moved it");
        assert!(held.iter().all(|piece| piece[..] == *b"x"));
        input.extend_from_slice(&[7; SHARE_BYTES + 1]);
        let place = input.as_ptr();
        assert_eq!(take_piece(&mut input, SHARE_BYTES as u64).as_ptr(), place);
        assert_eq!(input[..], [7]);
    }

    #[test]
    fn a_body_ends_where_its_length_says() {
        for (length, text, expected) in [
            (BodyLength::Empty, "next", ("", 0, "next")),
            (BodyLength::Exact(0), "next", ("", 0, "next")),
            (BodyLength::Exact(3), "abcnext", ("abc", 0, "next")),
            (BodyLength::Chunked, "0\r\n\r\nnext", ("", 0, "next")),
            (
                BodyLength::Chunked,
                "3\r\nabc\r\n0A\r\n0123456789\r\n000\r\n\r\nnext",
                ("abc0123456789", 0, "next"),
            ),
            (BodyLength::Chunked, "3;a=b;c=\"d e\"\r\nabc\r\n0;x\r\n\r\nnext", ("abc", 0, "next")),
            (
                BodyLength::Chunked,
                "1\r\na\r\n0\r\nDigest: x\r\nHost: y\r\n\r\nnext",
                ("a", 1, "next"),
            ),
            (BodyLength::Chunked, "0\r\nTransfer-Encoding: chunked\r\n\r\nnext", ("", 0, "next")),
        ] {
            let expected = (expected.0.to_owned(), expected.1, expected.2.to_owned());
            assert_eq!(read(length, MAX_BYTES, text), Ok(Some(expected)), "{text:?}");
        }
        assert_eq!(read(BodyLength::Exact(3), MAX_BYTES, "ab"), Ok(None));
    }

    #[test]
    fn the_end_is_taken_only_if_nothing_is_before_it() {
        let after_data = |rest: &str| {
            let mut reader = BodyReader::new(BodyLength::Chunked, 9).expect("no length declared");
            let mut input = BytesMut::from(format!("1\r\na{rest}").as_str());
            assert!(matches!(reader.read(&mut input), Ok(Some(BodyEvent::Data(_)))));
            reader.read_end(&mut input).map(|is_over| (is_over, input))
        };
        assert_eq!(after_data("\r\n0\r\n\r\nnext"), Ok((true, "next".into())));
        assert_eq!(after_data("\r\n0\r\na: b\r\n\r\n"), Ok((false, "a: b\r\n\r\n".into())));
        assert_eq!(after_data("\r\n1\r\nb"), Ok((false, "b".into())));
        assert_eq!(after_data("\r\n0\r\n"), Ok((false, "".into())));
        assert_eq!(after_data(""), Ok((false, "".into())));
        assert!(after_data("x").is_err());
        let mut exact = BodyReader::new(BodyLength::Exact(1), 9).expect("short enough");
        assert_eq!(exact.read_end(&mut "a".into()), Ok(false));
        exact.read(&mut "a".into()).expect("all of it");
        assert_eq!(exact.read_end(&mut "".into()), Ok(true));
    }

    #[test]
    fn only_a_body_without_a_length_may_end_with_the_connection() {
        let mut reader = BodyReader::new(BodyLength::UntilClose, 4).expect("no length declared");
        let mut input = BytesMut::from("abc");
        assert_eq!(reader.read(&mut input), Ok(Some(BodyEvent::Data("abc".into()))));
        assert_eq!(reader.read(&mut input), Ok(None));
        assert!(!reader.is_complete());
        assert_eq!(reader.handle_end(), Ok(()));
        assert_eq!(reader.read(&mut input), Ok(Some(BodyEvent::End)));
        for length in [BodyLength::Exact(4), BodyLength::Chunked] {
            let mut reader = BodyReader::new(length, 4).expect("within the limit");
            assert_eq!(reader.handle_end(), Err(BodyError::Truncated));
            assert_eq!(reader.read(&mut BytesMut::from("abcd")), Err(BodyError::Truncated));
        }
        assert_eq!(read(BodyLength::UntilClose, 4, "abcde"), Err(BodyError::TooLarge));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for text in [
            "\r\n",
            "x\r\n",
            " 3\r\n",
            "+3\r\n",
            "-3\r\n",
            "0x3\r\n",
            "3 \r\n",
            "3 ;a\r\n",
            "3\n",
            "3\rx",
            "3\r\nabcd",
            "3\r\nabc\n",
            "3\r\nabc\rx",
            "3\r\nabc0",
            "3;a\nb",
            "3;\x01\r\n",
            "3;é\r\n",
            "1000000000000000",
            "0000000000000000",
            "3_0\r\n",
            "0\r\na b\r\n\r\n",
            "0\r\na: b\n\r\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\nx\r\n\r\n",
            "0\r\na : b\r\n\r\n",
        ] {
            let error = chunked(text).expect_err(text);
            assert_eq!(error.reason(), Reason::BadBody, "{text:?}");
        }
    }

    #[test]
    fn the_limit_of_the_mapping_holds_for_both_lengths() {
        assert_eq!(read(BodyLength::Exact(6), 5, ""), Err(BodyError::TooLarge));
        assert!(matches!(read(BodyLength::Exact(5), 5, "abcde"), Ok(Some(_))));
        assert!(matches!(read(BodyLength::Chunked, 5, "5\r\nabcde\r\n0\r\n\r\n"), Ok(Some(_))));
        assert_eq!(read(BodyLength::Chunked, 5, "6\r\n"), Err(BodyError::TooLarge));
        assert_eq!(read(BodyLength::Chunked, 5, "4\r\nabcd\r\n2\r\n"), Err(BodyError::TooLarge));
        assert_eq!(BodyError::TooLarge.reason().status(), 413);
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = |bytes| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(bytes));
        let limit = super::super::MAX_CHUNK_EXTENSION_BYTES;
        assert!(matches!(chunked(&extension(limit - 1)), Ok(Some(_))));
        assert!(chunked(&extension(limit)).is_err());
        let repeated = "1;xxxx\r\na\r\n".repeat(limit / 5 + 1);
        assert!(read(BodyLength::Chunked, u64::MAX, &repeated).is_err());
        assert_eq!(chunked(&format!("0\r\n{}", "a: b\r\n".repeat(40))), Err(BodyError::Trailers));
        assert_eq!(chunked(&format!("0\r\na: {}", "b".repeat(9000))), Err(BodyError::Trailers));
    }

    #[test]
    fn an_error_stays() {
        let mut reader = BodyReader::new(BodyLength::Chunked, 5).expect("no length declared");
        assert!(reader.read(&mut BytesMut::from("x")).is_err());
        assert!(reader.read(&mut BytesMut::from("0\r\n\r\n")).is_err());
        assert!(!reader.is_complete());
    }
}
