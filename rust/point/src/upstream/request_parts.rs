//! A request as it comes off its stream: the head, then the body.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cmgmux_exchange::code;
use cmgmux_exchange::head::RequestHead;
use cmgmux_exchange::parts::{Event, PartsError, Reader, Received};
use cmgmux_net::{RecvStream, StreamCode};

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

    /// What comes next, a [`Failure::Gone`] if it never will. Taking it grants the gateway credit.
    pub(super) fn poll_received(
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
