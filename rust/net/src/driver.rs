//! Drives one channel over its link: the only task that touches the socket.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cmgmux_mux::{CloseCode, ProtocolError, Timestamp};
use tokio::time::Sleep;
use tracing::{debug, info, warn};

use crate::channel::{EndReason, Shared, State};
use crate::link::{FinishedTls, Link};

/// Plaintext read in one go before output and other tasks get their turn.
const READ_BUDGET: usize = 256 * 1024;
/// Plaintext encrypted ahead of the kernel: what is encrypted cannot be overtaken any more.
const ENCODE_AHEAD: usize = 64 * 1024;
/// Time that a last word to the peer may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// Time until the next look at something that is overdue because the kernel takes no output.
const OVERDUE: Duration = Duration::from_millis(25);
/// Room that the input buffer keeps while nothing arrives.
const IDLE_INPUT: usize = 4 * 1024;

/// A future that ends with its channel.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    link: Link,
    /// Plaintext that is not a whole frame yet.
    input: BytesMut,
    /// The latest time to look at the clock again, and its timer.
    alarm: Instant,
    timer: Pin<Box<Sleep>>,
    /// Why the channel ends, once its last word is on the way.
    farewell: Option<EndReason>,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, tls: FinishedTls, input: BytesMut) -> io::Result<Self> {
        let alarm = shared.since;
        let link = Link::attach(tls)?;
        let Shared { peer, channel_id, ordinal, .. } = &*shared;
        info!(%peer, ordinal, channel = %channel_id, "channel is up");
        Ok(Self {
            shared,
            link,
            input,
            alarm,
            timer: Box::pin(tokio::time::sleep_until(alarm.into())),
            farewell: None,
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp::ZERO.after(self.shared.since.elapsed())
    }

    /// Reads and applies what has arrived. `Ready` only with the reason to end the channel;
    /// `Pending` may mean that more could be read at once, and then the task has been woken.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        let mut read = 0;
        loop {
            if !self.input.is_empty()
                && let Err(error) = self.apply_input()
            {
                return Poll::Ready(EndReason::Protocol(error));
            }
            if read >= READ_BUDGET {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.link.poll_read(cx, &mut self.input) {
                Poll::Ready(Ok(0)) => return Poll::Ready(EndReason::LinkClosed),
                Poll::Ready(Ok(length)) => read += length,
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(EndReason::LinkBroken(error.to_string()));
                }
                Poll::Pending => {
                    if self.input.is_empty() && self.input.capacity() > IDLE_INPUT {
                        self.input = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn apply_input(&mut self) -> Result<(), ProtocolError> {
        let now = self.now();
        let mut state = self.shared.state.lock();
        let State { core, book, .. } = &mut *state;
        let result = core.handle_input(now, &mut self.input, book);
        if std::mem::take(&mut book.tickets) {
            self.shared.tickets.notify_waiters();
        }
        let wake = std::mem::take(&mut book.wake);
        drop(state);
        wake.into_iter().for_each(std::task::Waker::wake);
        result
    }

    /// Encrypts and sends what is due until there is no more or the kernel takes no more.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.link.poll_flush(cx)?.is_pending() {
                return Poll::Pending;
            }
            let now = self.now();
            let mut state = self.shared.state.lock();
            let State { core, book, .. } = &mut *state;
            let mut encoded = 0;
            while encoded < ENCODE_AHEAD && core.poll_output(now, book) {
                encoded += self.link.write(core.output())?;
                core.handle_written(now);
            }
            let wake = std::mem::take(&mut book.wake);
            drop(state);
            wake.into_iter().for_each(std::task::Waker::wake);
            if encoded == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reasons to end the channel that do not come from the link.
    fn check_state(&mut self, cx: &Context<'_>) -> Option<EndReason> {
        let now = self.now();
        let mut state = self.shared.state.lock();
        // From here on whoever has something to write wakes this task.
        state.driver.get_or_insert_with(|| cx.waker().clone());
        if let Some((code, text)) = state.book.closed.take() {
            return Some(EndReason::ClosedByPeer { code, text });
        }
        if let Some((code, text)) = state.closing.take() {
            return Some(EndReason::Closed { code, text });
        }
        if let Some(until) = state.drain_until {
            let streams = state.core.counters().live;
            if Instant::now() >= until || streams == 0 {
                let text = match streams {
                    0 => "drained, every stream had ended".to_owned(),
                    streams => format!("the grace is over with {streams} streams still open"),
                };
                return Some(EndReason::Closed { code: CloseCode::SHUTDOWN, text });
            }
        }
        state.core.handle_timeout(now).map(|_| EndReason::LinkSilent)
    }

    /// Sets the timer to the next time at which something is due.
    fn set_alarm(&mut self, cx: &mut Context<'_>) {
        let next = {
            let state = self.shared.state.lock();
            let deadline = state.core.next_deadline().as_micros();
            let next = self.shared.since + Duration::from_micros(deadline);
            state.drain_until.map_or(next, |until| until.min(next))
        };
        // An alarm that goes off early costs one look at the clock; moving it at each frame would
        // cost more.
        if next < self.alarm || self.alarm <= Instant::now() {
            self.alarm = next;
            self.timer.as_mut().reset(next.into());
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            self.alarm = Instant::now() + OVERDUE;
            self.timer.as_mut().reset(self.alarm.into());
        }
    }

    /// Says why to the peer, as far as that is possible, and ends every stream.
    fn end(&mut self, reason: EndReason) -> EndReason {
        let Shared { peer, channel_id, ordinal, .. } = &*self.shared;
        if reason.is_planned() {
            info!(%peer, ordinal, channel = %channel_id, %reason, "channel has ended");
        } else {
            warn!(%peer, ordinal, channel = %channel_id, %reason, "channel has ended");
        }
        let mut state = self.shared.state.lock();
        state.ended = Some(reason.clone());
        state.driver = None;
        state.book.incoming.clear();
        state.book.wake_all();
        let wake = std::mem::take(&mut state.book.wake);
        drop(state);
        wake.into_iter().for_each(std::task::Waker::wake);
        self.shared.tickets.notify_waiters();
        self.shared.over.notify_waiters();
        reason
    }

    /// Begins to end the channel: what the peer is to know of it is queued before everything else.
    fn begin_farewell(&mut self, reason: EndReason) {
        let last_word = match &reason {
            EndReason::Closed { code, text } => Some((*code, text.clone())),
            EndReason::Protocol(error) => Some((error.code(), error.to_string())),
            _ => None,
        };
        debug!(%reason, "channel is ending");
        if let Some((code, text)) = last_word {
            let now = self.now();
            let mut state = self.shared.state.lock();
            let State { core, book, .. } = &mut *state;
            core.close(code, &text);
            if core.poll_output(now, book) && self.link.write(core.output()).is_ok() {
                core.handle_written(now);
            }
        }
        self.link.close();
        self.alarm = Instant::now() + FAREWELL;
        self.timer.as_mut().reset(self.alarm.into());
        self.farewell = Some(reason);
    }
}

impl Future for Driver {
    type Output = EndReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<EndReason> {
        let driver = &mut *self;
        if driver.farewell.is_none() {
            // A peer's last word may stand before the end of the link, so it counts first.
            let input = driver.poll_input(cx);
            let reason = match (driver.check_state(cx), input) {
                (Some(reason @ EndReason::ClosedByPeer { .. }), _) => Some(reason),
                (_, Poll::Ready(reason)) => Some(reason),
                (reason, Poll::Pending) => reason,
            };
            let reason = reason.or_else(|| match driver.poll_output(cx) {
                Poll::Ready(Err(error)) => Some(EndReason::LinkBroken(error.to_string())),
                Poll::Ready(Ok(())) | Poll::Pending => None,
            });
            match reason {
                Some(reason) => driver.begin_farewell(reason),
                None => {
                    driver.set_alarm(cx);
                    return Poll::Pending;
                }
            }
        }
        let told = driver.link.poll_flush(cx).is_ready();
        if !told && driver.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let reason = driver.farewell.take().unwrap_or(EndReason::LinkClosed);
        Poll::Ready(driver.end(reason))
    }
}
