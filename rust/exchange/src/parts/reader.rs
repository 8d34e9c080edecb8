//! The receiving end of one direction.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};

use super::account::Account;
use super::{End, MAX_INTERIM_HEADS, PartsError};
use crate::head::{
    HeadError, MAX_STREAM_HEAD_BYTES, MAX_TRAILER_BYTES, RequestHead, ResponseHead, decode_trailers,
};

/// What arrived.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<H> {
    /// An interim head; the head is still to come.
    Interim(H),
    /// The head.
    Head(H),
    /// Bytes of the body, at least one.
    Data(Bytes),
    /// The trailers.
    Trailers(HeaderMap),
}

/// The outcome of one piece of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Received<H> {
    /// What arrived, if the piece completes something.
    pub event: Option<Event<H>>,
    /// Whether that was all: the message is complete and nothing may follow.
    pub complete: bool,
}

/// Reads the parts of one direction. `H` is [`RequestHead`] or [`ResponseHead`].
///
/// A head is copied once, because its fields stay longer than the buffer that the piece is a part of
/// should. After an error the reader refuses everything.
#[derive(Debug)]
pub struct Reader<H> {
    state: State,
    understand: fn(&Bytes, bool) -> Result<Understood<H>, PartsError>,
    to_head: bool,
}

#[derive(Debug)]
enum State {
    /// Before the head, with what there is of it and the number of interim heads so far.
    Head { held: BytesMut, interim_heads: u8 },
    /// In the body.
    Body(Account),
    /// After the body, with what there is of the trailers.
    Trailers { held: BytesMut, allowed: bool },
    /// After the trailers: only the end of the stream is missing.
    AfterTrailers,
    /// After the end of the stream, or an error.
    Over,
}

/// A head, and the account of its body unless it is an interim one.
type Understood<H> = (H, Option<Account>);

impl Reader<RequestHead> {
    /// A reader of a request.
    #[must_use]
    pub fn request() -> Self {
        Self::new(false, |part, _| {
            let head = RequestHead::decode(part).map_err(PartsError::Head)?;
            let account = Account::of_request(&head)?;
            Ok((head, Some(account)))
        })
    }
}

impl Reader<ResponseHead> {
    /// A reader of the answer to a request of this method.
    #[must_use]
    pub fn response(method: &Method) -> Self {
        Self::new(*method == Method::HEAD, |part, to_head| {
            let head = ResponseHead::decode(part).map_err(PartsError::Head)?;
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(PartsError::SwitchesProtocols);
            }
            with_account(head, to_head)
        })
    }

    /// A reader of the answer to a request that [asks to switch](RequestHead::asks_to_switch). After
    /// a head of status 101 all data is the new protocol's.
    #[must_use]
    pub fn response_to_switch() -> Self {
        Self::new(false, |part, to_head| {
            let head = ResponseHead::decode(part).map_err(PartsError::Head)?;
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok((head, Some(Account::of_switch())));
            }
            with_account(head, to_head)
        })
    }
}

impl<H> Reader<H> {
    fn new(
        to_head: bool,
        understand: fn(&Bytes, bool) -> Result<Understood<H>, PartsError>,
    ) -> Self {
        let state = State::Head { held: BytesMut::new(), interim_heads: 0 };
        Self { state, understand, to_head }
    }

    /// Takes the next piece of the stream. The end of the stream may come with the last data, or
    /// alone as an empty piece.
    ///
    /// # Errors
    ///
    /// [`PartsError`] says which rule the parts break.
    pub fn handle_piece(&mut self, data: Bytes, end: End) -> Result<Received<H>, PartsError> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let (event, next) = match state {
            State::Head { held, interim_heads } => self.in_head(held, interim_heads, data, end)?,
            State::Body(account) => in_body(account, data, end)?,
            State::Trailers { held, allowed } => in_trailers(held, allowed, data, end)?,
            State::AfterTrailers if data.is_empty() && end == End::Stream => (None, State::Over),
            State::AfterTrailers | State::Over => return Err(PartsError::OutOfOrder),
        };
        self.state = next;
        Ok(Received { event, complete: end == End::Stream })
    }

    fn in_head(
        &self,
        mut held: BytesMut,
        interim_heads: u8,
        data: Bytes,
        end: End,
    ) -> Result<(Option<Event<H>>, State), PartsError> {
        if data.is_empty() && held.is_empty() && end == End::Stream {
            return Err(PartsError::NoHead);
        }
        let Some(part) =
            collect(&mut held, data, end, MAX_STREAM_HEAD_BYTES).map_err(PartsError::Head)?
        else {
            return Ok((None, State::Head { held, interim_heads }));
        };
        match (self.understand)(&part, self.to_head)? {
            (_, None) if end == End::Stream => Err(PartsError::NoHead),
            (_, None) if interim_heads == MAX_INTERIM_HEADS => Err(PartsError::TooManyInterimHeads),
            (head, None) => {
                let state = State::Head { held, interim_heads: interim_heads + 1 };
                Ok((Some(Event::Interim(head)), state))
            }
            (head, Some(account)) if end == End::Stream => {
                account.finish()?;
                Ok((Some(Event::Head(head)), State::Over))
            }
            (head, Some(account)) => Ok((Some(Event::Head(head)), State::Body(account))),
        }
    }
}

fn with_account(head: ResponseHead, to_head: bool) -> Result<Understood<ResponseHead>, PartsError> {
    if head.status.is_informational() {
        return Ok((head, None));
    }
    let account = Account::of_response(&head, to_head)?;
    Ok((head, Some(account)))
}

fn in_body<H>(
    mut account: Account,
    data: Bytes,
    end: End,
) -> Result<(Option<Event<H>>, State), PartsError> {
    account.add(data.len())?;
    let event = (!data.is_empty()).then_some(Event::Data(data));
    let state = match end {
        End::None => State::Body(account),
        End::Part => {
            account.finish()?;
            State::Trailers { held: BytesMut::new(), allowed: account.allows_trailers() }
        }
        End::Stream => {
            account.finish()?;
            State::Over
        }
    };
    Ok((event, state))
}

fn in_trailers<H>(
    mut held: BytesMut,
    allowed: bool,
    data: Bytes,
    end: End,
) -> Result<(Option<Event<H>>, State), PartsError> {
    if data.is_empty() && held.is_empty() && end == End::Stream {
        return Ok((None, State::Over));
    }
    if !allowed {
        return Err(PartsError::BodyNotAllowed);
    }
    let collected = collect(&mut held, data, end, MAX_TRAILER_BYTES);
    let Some(part) = collected.map_err(PartsError::Trailers)? else {
        return Ok((None, State::Trailers { held, allowed }));
    };
    let trailers = decode_trailers(&part).map_err(PartsError::Trailers)?;
    let state = if end == End::Stream { State::Over } else { State::AfterTrailers };
    Ok((Some(Event::Trailers(trailers)), state))
}

/// Joins the pieces of a part; gives it once it is complete and leaves `held` empty then.
fn collect(
    held: &mut BytesMut,
    data: Bytes,
    end: End,
    limit_bytes: usize,
) -> Result<Option<Bytes>, HeadError> {
    if held.len() + data.len() > limit_bytes {
        return Err(HeadError::TooLarge { limit_bytes });
    }
    if end != End::None && held.is_empty() {
        return Ok(Some(Bytes::copy_from_slice(&data)));
    }
    held.extend_from_slice(&data);
    Ok((end != End::None).then(|| std::mem::take(held).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "POST /a HTTP/1.1\r\nhost: h\r\n\r\n";
    const HEAD_5: &str = "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";
    const OK_5: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    const EARLY: &str = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    const TRAILERS: &str = "digest: x\r\n\r\n";

    /// The kinds of events, and whether the message is complete; or the first error.
    fn run<H: Clone>(
        mut reader: Reader<H>,
        pieces: &[(&str, End)],
    ) -> Result<(String, bool), PartsError> {
        let mut log = Vec::new();
        let mut complete = false;
        for &(data, end) in pieces {
            let received = reader.handle_piece(Bytes::copy_from_slice(data.as_bytes()), end)?;
            complete = received.complete;
            log.extend(received.event.map(|event| match event {
                Event::Interim(_) => "interim".to_owned(),
                Event::Head(_) => "head".to_owned(),
                Event::Data(data) => String::from_utf8_lossy(&data).into_owned(),
                Event::Trailers(trailers) => format!("trailers {}", trailers.len()),
            }));
        }
        Ok((log.join(","), complete))
    }

    fn request(pieces: &[(&str, End)]) -> Result<(String, bool), PartsError> {
        run(Reader::request(), pieces)
    }

    fn response(method: &Method, pieces: &[(&str, End)]) -> Result<(String, bool), PartsError> {
        run(Reader::response(method), pieces)
    }

    #[test]
    fn a_head_keeps_nothing_of_the_buffer_that_it_came_in() {
        let buffer = Bytes::from(HEAD.as_bytes().to_vec());
        let received = Reader::request().handle_piece(buffer.clone(), End::Part).unwrap();
        assert!(matches!(received.event, Some(Event::Head(_))));
        assert!(buffer.is_unique());
    }

    #[test]
    fn a_message_may_end_after_any_of_its_parts() {
        use End::{None, Part, Stream};
        for (pieces, expected) in [
            (&[(HEAD, Stream)] as &[_], "head"),
            (&[(HEAD, Part), ("", Stream)], "head"),
            (&[(&HEAD[..9], None), (&HEAD[9..], Stream)], "head"),
            (&[(&HEAD[..9], None), (&HEAD[9..], None), ("", Stream)], "head"),
            (&[(HEAD, Part), ("ab", None), ("c", Stream)], "head,ab,c"),
            (&[(HEAD, Part), ("ab", None), ("", Stream)], "head,ab"),
            (&[(HEAD, Part), ("abc", Part), ("", Stream)], "head,abc"),
            (&[(HEAD_5, Part), ("ab", None), ("cde", Part), ("", Stream)], "head,ab,cde"),
            (&[(HEAD, Part), ("abc", Part), (TRAILERS, Stream)], "head,abc,trailers 1"),
            (&[(HEAD, Part), ("", Part), (TRAILERS, Part), ("", Stream)], "head,trailers 1"),
            (
                &[(HEAD, Part), ("a", Part), ("dig", None), ("est: x\r\n\r\n", Stream)],
                "head,a,trailers 1",
            ),
        ] {
            assert_eq!(request(pieces), Ok((expected.to_owned(), true)), "{pieces:?}");
        }
    }

    #[test]
    fn an_answer_may_have_interim_heads() {
        use End::{Part, Stream};
        let pieces = [(EARLY, Part), (EARLY, Part), (OK_5, Part), ("abcde", Stream)];
        let expected = ("interim,interim,head,abcde".to_owned(), true);
        assert_eq!(response(&Method::GET, &pieces), Ok(expected));
        let mut many = vec![(EARLY, Part); usize::from(MAX_INTERIM_HEADS)];
        many.push((OK, Stream));
        assert!(response(&Method::GET, &many).is_ok());
        many.insert(0, (EARLY, Part));
        assert_eq!(response(&Method::GET, &many), Err(PartsError::TooManyInterimHeads));
        assert_eq!(response(&Method::GET, &[(EARLY, Stream)]), Err(PartsError::NoHead));
        let switch = [("HTTP/1.1 101 Switching Protocols\r\n\r\n", Part)];
        assert_eq!(response(&Method::GET, &switch), Err(PartsError::SwitchesProtocols));
    }

    #[test]
    fn after_a_switch_all_data_is_raw_in_both_directions() {
        use End::{None, Part, Stream};
        let ask = "GET /a HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\n\r\n";
        let consent = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";
        let pieces = |head| [(head, Part), ("ab", None), ("c", None), ("", Stream)];
        assert_eq!(request(&pieces(ask)), Ok(("head,ab,c".to_owned(), true)));
        let response = |pieces: &[(&str, End)]| run(Reader::response_to_switch(), pieces);
        assert_eq!(response(&pieces(consent)), Ok(("head,ab,c".to_owned(), true)));
        assert_eq!(response(&pieces(OK)), Ok(("head,ab,c".to_owned(), true)));
        for head in [ask, consent] {
            let trailers = [(head, Part), ("ab", Part), (TRAILERS, Stream)];
            let refused = if head == ask { request(&trailers) } else { response(&trailers) };
            assert_eq!(refused, Err(PartsError::BodyNotAllowed));
        }
    }

    #[test]
    fn the_body_has_the_length_that_was_declared() {
        use End::{None, Part, Stream};
        let short = PartsError::BodyTooShort { declared_bytes: 5, moved_bytes: 4 };
        assert_eq!(request(&[(HEAD_5, Part), ("abcd", Part)]), Err(short.clone()));
        assert_eq!(request(&[(HEAD_5, Part), ("abcd", Stream)]), Err(short.clone()));
        assert_eq!(request(&[(HEAD_5, Part), ("abcd", None), ("", Stream)]), Err(short.clone()));
        assert_eq!(short.code(), crate::code::BODY_MISMATCH);
        let long = PartsError::BodyTooLong { declared_bytes: 5, moved_bytes: 6 };
        assert_eq!(request(&[(HEAD_5, Part), ("abcd", None), ("ef", None)]), Err(long));
        assert!(matches!(request(&[(HEAD_5, Stream)]), Err(PartsError::BodyTooShort { .. })));
    }

    #[test]
    fn i14_some_answers_have_no_body() {
        use End::{None, Part, Stream};
        let cases = [
            (Method::HEAD, OK_5),
            (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n"),
            (Method::GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n"),
        ];
        for (method, head) in cases {
            assert!(response(&method, &[(head, Stream)]).is_ok(), "{head}");
            assert!(response(&method, &[(head, Part), ("", Part), ("", Stream)]).is_ok(), "{head}");
            let refused = Err(PartsError::BodyNotAllowed);
            assert_eq!(response(&method, &[(head, Part), ("a", None)]), refused, "{head}");
            let trailers = [(head, Part), ("", Part), (TRAILERS, Stream)];
            assert_eq!(response(&method, &trailers), refused, "{head}");
        }
    }

    #[test]
    fn i14_parts_out_of_order_are_refused() {
        use End::{None, Part, Stream};
        assert_eq!(request(&[("", Stream)]), Err(PartsError::NoHead));
        assert!(matches!(request(&[("", Part)]), Err(PartsError::Head(_))));
        assert!(matches!(request(&[(&HEAD[..9], Stream)]), Err(PartsError::Head(_))));
        let after = Err(PartsError::OutOfOrder);
        assert_eq!(request(&[(HEAD, Stream), ("a", None)]), after);
        assert_eq!(request(&[(HEAD, Stream), ("", Stream)]), after);
        let trailers = [(HEAD, Part), ("a", Part), (TRAILERS, Part)];
        assert_eq!(request(&[&trailers[..], &[("a", None)]].concat()), after);
        assert_eq!(request(&[&trailers[..], &[("", Part)]].concat()), after);
        let second_head = [(HEAD, Part), ("a", Part), (HEAD, Part)];
        assert!(matches!(request(&second_head), Err(PartsError::Trailers(_))));
        let second_head = [(OK_5, Part), (OK, Part)];
        assert!(matches!(
            response(&Method::GET, &second_head),
            Err(PartsError::BodyTooLong { .. })
        ));
    }

    #[test]
    fn i13_a_head_is_refused_as_soon_as_it_is_over_its_limit() {
        let mut reader = Reader::request();
        let piece = Bytes::from(vec![b'a'; MAX_STREAM_HEAD_BYTES]);
        assert!(reader.handle_piece(piece, End::None).is_ok());
        let error = reader.handle_piece(Bytes::from_static(b"a"), End::None).expect_err("over");
        assert_eq!(error.code(), crate::code::BAD_HEAD);
        assert_eq!(reader.handle_piece(Bytes::new(), End::Stream), Err(PartsError::OutOfOrder));
    }
}
