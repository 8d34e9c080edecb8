//! A request and its answer on one connection.
//!
//! Both directions move at once: a role may answer before it has read the request, and even close
//! the connection with its answer on the way. So a request that the role takes no more of is no
//! failure by itself; whether there is an answer is seen by reading.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use cmgmux_exchange::h1::{BodyError, BodyEvent, BodyLength, BodyReader, Response, ResponseReader};
use cmgmux_exchange::head::HeadError;
use http::HeaderMap;
use tokio::time::Instant;

use super::connection::{Connection, Io};
use super::request::Request;
use super::request_parts::{Failure, RequestParts};
use crate::counters::OpenConnection;

/// An exchange with a role.
pub(crate) struct Call {
    connection: Connection,
    request: Request,
    responses: ResponseReader,
    body: BodyReader,
    /// Whether the role allows a further request on the connection.
    keep_alive: bool,
    has_answered: bool,
    /// When the role took or said something last, or could have begun to.
    moved: Instant,
}

/// Why there is no answer, or no end of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The request cannot be completed.
    #[error(transparent)]
    Request(Failure),
    /// The role broke the connection.
    #[error("the connection broke: {0}")]
    Broke(io::Error),
    /// The role closed the connection.
    #[error("it closed the connection before its answer was complete")]
    Closed,
    /// The role says something else than an answer.
    #[error("its answer is malformed: {0}")]
    Head(HeadError),
    /// The body of the answer is malformed.
    #[error("the body of its answer is malformed: {0}")]
    Body(BodyError),
}

/// A part of the body of an answer.
pub(crate) struct Part {
    pub(crate) data: Bytes,
    /// What follows the body, if it ends here with trailers.
    pub(crate) trailers: Option<HeaderMap>,
    /// Whether nothing follows.
    pub(crate) is_last: bool,
}

impl Call {
    pub(super) fn new(connection: Connection, request: Box<Request>) -> Box<Self> {
        let responses = ResponseReader::new(&request.method, request.asks_to_switch);
        let body = BodyReader::new(BodyLength::Empty, u64::MAX);
        Box::new(Self {
            connection,
            request: *request,
            responses,
            body: body.expect("nothing is not too large"),
            keep_alive: false,
            has_answered: false,
            moved: Instant::now(),
        })
    }

    /// Moves the request on. Call it whenever the task wakes up, whatever it waits for.
    pub(crate) fn poll_request(&mut self, cx: &mut Context<'_>) {
        if self.request.poll_write(&mut self.connection, cx) {
            self.moved = Instant::now();
            if !self.connection.was_used() {
                self.request.settle();
            }
        }
    }

    /// The next head of the answer; interim ones come first.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, CallError>> {
        self.poll_request(cx);
        loop {
            let input = &mut self.connection.input;
            if let Some(response) = self.responses.read(input).map_err(CallError::Head)? {
                let body = BodyReader::new(response.body, u64::MAX);
                self.body = body.map_err(CallError::Body)?;
                self.keep_alive = response.keep_alive;
                return Poll::Ready(Ok(response));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(CallError::Closed));
            }
        }
    }

    /// The next part of the body, once [`poll_head`](Self::poll_head) has given the final head.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, CallError>> {
        self.poll_request(cx);
        loop {
            let input = &mut self.connection.input;
            match self.body.read(input).map_err(CallError::Body)? {
                Some(BodyEvent::Data(data)) => {
                    let is_last = self.body.read_end(input).map_err(CallError::Body)?;
                    return Poll::Ready(Ok(Part { data, trailers: None, is_last }));
                }
                Some(BodyEvent::Trailers(trailers)) => {
                    let trailers = Some(trailers);
                    return Poll::Ready(Ok(Part { data: Bytes::new(), trailers, is_last: true }));
                }
                Some(BodyEvent::End) => {
                    return Poll::Ready(Ok(Part {
                        data: Bytes::new(),
                        trailers: None,
                        is_last: true,
                    }));
                }
                None if ready!(self.poll_fill(cx))? == 0 => {
                    self.body.handle_end().map_err(|_| CallError::Closed)?;
                }
                None => {}
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, CallError>> {
        if let Some(failure) = self.request.failure() {
            return Poll::Ready(Err(CallError::Request(failure)));
        }
        let read = ready!(self.connection.poll_fill(cx)).map_err(CallError::Broke)?;
        self.moved = Instant::now();
        if read > 0 && !self.has_answered {
            self.has_answered = true;
            self.request.settle();
        }
        Poll::Ready(Ok(read))
    }

    /// Notes that the role had nothing to do until now.
    pub(crate) fn excuse_role(&mut self) {
        self.moved = Instant::now();
    }

    /// Since when it is the role that everybody waits for: now, while the client's data are missing.
    pub(crate) fn role_is_due_since(&self) -> Instant {
        if self.request.waits_for_client() { Instant::now() } else { self.moved }
    }

    /// The request from its beginning, if `error` came only because the role closed a kept connection
    /// at the moment of its use, and the request may be repeated: it was not sent at all, or is safe
    /// and has no body.
    pub(crate) fn into_again(self, error: &CallError) -> Option<Box<Request>> {
        let may_be_chance = self.connection.was_used() && !self.has_answered;
        let broke_off = matches!(error, CallError::Broke(_) | CallError::Closed);
        if may_be_chance && broke_off { self.request.again().map(Box::new) } else { None }
    }

    /// The connection for a further exchange, if both ends of this one were heard out.
    pub(super) fn into_kept(mut self) -> Option<Connection> {
        let is_over = self.body.is_complete() && self.request.is_complete();
        let is_kept = is_over && self.keep_alive && self.connection.input.is_empty();
        is_kept.then(|| {
            self.connection.rest();
            self.connection
        })
    }

    /// What there is after the role's consent to switch protocols.
    pub(crate) fn into_switched(self) -> Switched {
        let (io, said, counted) = self.connection.into_parts();
        Switched { io, said, counted, rest: self.request.into_rest() }
    }
}

/// A connection that has switched protocols.
pub(crate) struct Switched {
    pub(crate) io: Io,
    /// What the role has said since.
    pub(crate) said: BytesMut,
    /// What the client says, if it says anything.
    pub(crate) rest: Option<Box<RequestParts>>,
    pub(crate) counted: OpenConnection,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_small() {
        assert!(size_of::<Call>() <= 640, "a call holds {} bytes", size_of::<Call>());
    }
}
