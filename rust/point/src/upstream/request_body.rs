//! A request as it comes off its stream: the head, then a body that hyper pulls.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cmgmux_exchange::code;
use cmgmux_exchange::head::RequestHead;
use cmgmux_exchange::parts::{Event, PartsError, Reader, Received};
use cmgmux_net::{RecvStream, StreamCode};
use hyper::body::{Body, Frame};
use tokio::time::Instant;

/// Why a request does not come to its end.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Failure {
    /// The client left, or the channel was lost.
    #[error("the client has left")]
    Gone,
    /// The body is longer than the mapping allows.
    #[error("the request body is larger than {max_bytes} bytes")]
    TooLarge { max_bytes: u64 },
    /// The parts break a rule.
    #[error("the request on the stream is malformed: {0}")]
    Malformed(PartsError),
}

impl Failure {
    /// The code to stop and reset the stream with.
    pub(crate) fn code(&self) -> StreamCode {
        match self {
            Self::Gone => StreamCode::CANCELLED,
            Self::TooLarge { .. } => StreamCode(code::BODY_TOO_LARGE),
            Self::Malformed(error) => StreamCode(error.code()),
        }
    }
}

/// The receiving half of an exchange's stream, read as the parts of a request.
pub(crate) struct RequestParts {
    recv: RecvStream,
    reader: Reader<RequestHead>,
    is_over: bool,
}

impl RequestParts {
    pub(crate) fn new(recv: RecvStream) -> Self {
        Self { recv, reader: Reader::request(), is_over: false }
    }

    /// The head, and whether it is all there is. Cancelling loses nothing.
    pub(crate) async fn head(&mut self) -> Result<(RequestHead, bool), Failure> {
        loop {
            let received = poll_fn(|cx| self.poll_received(cx)).await?;
            match received.event {
                Some(Event::Head(head)) => return Ok((head, received.complete)),
                None if !received.complete => {}
                _ => return Err(Failure::Malformed(PartsError::OutOfOrder)),
            }
        }
    }

    /// The next bytes behind the head; `None` behind the last. Cancelling loses nothing.
    pub(crate) async fn data(&mut self) -> Result<Option<Bytes>, Failure> {
        while !self.is_over {
            match poll_fn(|cx| self.poll_received(cx)).await?.event {
                Some(Event::Data(data)) => return Ok(Some(data)),
                None => {}
                Some(_) => return Err(Failure::Malformed(PartsError::OutOfOrder)),
            }
        }
        Ok(None)
    }

    /// Asks the peer to send no more.
    pub(crate) fn stop(self, code: StreamCode) {
        self.recv.stop(code);
    }

    fn poll_received(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Received<RequestHead>, Failure>> {
        let chunk = match ready!(self.recv.poll_chunk(cx)) {
            Ok(Some(chunk)) => chunk,
            Ok(None) | Err(_) => return Poll::Ready(Err(Failure::Gone)),
        };
        let received = self.reader.handle_piece(chunk.data, chunk.end);
        let received = received.map_err(Failure::Malformed)?;
        self.is_over = received.complete;
        Poll::Ready(Ok(received))
    }
}

/// How far a request has come; shared between its body, which hyper owns, and its exchange.
pub(crate) struct Progress {
    outcome: Cell<Outcome>,
    failure: Cell<Option<Failure>>,
    /// When the role took something last, or could have begun to.
    taken: Cell<Instant>,
    is_waiting_for_client: Cell<bool>,
    bytes: Cell<u64>,
}

/// Whether a request has ended, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// More is to come.
    Open,
    /// All of it was handed to the connection.
    Complete,
    /// It cannot be completed; see [`Progress::take_failure`].
    Failed,
}

impl Progress {
    pub(crate) fn new(outcome: Outcome) -> Self {
        Self {
            outcome: Cell::new(outcome),
            failure: Cell::new(None),
            taken: Cell::new(Instant::now()),
            is_waiting_for_client: Cell::new(false),
            bytes: Cell::new(0),
        }
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome.get()
    }

    /// Why the request failed. Gives it once.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        self.failure.take()
    }

    /// Since when it is the role that everybody waits for: now, while the client's data are missing.
    pub(crate) fn role_is_due_since(&self) -> Instant {
        if self.is_waiting_for_client.get() { Instant::now() } else { self.taken.get() }
    }

    /// Bytes of the body handed to the connection.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

/// The body of a request. Pulling it grants the gateway new credit; dropping it before its end asks
/// the gateway to stop.
pub(crate) struct RequestBody(Option<Source>);

struct Source {
    /// Boxed: for most of their life requests have no body left.
    parts: Box<RequestParts>,
    progress: Rc<Progress>,
    declared_bytes: Option<u64>,
    max_bytes: u64,
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    /// What follows the head in `parts`: `declared_bytes` if the head says so, `max_bytes` at the
    /// most.
    pub(crate) fn new(
        parts: RequestParts,
        progress: Rc<Progress>,
        declared_bytes: Option<u64>,
        max_bytes: u64,
    ) -> Self {
        Self(Some(Source { parts: Box::new(parts), progress, declared_bytes, max_bytes }))
    }

    fn fail(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Some(source) = self.0.take() {
            source.parts.stop(failure.code());
            source.progress.outcome.set(Outcome::Failed);
            source.progress.failure.set(Some(failure.clone()));
        }
        Poll::Ready(Some(Err(failure)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            let Some(source) = &mut self.0 else {
                return Poll::Ready(None);
            };
            let polled = source.parts.poll_received(cx);
            source.progress.is_waiting_for_client.set(polled.is_pending());
            let received = match ready!(polled) {
                Ok(received) => received,
                Err(failure) => return self.fail(failure),
            };
            let progress = &source.progress;
            progress.taken.set(Instant::now());
            let frame = match received.event {
                Some(Event::Data(data)) => {
                    // A `usize` fits, and 2^64 bytes never pass.
                    let bytes = progress.bytes.get() + data.len() as u64;
                    let max_bytes = source.max_bytes;
                    if bytes > max_bytes {
                        return self.fail(Failure::TooLarge { max_bytes });
                    }
                    progress.bytes.set(bytes);
                    if source.declared_bytes == Some(bytes) {
                        // Nobody looks further, so the end of the stream may not be seen.
                        progress.outcome.set(Outcome::Complete);
                    }
                    Some(Frame::data(data))
                }
                Some(Event::Trailers(trailers)) => Some(Frame::trailers(trailers)),
                Some(Event::Head(_) | Event::Interim(_)) => {
                    return self.fail(Failure::Malformed(PartsError::OutOfOrder));
                }
                None => None,
            };
            if received.complete {
                progress.outcome.set(Outcome::Complete);
                self.0 = None;
            }
            if let Some(frame) = frame {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}
