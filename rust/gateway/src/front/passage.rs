//! A request's way over a stream to a connection point, and over a second one if the first fails.
//!
//! A request moves to another connection point at most once, and only before any part of an answer
//! has come: if the first one has refused it, which says that it did nothing with it, or if its
//! channel was lost, or has been without a link for a second, and the method is safe (RFC 9110,
//! section 9.2.1), so that doing it twice does no harm. Until then what has been sent is kept, up to
//! [`MAX_KEPT_BYTES`]; a request that has sent more stays where it is.
//!
//! What stays waits for the channel's new link: 15 seconds, or if it is held as long as the channel does.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cmgmux_exchange::head::{RequestHead, ResponseHead, is_safe};
use cmgmux_exchange::parts::{Event, PartsError, Piece, Reader, Received, Writer};
use cmgmux_exchange::refusal::{Reason, Refusal};
use cmgmux_net::{
    Channel, End, FRAME_CHARGE, OUTAGE_MARKS, RecvStream, SendStream, StreamCode, StreamError,
};
use http::{HeaderMap, Method, StatusCode};
use tracing::debug;

use super::request::Admitted;
use crate::router::{Opened, Router};
use crate::sites::Site;

/// What is kept of a request until its answer begins, in bytes; less than a send queue takes at once.
const MAX_KEPT_BYTES: usize = 48 * 1024;
/// What a piece counts on top of its bytes.
const PIECE_BYTES: usize = FRAME_CHARGE as usize;

/// One request on its way, and its answer.
pub(super) struct Passage {
    channel: Channel,
    /// Until the request is complete, or the far end wants no more of it.
    send: Option<SendStream>,
    /// Until the answer is complete.
    recv: Option<RecvStream>,
    writer: Writer,
    reader: Reader<ResponseHead>,
    is_sent: bool,
    /// Whether the request asks to switch protocols.
    asks_to_switch: bool,
    /// Whether it may wait for as long as its channel lasts.
    is_held: bool,
    /// What a second attempt needs, as long as one is possible.
    again: Option<Box<Again>>,
}

/// What a second attempt needs.
struct Again {
    site: Arc<Site>,
    method: Method,
    /// Everything that was sent.
    pieces: Vec<Piece>,
    kept_bytes: usize,
}

impl Passage {
    /// Sends a request's head. With `is_whole` nothing follows it, except if it asks to switch
    /// protocols.
    ///
    /// # Errors
    ///
    /// The head cannot travel.
    pub(super) fn begin(
        opened: Opened,
        admitted: &Admitted,
        head: &RequestHead,
        is_whole: bool,
    ) -> Result<Self, Box<Refusal>> {
        let Opened { channel, send, recv } = opened;
        let mut writer = Writer::request();
        let asks_to_switch = head.asks_to_switch();
        let is_whole = is_whole && !asks_to_switch;
        let piece = writer.request_head(head, is_whole).map_err(|error| {
            let refusal = Refusal::by_gateway(Reason::HeadTooLarge);
            Box::new(refusal.with_details(error.to_string()))
        })?;
        let again = Again {
            site: Arc::clone(&admitted.site),
            method: head.method.clone(),
            pieces: Vec::with_capacity(1),
            kept_bytes: 0,
        };
        let mut passage = Self {
            channel,
            send: Some(send),
            recv: Some(recv),
            writer,
            reader: reader(&head.method, asks_to_switch),
            is_sent: is_whole,
            asks_to_switch,
            is_held: admitted.response_timeout.is_none(),
            again: Some(Box::new(again)),
        };
        passage.pass(piece);
        Ok(passage)
    }

    /// Whether all of the request has been sent.
    pub(super) fn is_sent(&self) -> bool {
        self.is_sent
    }

    /// Whether the request asks to switch protocols.
    pub(super) fn asks_to_switch(&self) -> bool {
        self.asks_to_switch
    }

    /// Whether the far end takes more of the request.
    pub(super) fn takes_more(&self) -> bool {
        self.send.is_some()
    }

    /// Waits for room for a piece of the body. Without effect on a request that takes no more.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(send) = &mut self.send
            && ready!(send.poll_ready(cx)).is_err()
        {
            // The stream's own end says why, at the receiving half.
            self.send = None;
        }
        Poll::Ready(())
    }

    /// Sends a piece of the body.
    ///
    /// # Errors
    ///
    /// The piece contradicts the head.
    pub(super) fn send(&mut self, data: Bytes) -> Result<(), PartsError> {
        let piece = self.writer.data(data, End::None)?;
        self.pass(piece);
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// The end contradicts the head, or the trailers cannot travel.
    pub(super) fn finish(&mut self, trailers: &HeaderMap) -> Result<(), PartsError> {
        if trailers.is_empty() {
            let end = self.writer.data(Bytes::new(), End::Stream)?;
            self.pass(end);
        } else {
            let end = self.writer.data(Bytes::new(), End::Part)?;
            self.pass(end);
            let trailers = self.writer.trailers(trailers)?;
            self.pass(trailers);
        }
        self.is_sent = true;
        Ok(())
    }

    /// The next part of the answer; never ready behind its end. Moves to another connection point if
    /// it may and must, which `moved` then says: there may be room again.
    ///
    /// # Errors
    ///
    /// The answer that the client gets instead, if none has begun.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        router: &Router,
        moved: &mut bool,
    ) -> Poll<Result<Received<ResponseHead>, Box<Refusal>>> {
        loop {
            let Some(recv) = &mut self.recv else { return Poll::Pending };
            let (data, end) = match recv.poll_chunk(cx) {
                Poll::Ready(Ok(Some(chunk))) => (chunk.data, chunk.end),
                Poll::Ready(Ok(None)) => (Bytes::new(), End::Stream),
                Poll::Ready(Err(error)) => {
                    if self.may_move(&error) && self.moves(router, &error) {
                        *moved = true;
                        continue;
                    }
                    return Poll::Ready(Err(broken(&error)));
                }
                Poll::Pending => {
                    let Some(outage) = self.channel.outage() else { return Poll::Pending };
                    let [short, long] = OUTAGE_MARKS;
                    let cause = "its link was lost and has not been replaced yet";
                    if outage >= short && self.is_repeatable() && self.moves(router, &cause) {
                        *moved = true;
                        continue;
                    }
                    if outage >= long && !self.is_held {
                        let refusal = Refusal::by_gateway(Reason::ConnectionPointLost);
                        return Poll::Ready(Err(Box::new(refusal.with_details(cause.to_owned()))));
                    }
                    return Poll::Pending;
                }
            };
            let received = self.reader.handle_piece(data, end).map_err(|error| bad(&error))?;
            if let Some(event) = &received.event {
                self.again = None;
                // After a switch nobody owes an answer.
                let switched = StatusCode::SWITCHING_PROTOCOLS;
                self.is_held |= matches!(event, Event::Head(head) if head.status == switched);
            }
            if received.complete {
                self.recv = None;
            }
            return Poll::Ready(Ok(received));
        }
    }

    /// Gives both halves of the stream up.
    pub(super) fn abandon(&mut self, code: StreamCode) {
        if let Some(send) = self.send.take() {
            send.reset(code);
        }
        if let Some(recv) = self.recv.take() {
            recv.stop(code);
        }
    }

    /// Sends a piece, and keeps it for a second attempt.
    fn pass(&mut self, piece: Piece) {
        let ends = piece.end == End::Stream;
        if let Some(again) = &mut self.again {
            again.kept_bytes += piece.data.len() + PIECE_BYTES;
            if again.kept_bytes > MAX_KEPT_BYTES {
                self.again = None;
            } else {
                // The piece is often a small part of a large buffer, which should not stay for it.
                let data = Bytes::copy_from_slice(&piece.data);
                again.pieces.push(Piece { data, end: piece.end });
            }
        }
        let passed =
            self.send.as_mut().is_some_and(|send| send.send(piece.data, piece.end).is_ok());
        if !passed || ends {
            self.send = None;
        }
    }

    /// Whether another attempt is possible after this end of the stream, and does no harm.
    fn may_move(&self, error: &StreamError) -> bool {
        error.is_unprocessed()
            || matches!(error, StreamError::ChannelLost(_)) && self.is_repeatable()
    }

    /// Whether a request that may have had its effect may be made again.
    fn is_repeatable(&self) -> bool {
        self.again.as_ref().is_some_and(|again| is_safe(&again.method))
    }

    /// Begins again with another connection point, if what was sent is known and there is one.
    fn moves(&mut self, router: &Router, cause: &dyn fmt::Display) -> bool {
        let Some(again) = &self.again else { return false };
        let Some(opened) = router.open_elsewhere(&again.site.code, &self.channel) else {
            return false;
        };
        let Some(again) = self.again.take() else { return false };
        let Opened { channel, mut send, recv } = opened;
        debug!(%cause, from = %self.channel.peer(), to = %channel.peer(), "request moves");
        let mut is_open = true;
        for Piece { data, end } in again.pieces {
            is_open &= send.send(data, end).is_ok() && end != End::Stream;
        }
        self.channel = channel;
        self.send = is_open.then_some(send);
        self.recv = Some(recv);
        self.reader = reader(&again.method, self.asks_to_switch);
        true
    }
}

fn reader(method: &Method, asks_to_switch: bool) -> Reader<ResponseHead> {
    if asks_to_switch { Reader::response_to_switch() } else { Reader::response(method) }
}

fn bad(error: &PartsError) -> Box<Refusal> {
    let refusal = Refusal::by_gateway(Reason::ConnectionPointBadAnswer);
    Box::new(refusal.with_details(error.to_string()))
}

fn broken(error: &StreamError) -> Box<Refusal> {
    Box::new(match error {
        StreamError::Reset(code) | StreamError::Stopped(code) => Refusal::of_stream_code(code.0),
        _ => Refusal::by_gateway(Reason::ConnectionPointLost).with_details(error.to_string()),
    })
}
