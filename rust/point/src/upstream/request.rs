//! A request on its way to a role: what is written next, and how far it has come.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use cmgmux_exchange::h1::{Frame, RequestWriter};
use cmgmux_exchange::head::is_safe;
use cmgmux_exchange::parts::{Event, PartsError};
use http::{HeaderMap, Method};

use super::connection::Connection;
use super::request_parts::{Failure, RequestParts};

/// A request as it goes to a role.
pub(crate) struct Request {
    pub(super) method: Method,
    pub(super) asks_to_switch: bool,
    writer: RequestWriter,
    /// The head, for as long as the request may have to begin again.
    head: Bytes,
    output: Output,
    /// What follows the head. Boxed: for most of their life requests have no body left.
    rest: Option<Box<RequestParts>>,
    declared_bytes: Option<u64>,
    max_body_bytes: u64,
    body_bytes: u64,
    state: State,
}

/// Whether a request has ended, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    /// More is to come.
    Open,
    /// The client's next bytes are missing.
    WaitsForClient,
    /// All of it has been written.
    Complete,
    /// The client is at fault.
    Failed(Failure),
    /// The role takes no more; it may have answered.
    Refused,
}

impl Request {
    /// The request with this head: `target` is a path with its query, `fields` are the end-to-end
    /// fields. `rest` is what follows on the stream, if anything does: a body of `max_body_bytes` at
    /// the most, or what is for after a switch of protocols.
    pub(crate) fn new(
        method: Method,
        target: &str,
        fields: &HeaderMap,
        asks_to_switch: bool,
        rest: Option<RequestParts>,
        declared_bytes: Option<u64>,
        max_body_bytes: u64,
    ) -> Self {
        let mut head = BytesMut::new();
        let writer = RequestWriter::start(&method, target, fields, rest.is_some(), &mut head);
        let head = head.freeze();
        let output = Output { head: head.clone(), is_flushed: false, ..Output::default() };
        Self {
            method,
            asks_to_switch,
            writer,
            head,
            output,
            rest: rest.map(Box::new),
            declared_bytes,
            max_body_bytes,
            body_bytes: 0,
            state: State::Open,
        }
    }

    /// Writes what can be written now; says whether the role took something. Call it again when the
    /// task wakes up.
    pub(super) fn poll_write(&mut self, connection: &mut Connection, cx: &mut Context<'_>) -> bool {
        let mut has_moved = false;
        let body_bytes = self.body_bytes;
        while matches!(self.state, State::Open | State::WaitsForClient) {
            match self.output.poll_write(connection, cx, &mut has_moved) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.state = State::Refused,
                Poll::Pending => {
                    self.state = State::Open;
                    break;
                }
            }
            if self.state != State::Refused && self.poll_next(cx).is_pending() {
                self.state = State::WaitsForClient;
                break;
            }
        }
        connection.counters().request_bytes.add(self.body_bytes - body_bytes);
        if has_moved && !self.is_repeatable() {
            self.head = Bytes::new();
        }
        has_moved
    }

    /// Fetches what is to be written next, once everything before it has been.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(rest) = self.rest.as_mut().filter(|_| !self.asks_to_switch) else {
            self.state = State::Complete;
            return Poll::Ready(());
        };
        let received = match ready!(rest.poll_received(cx)) {
            Ok(received) => received,
            Err(failure) => {
                self.fail(failure);
                return Poll::Ready(());
            }
        };
        let done = match received.event {
            Some(Event::Data(data)) => self.add_data(data, received.complete),
            Some(Event::Trailers(trailers)) => self.add_end(&trailers),
            Some(Event::Head(_) | Event::Interim(_)) => {
                Err(Failure::Malformed(PartsError::OutOfOrder))
            }
            None if received.complete => self.add_end(&HeaderMap::new()),
            None => Ok(()),
        };
        if let Err(failure) = done {
            self.fail(failure);
        } else if received.complete {
            self.rest = None;
        }
        Poll::Ready(())
    }

    fn add_data(&mut self, data: Bytes, is_last: bool) -> Result<(), Failure> {
        // A `usize` fits, and 2^64 bytes never pass.
        self.body_bytes += data.len() as u64;
        if self.body_bytes > self.max_body_bytes {
            return Err(Failure::TooLarge { max_bytes: self.max_body_bytes });
        }
        self.output.frame = self.writer.frame(data.len());
        self.output.data = data;
        self.output.is_flushed = false;
        if is_last { self.add_end(&HeaderMap::new()) } else { Ok(()) }
    }

    fn add_end(&mut self, trailers: &HeaderMap) -> Result<(), Failure> {
        let end = self.writer.finish(trailers);
        self.output.end = end.map_err(|error| Failure::Malformed(PartsError::Trailers(error)))?;
        self.output.is_flushed = false;
        Ok(())
    }

    fn fail(&mut self, failure: Failure) {
        if let Some(rest) = self.rest.take() {
            rest.stop(failure.code());
        }
        self.state = State::Failed(failure);
    }

    /// Whether all that the head announces has been written, even if the end of the stream is still
    /// to come.
    pub(super) fn is_complete(&self) -> bool {
        match self.state {
            State::Complete => true,
            State::WaitsForClient => self.has_declared_bytes(),
            State::Open | State::Failed(_) | State::Refused => false,
        }
    }

    /// Whether the role has nothing to do until the client says more.
    pub(super) fn waits_for_client(&self) -> bool {
        self.state == State::WaitsForClient && !self.has_declared_bytes()
    }

    fn has_declared_bytes(&self) -> bool {
        self.declared_bytes == Some(self.body_bytes)
    }

    /// Why the request will never be complete, if the client is at fault.
    pub(super) fn failure(&self) -> Option<Failure> {
        match &self.state {
            State::Failed(failure) => Some(failure.clone()),
            _ => None,
        }
    }

    /// Whether it may have its effect twice.
    fn is_repeatable(&self) -> bool {
        is_safe(&self.method) && self.rest.is_none() && self.body_bytes == 0
    }

    /// Gives up what would be needed to begin again.
    pub(super) fn settle(&mut self) {
        self.head = Bytes::new();
    }

    /// The request from its beginning, if that is possible and without harm: nothing was written, or
    /// it is safe and has no body.
    pub(super) fn again(mut self) -> Option<Self> {
        if self.head.is_empty() || matches!(self.state, State::Failed(_)) {
            return None;
        }
        self.output = Output { head: self.head.clone(), is_flushed: false, ..Output::default() };
        self.state = State::Open;
        Some(self)
    }

    /// What is for after a switch of protocols.
    pub(super) fn into_rest(self) -> Option<Box<RequestParts>> {
        self.rest
    }
}

/// Bytes to be written, in the order of the fields.
#[derive(Default)]
struct Output {
    head: Bytes,
    frame: Frame,
    data: Bytes,
    end: Bytes,
    /// Bytes of all of them that the connection has taken.
    written: usize,
    /// Whether the connection holds none of them back.
    is_flushed: bool,
}

impl Output {
    /// Writes all. Sets `has_moved` if the connection took some of it.
    fn poll_write(
        &mut self,
        connection: &mut Connection,
        cx: &mut Context<'_>,
        has_moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        if self.is_flushed {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut skipped = self.written;
            let parts: [&[u8]; 5] =
                [&self.head, self.frame.prefix(), &self.data, self.frame.suffix(), &self.end];
            let slices = parts.map(|part| {
                let start = skipped.min(part.len());
                skipped -= start;
                IoSlice::new(&part[start..])
            });
            if slices.iter().all(|slice| slice.is_empty()) {
                break;
            }
            match ready!(connection.poll_write(cx, &slices))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.written += taken,
            }
            *has_moved = true;
        }
        ready!(connection.poll_flush(cx))?;
        *self = Self { is_flushed: true, ..Self::default() };
        Poll::Ready(Ok(()))
    }
}
