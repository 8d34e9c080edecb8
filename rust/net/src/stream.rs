//! The two halves of a stream, as their users hold them.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use cmgmux_exchange::parts::End;
use cmgmux_mux::{StreamCode, StreamId, Token, UsageError};

use crate::book::{Entry, Rx, Tx};
use crate::channel::{EndReason, Shared, State};

/// A piece of received data.
///
/// A piece below 1 KiB shares a block of 4 KiB with others, one of 8 KiB and more the buffer that it
/// arrived in. Whoever keeps one for long copies it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chunk {
    /// The bytes; empty only if something ends here.
    pub data: Bytes,
    /// What ends behind them.
    pub end: End,
}

/// Why a half of a stream ended before its time.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer abandoned what it was sending.
    #[error("the peer reset the stream: {0}")]
    Reset(StreamCode),
    /// This end read the stream so slowly that memory for all streams ran out.
    #[error("the stream was read too slowly")]
    TooSlow,
    /// The peer wants no more of what we send.
    #[error("the peer stopped the stream: {0}")]
    Stopped(StreamCode),
    /// The channel ended under the stream.
    #[error("the channel was lost: {0}")]
    ChannelLost(EndReason),
    /// Data behind the end that this handle itself has sent.
    #[error("the sending half is finished")]
    Finished,
}

impl StreamError {
    /// Whether nobody at the other end has seen the stream, so that what it carried may be tried
    /// elsewhere.
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Reset(StreamCode::REFUSED) | Self::Stopped(StreamCode::REFUSED))
    }
}

/// The sending half of a stream. Dropped before its end was sent, it resets the half with
/// [`StreamCode::CANCELLED`].
pub struct SendStream {
    shared: Arc<Shared>,
    token: Token,
}

impl SendStream {
    pub(crate) fn new(shared: Arc<Shared>, token: Token) -> Self {
        Self { shared, token }
    }

    /// Waits for room in the stream's send queue, which is where backpressure is felt: 64 KiB, less
    /// if many streams of the channel have something queued. A piece takes its length and
    /// [`FRAME_CHARGE`](cmgmux_mux::FRAME_CHARGE).
    ///
    /// # Errors
    ///
    /// [`StreamError::Stopped`] and [`StreamError::ChannelLost`]; [`StreamError::Finished`] after
    /// the end.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.shared.with(|state| state.poll_ready(self.token, cx).map_ok(drop))
    }

    /// As [`poll_ready`](Self::poll_ready). Cancelling loses nothing.
    ///
    /// # Errors
    ///
    /// As [`poll_ready`](Self::poll_ready).
    pub async fn ready(&mut self) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Sends all of `data` and what ends behind it. Call it after [`ready`](Self::ready); one call
    /// then always fits. Data may be empty if something ends. A small part of a large buffer keeps all
    /// of that alive until it is sent and acknowledged: copy it.
    ///
    /// # Errors
    ///
    /// As [`poll_ready`](Self::poll_ready).
    pub fn send(&mut self, data: Bytes, end: End) -> Result<(), StreamError> {
        self.shared.with_output(|state| {
            let sent = match state.writable(self.token) {
                Ok(id) => state.send(self.token, id, data, end),
                Err(error) => Err(error),
            };
            let is_sent = sent.is_ok();
            (sent, is_sent)
        })
    }

    /// Waits for room and sends all of `data` and what ends behind it: [`ready`](Self::ready) and
    /// [`send`](Self::send) in one. Cancelled, it has sent nothing.
    ///
    /// # Errors
    ///
    /// As [`poll_ready`](Self::poll_ready).
    pub async fn write(&mut self, data: Bytes, end: End) -> Result<(), StreamError> {
        let mut data = Some(data);
        poll_fn(|cx| {
            self.shared.with_output(|state| {
                let sent = match state.poll_ready(self.token, cx) {
                    Poll::Ready(Ok(id)) => {
                        state.send(self.token, id, data.take().unwrap_or_default(), end)
                    }
                    Poll::Ready(Err(error)) => Err(error),
                    Poll::Pending => return (Poll::Pending, false),
                };
                let is_sent = sent.is_ok();
                (Poll::Ready(sent), is_sent)
            })
        })
        .await
    }

    /// Abandons the half: what is queued is dropped, the peer learns `code`.
    pub fn reset(self, code: StreamCode) {
        self.shared.with_output(|state| {
            let id = state.entry(self.token, |entry| entry.id);
            let Some(id) = id.filter(|_| state.is_live(self.token)) else {
                return ((), false);
            };
            state.core.reset(id, code);
            state.entry(self.token, |entry| entry.tx = Tx::Finished);
            ((), true)
        });
    }

    /// Waits until the peer wants no more or the channel is lost; for use beside something else
    /// that this half waits for, such as the next piece to send.
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.shared.with(|state| match state.writable(self.token) {
            Err(StreamError::Finished) | Ok(_) => {
                state.entry(self.token, |entry| wait(&mut entry.writer, cx));
                Poll::Pending
            }
            Err(error) => Poll::Ready(error),
        })
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.shared.with_output(|state| {
            let Some((id, tx)) = state.entry(self.token, |entry| (entry.id, entry.tx)) else {
                return ((), false);
            };
            if tx == Tx::Open && state.is_live(self.token) {
                state.core.reset(id, StreamCode::CANCELLED);
            }
            (state.drop_handle(self.token), true)
        });
    }
}

/// The receiving half of a stream. Dropped before its end was read, it asks the peer to stop with
/// [`StreamCode::CANCELLED`].
pub struct RecvStream {
    shared: Arc<Shared>,
    token: Token,
    /// The end has been handed out.
    is_over: bool,
}

impl RecvStream {
    pub(crate) fn new(shared: Arc<Shared>, token: Token) -> Self {
        Self { shared, token, is_over: false }
    }

    /// The next piece of data; `None` behind the end. Taking a piece grants its credit again.
    ///
    /// # Errors
    ///
    /// [`StreamError::Reset`], [`StreamError::TooSlow`] and [`StreamError::ChannelLost`].
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, StreamError>> {
        if self.is_over {
            return Poll::Ready(Ok(None));
        }
        self.shared.with_output(|State { core, book, ended, .. }| {
            let Some(entry) = book.entries.get_mut(self.token.0 as usize) else {
                return (Poll::Ready(Ok(None)), false);
            };
            if let Some(chunk) = book.inboxes.pop(&mut entry.inbox) {
                self.is_over = chunk.end == End::Stream;
                let due = match (&*ended, entry.retired) {
                    (None, false) => core.consume(entry.id, chunk.data.len()),
                    (None, true) => {
                        core.consume_retired(chunk.data.len());
                        false
                    }
                    (Some(_), _) => false,
                };
                return (Poll::Ready(Ok(Some(chunk))), due);
            }
            let poll = match (entry.rx, &*ended) {
                (Rx::Ended, _) => Poll::Ready(Ok(None)),
                (Rx::Reset(code), _) => Poll::Ready(Err(StreamError::Reset(code))),
                (Rx::TooSlow, _) => Poll::Ready(Err(StreamError::TooSlow)),
                (Rx::Open, Some(reason)) => {
                    Poll::Ready(Err(StreamError::ChannelLost(reason.clone())))
                }
                (Rx::Open, None) => {
                    wait(&mut entry.reader, cx);
                    Poll::Pending
                }
            };
            (poll, false)
        })
    }

    /// As [`poll_chunk`](Self::poll_chunk). Cancelling loses nothing.
    ///
    /// # Errors
    ///
    /// As [`poll_chunk`](Self::poll_chunk).
    pub async fn chunk(&mut self) -> Result<Option<Chunk>, StreamError> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Asks the peer to send no more, with a reason.
    pub fn stop(self, code: StreamCode) {
        self.shared.with_output(|state| {
            state.stop(self.token, code);
            ((), true)
        });
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.shared.with_output(|state| {
            state.stop(self.token, StreamCode::CANCELLED);
            (state.drop_handle(self.token), true)
        });
    }
}

impl State {
    fn entry<T>(&mut self, token: Token, look: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.book.entry(token).map(look)
    }

    /// Whether the core still knows the stream.
    fn is_live(&mut self, token: Token) -> bool {
        self.ended.is_none() && self.book.entry(token).is_some_and(|entry| !entry.retired)
    }

    /// Drops what has arrived, and asks the peer to send no more.
    fn stop(&mut self, token: Token, code: StreamCode) {
        let Self { core, book, ended, .. } = self;
        let Some(entry) = book.entries.get_mut(token.0 as usize) else {
            return;
        };
        while let Some(chunk) = book.inboxes.pop(&mut entry.inbox) {
            if ended.is_none() && entry.retired {
                core.consume_retired(chunk.data.len());
            }
        }
        if ended.is_none() && !entry.retired {
            core.stop(entry.id, code);
        }
    }

    /// The stream's id if its sending half takes data.
    fn writable(&mut self, token: Token) -> Result<StreamId, StreamError> {
        let entry = self.book.entry(token).ok_or(StreamError::Finished)?;
        match (entry.tx, &self.ended) {
            (Tx::Stopped(code), _) => Err(StreamError::Stopped(code)),
            (_, Some(reason)) => Err(StreamError::ChannelLost(reason.clone())),
            (Tx::Finished, None) => Err(StreamError::Finished),
            (Tx::Open, None) => Ok(entry.id),
        }
    }

    /// The stream's id once its queue takes more.
    fn poll_ready(
        &mut self,
        token: Token,
        cx: &Context<'_>,
    ) -> Poll<Result<StreamId, StreamError>> {
        let id = self.writable(token)?;
        match self.core.has_room(id) {
            Ok(true) => Poll::Ready(Ok(id)),
            Ok(false) => {
                self.entry(token, |entry| wait(&mut entry.writer, cx));
                Poll::Pending
            }
            Err(_) => Poll::Ready(Err(StreamError::Finished)),
        }
    }

    /// Queues data of a stream that is ready for it.
    fn send(
        &mut self,
        token: Token,
        id: StreamId,
        data: Bytes,
        end: End,
    ) -> Result<(), StreamError> {
        if let Err(error) = self.core.send(id, data, to_core(end)) {
            debug_assert!(error != UsageError::QueueFull, "send without ready");
            return Err(StreamError::Finished);
        }
        if end == End::Stream {
            self.entry(token, |entry| entry.tx = Tx::Finished);
        }
        Ok(())
    }

    /// One of the two handles is gone; with the second goes the entry.
    fn drop_handle(&mut self, token: Token) {
        let Some(entry) = self.book.entry(token) else {
            return;
        };
        entry.handles -= 1;
        if entry.handles > 0 {
            return;
        }
        let (id, retired, accepted) = (entry.id, entry.retired, entry.accepted);
        self.book.entries.remove(token.0 as usize);
        if self.ended.is_some() {
            return;
        }
        match (retired, accepted) {
            (true, true) => self.core.complete(),
            (true, false) => {}
            (false, _) => self.core.release(id),
        }
    }
}

/// What ends, in the words of the core. The core knows no HTTP, the exchange no streams, so each has
/// a word of its own.
fn to_core(end: End) -> cmgmux_mux::End {
    match end {
        End::None => cmgmux_mux::End::None,
        End::Part => cmgmux_mux::End::Part,
        End::Stream => cmgmux_mux::End::Stream,
    }
}

/// The reverse of [`to_core`].
pub(crate) fn from_core(end: cmgmux_mux::End) -> End {
    match end {
        cmgmux_mux::End::None => End::None,
        cmgmux_mux::End::Part => End::Part,
        cmgmux_mux::End::Stream => End::Stream,
    }
}

/// Remembers who waits, without cloning the waker of somebody who waits already.
fn wait(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendStream").field(&self.token.0).finish()
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecvStream").field(&self.token.0).finish()
    }
}
