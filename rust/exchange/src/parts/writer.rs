//! The sending end of one direction.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};

use super::account::Account;
use super::{End, MAX_INTERIM_HEADS, PartsError};
use crate::head::{RequestHead, ResponseHead, encode_trailers};

/// What to send next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Piece {
    /// The bytes; may be empty if `end` is not [`End::None`].
    pub data: Bytes,
    /// What ends with them.
    pub end: End,
}

/// Writes the parts of one direction in an order that [`Reader`](super::Reader) accepts.
///
/// After an error, or if the message cannot be finished, reset the stream: an unfinished message
/// must never look like a finished one.
#[derive(Debug)]
pub struct Writer {
    state: State,
    direction: Direction,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Request,
    Response { to_head: bool, to_switch: bool },
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head {
        interim_heads: u8,
    },
    Body(Account),
    /// After a body that trailers follow.
    Trailers,
    Over,
}

impl Writer {
    /// A writer of a request.
    #[must_use]
    pub fn request() -> Self {
        Self { state: State::Head { interim_heads: 0 }, direction: Direction::Request }
    }

    /// A writer of the answer to a request of this method.
    #[must_use]
    pub fn response(method: &Method) -> Self {
        Self::answer(*method == Method::HEAD, false)
    }

    /// A writer of the answer to a request that [asks to switch](RequestHead::asks_to_switch).
    #[must_use]
    pub fn response_to_switch() -> Self {
        Self::answer(false, true)
    }

    fn answer(to_head: bool, to_switch: bool) -> Self {
        let direction = Direction::Response { to_head, to_switch };
        Self { state: State::Head { interim_heads: 0 }, direction }
    }

    /// The head of a request. With `last` nothing follows it, not even an empty body.
    ///
    /// # Errors
    ///
    /// [`PartsError::Head`] if it cannot travel; [`PartsError::BodyTooShort`] if it is the last
    /// piece and declares a body.
    pub fn request_head(&mut self, head: &RequestHead, last: bool) -> Result<Piece, PartsError> {
        let State::Head { .. } = std::mem::replace(&mut self.state, State::Over) else {
            return Err(PartsError::OutOfOrder);
        };
        if self.direction != Direction::Request {
            return Err(PartsError::OutOfOrder);
        }
        let account = Account::of_request(head)?;
        let mut out = BytesMut::with_capacity(HEAD_CAPACITY_BYTES);
        head.encode(&mut out).map_err(PartsError::Head)?;
        self.after_head(out, account, last)
    }

    /// The head of an answer, which may be an interim one. With `last` nothing follows it.
    ///
    /// # Errors
    ///
    /// [`PartsError::Head`] if it cannot travel; [`PartsError::BodyTooShort`] if it is the last
    /// piece and declares a body; [`PartsError::SwitchesProtocols`],
    /// [`PartsError::TooManyInterimHeads`].
    pub fn response_head(&mut self, head: &ResponseHead, last: bool) -> Result<Piece, PartsError> {
        let State::Head { interim_heads } = std::mem::replace(&mut self.state, State::Over) else {
            return Err(PartsError::OutOfOrder);
        };
        let Direction::Response { to_head, to_switch } = self.direction else {
            return Err(PartsError::OutOfOrder);
        };
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if switches && !to_switch {
            return Err(PartsError::SwitchesProtocols);
        }
        let mut out = BytesMut::with_capacity(HEAD_CAPACITY_BYTES);
        head.encode(&mut out).map_err(PartsError::Head)?;
        if switches {
            return self.after_head(out, Account::of_switch(), last);
        }
        if !head.status.is_informational() {
            return self.after_head(out, Account::of_response(head, to_head)?, last);
        }
        if last {
            return Err(PartsError::NoHead);
        }
        if interim_heads == MAX_INTERIM_HEADS {
            return Err(PartsError::TooManyInterimHeads);
        }
        self.state = State::Head { interim_heads: interim_heads + 1 };
        Ok(Piece { data: out.freeze(), end: End::Part })
    }

    /// Bytes of the body, passed on without a copy. [`End::Part`] says that trailers follow,
    /// [`End::Stream`] that nothing does; the bytes may be empty with either.
    ///
    /// # Errors
    ///
    /// [`PartsError::BodyTooLong`] over the declared length, [`PartsError::BodyTooShort`] if it
    /// ends under it; [`PartsError::BodyNotAllowed`].
    pub fn data(&mut self, data: Bytes, end: End) -> Result<Piece, PartsError> {
        let State::Body(mut account) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(PartsError::OutOfOrder);
        };
        account.add(data.len())?;
        if end != End::None {
            account.finish()?;
        }
        self.state = match end {
            End::None => State::Body(account),
            End::Part if account.allows_trailers() => State::Trailers,
            End::Part => return Err(PartsError::BodyNotAllowed),
            End::Stream => State::Over,
        };
        Ok(Piece { data, end })
    }

    /// The trailers, after data with [`End::Part`].
    ///
    /// # Errors
    ///
    /// [`PartsError::Trailers`] if they cannot travel.
    pub fn trailers(&mut self, trailers: &HeaderMap) -> Result<Piece, PartsError> {
        let State::Trailers = std::mem::replace(&mut self.state, State::Over) else {
            return Err(PartsError::OutOfOrder);
        };
        let mut out = BytesMut::new();
        if !trailers.is_empty() {
            encode_trailers(trailers, &mut out).map_err(PartsError::Trailers)?;
        }
        Ok(Piece { data: out.freeze(), end: End::Stream })
    }

    /// Whether the message is complete, or cannot be completed any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn after_head(
        &mut self,
        out: BytesMut,
        account: Account,
        last: bool,
    ) -> Result<Piece, PartsError> {
        if last {
            account.finish()?;
            return Ok(Piece { data: out.freeze(), end: End::Stream });
        }
        self.state = State::Body(account);
        Ok(Piece { data: out.freeze(), end: End::Part })
    }
}

/// Room for most heads without growing.
const HEAD_CAPACITY_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::super::Reader;
    use super::*;

    fn answer(length: Option<&'static str>) -> ResponseHead {
        let mut head = ResponseHead::new(StatusCode::OK);
        if let Some(length) = length {
            head.fields.insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
        }
        head
    }

    #[test]
    fn a_reader_accepts_what_is_written() {
        let mut writer = Writer::response(&Method::GET);
        let mut trailers = HeaderMap::new();
        trailers.insert("digest", HeaderValue::from_static("x"));
        let pieces = [
            writer.response_head(&ResponseHead::new(StatusCode::CONTINUE), false).expect("interim"),
            writer.response_head(&answer(Some("3")), false).expect("head"),
            writer.data(Bytes::from_static(b"ab"), End::None).expect("data"),
            writer.data(Bytes::from_static(b"c"), End::Part).expect("data"),
            writer.trailers(&trailers).expect("trailers"),
        ];
        assert!(writer.is_over());
        let mut reader = Reader::response(&Method::GET);
        let complete = pieces
            .into_iter()
            .map(|piece| reader.handle_piece(piece.data, piece.end).expect("accepted").complete);
        assert_eq!(complete.collect::<Vec<_>>(), [false, false, false, false, true]);
    }

    #[test]
    fn a_body_of_another_length_is_never_finished() {
        let mut writer = Writer::response(&Method::GET);
        writer.response_head(&answer(Some("3")), false).expect("head");
        let short = writer.data(Bytes::from_static(b"ab"), End::Stream);
        assert!(matches!(short, Err(PartsError::BodyTooShort { .. })));
        assert!(writer.is_over());

        let mut writer = Writer::response(&Method::GET);
        writer.response_head(&answer(Some("3")), false).expect("head");
        let long = writer.data(Bytes::from_static(b"abcd"), End::None);
        assert!(matches!(long, Err(PartsError::BodyTooLong { .. })));
        assert_eq!(writer.data(Bytes::new(), End::Stream), Err(PartsError::OutOfOrder));

        let mut writer = Writer::response(&Method::GET);
        assert!(writer.response_head(&answer(Some("3")), true).is_err());
    }

    #[test]
    fn an_answer_to_head_declares_a_length_and_has_no_body() {
        let mut writer = Writer::response(&Method::HEAD);
        let piece = writer.response_head(&answer(Some("3")), true).expect("head");
        assert_eq!(piece.end, End::Stream);
        let mut writer = Writer::response(&Method::HEAD);
        writer.response_head(&answer(None), false).expect("head");
        assert_eq!(
            writer.data(Bytes::from_static(b"a"), End::None),
            Err(PartsError::BodyNotAllowed)
        );
    }

    #[test]
    fn a_writer_has_one_direction_and_one_order() {
        let mut writer = Writer::request();
        assert_eq!(writer.response_head(&answer(None), false), Err(PartsError::OutOfOrder));
        let mut writer = Writer::response(&Method::GET);
        assert_eq!(writer.data(Bytes::from_static(b"a"), End::None), Err(PartsError::OutOfOrder));
        let mut writer = Writer::response(&Method::GET);
        writer.response_head(&answer(None), true).expect("head");
        assert_eq!(writer.response_head(&answer(None), true), Err(PartsError::OutOfOrder));
        let mut writer = Writer::response(&Method::GET);
        let switch = ResponseHead::new(StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(writer.response_head(&switch, false), Err(PartsError::SwitchesProtocols));
    }
}
