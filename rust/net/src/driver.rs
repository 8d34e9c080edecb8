//! Drives one channel over its links, one after the other: the only task that touches their sockets.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use cmgmux_mux::{CloseCode, Counters, Expiry, ProtocolError, ResumeCode, Timestamp};
use tokio::time::{Instant, Sleep};
use tracing::{debug, info, warn};

use crate::channel::{EndReason, LinkLoss, Outage, Shared, State};
use crate::handshake::{NewLink, Step};
use crate::link::{FinishedTls, Link, MAX_REST_BYTES};

/// Plaintext read in one go before output and other tasks get their turn: less than a quarter of the
/// least that a peer has in flight, so that it need not wait for the acknowledgement.
const READ_BUDGET: usize = 48 * 1024;
/// Time until the next look at something that is overdue because the kernel takes no output.
const OVERDUE: Duration = Duration::from_millis(25);
/// How many of those that wait for something are woken at a time. What they write goes out before the
/// next ones get their turn, so that the peer has something to do meanwhile.
const GROUP: usize = 32;
/// Room that the input buffer keeps when it is empty: what small messages need.
const IDLE_INPUT: usize = 64 * 1024;

/// A future that ends with its channel, once the peer has been told why.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    /// `None` while the channel waits for a new one, and after its end.
    link: Option<Link>,
    /// Plaintext of the link that is not a whole frame yet.
    input: BytesMut,
    /// The latest time to look at the clock again, and its timer.
    alarm: Instant,
    timer: Pin<Box<Sleep>>,
    /// Who is to be woken, taken out of the lock.
    wake: VecDeque<Waker>,
    /// Whether output waits for those that have just been woken, to take along what they write.
    output_waits: bool,
    /// Why the channel has ended.
    ended: Option<EndReason>,
    /// The end of the link of a channel that has ended, until the peer has been told why.
    farewell: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// What happened to the driver's link.
enum Failure {
    /// The channel outlives it.
    Link(LinkLoss),
    /// The channel ends with it.
    Channel(EndReason),
}

impl Failure {
    fn broken(error: &io::Error) -> Self {
        Self::Link(LinkLoss::Broken(error.to_string()))
    }
}

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Self {
        Self::Channel(EndReason::Protocol(error))
    }
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, tls: FinishedTls, input: BytesMut) -> io::Result<Self> {
        let alarm = shared.since;
        let link = Link::attach(tls)?;
        let Shared { peer, channel_id, ordinal, .. } = &*shared;
        info!(%peer, ordinal, channel = %channel_id, "channel is up");
        Ok(Self {
            shared,
            link: Some(link),
            input,
            alarm,
            timer: Box::pin(tokio::time::sleep_until(alarm)),
            wake: VecDeque::new(),
            output_waits: false,
            ended: None,
            farewell: None,
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp::ZERO.after(self.shared.since.elapsed())
    }

    /// Moves to a new link if there is one.
    fn move_link(&mut self) -> Result<(), Failure> {
        let now = self.now();
        let mut state = self.shared.state.lock();
        let Some(NewLink { tls, input, step }) = state.new_link.take() else {
            return Ok(());
        };
        let Shared { peer, channel_id, ordinal, links, tickets, .. } = &*self.shared;
        // Whoever waits for the new link looks again.
        links.notify_waiters();
        let mut link = match Link::attach(tls) {
            Ok(link) => link,
            Err(error) => {
                warn!(%peer, ordinal, channel = %channel_id, %error, "cannot use a new link");
                return Ok(());
            }
        };
        let is_taken = match step {
            Step::Claimed(claim) => state.core.handle_claim(now, &claim).map(|resumed| {
                // A link that cannot be written to is found broken when it is used.
                let _ = link.write(std::iter::once(&resumed.encode()[..]));
                resumed.code == ResumeCode::ACCEPTED
            }),
            Step::Answered(resumed) => state.core.handle_resumed(now, &resumed),
        };
        match is_taken {
            Ok(true) => {}
            Ok(false) => {
                drop(state);
                debug!("a link came too late");
                link.farewell();
                return Ok(());
            }
            Err(error) => {
                drop(state);
                // The peer hears of it where it listens.
                self.link = Some(link);
                return Err(error.into());
            }
        }
        let outage = state.outage.take().map(|outage| outage.since.elapsed());
        let counters = state.core.counters();
        drop(state);
        self.link = Some(link);
        self.input = input;
        let outage_ms = outage.unwrap_or_default().as_millis();
        let (resumes, ring_bytes) = (counters.resumes, counters.ring_bytes);
        info!(%peer, ordinal, channel = %channel_id, outage_ms, resumes, ring_bytes, "channel resumed");
        tickets.notify_waiters();
        Ok(())
    }

    /// Lets go of a link that is lost. The channel waits for another.
    fn lose_link(&mut self, loss: LinkLoss) {
        let Shared { peer, channel_id, ordinal, links, ledger, .. } = &*self.shared;
        let code = loss.code();
        warn!(%peer, ordinal, channel = %channel_id, code, %loss, "link lost, the channel waits for another");
        ledger.note_loss(&loss);
        let now = self.now();
        self.link = None;
        self.input = BytesMut::new();
        let mut state = self.shared.state.lock();
        state.core.handle_link_lost(now);
        let Counters { ring_bytes, queued_bytes, .. } = state.core.counters();
        let (entry, oldest) = ledger.enter(&self.shared, ring_bytes + queued_bytes);
        state.outage = Some(Outage { since: Instant::now(), loss, _entry: entry, marks: 0 });
        drop(state);
        oldest.iter().for_each(|channel| channel.end_crowded());
        links.notify_waiters();
    }

    /// Reads and applies what has arrived. If more could be read at once, the task has been woken.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let mut read = 0;
        loop {
            if !self.input.is_empty() {
                self.apply_input()?;
            }
            if read >= READ_BUDGET {
                cx.waker().wake_by_ref();
                return Ok(());
            }
            let Some(link) = &mut self.link else { return Ok(()) };
            match link.poll_read(cx, &mut self.input) {
                Poll::Ready(Ok(0)) => return Err(Failure::Link(LinkLoss::Closed)),
                Poll::Ready(Ok(length)) => read += length,
                Poll::Ready(Err(error)) => return Err(Failure::broken(&error)),
                Poll::Pending => {
                    if self.input.is_empty() && self.input.capacity() > IDLE_INPUT {
                        self.input = BytesMut::new();
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Reads and applies what had arrived before a link broke: the peer's last word may be in it.
    fn read_rest(&mut self, cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        while let Some(link) = &mut self.link
            && matches!(link.poll_read(cx, &mut self.input), Poll::Ready(Ok(1..)))
        {
            self.apply_input()?;
        }
        Ok(())
    }

    fn apply_input(&mut self) -> Result<(), ProtocolError> {
        let now = self.now();
        let mut state = self.shared.state.lock();
        let State { core, book, .. } = &mut *state;
        let result = core.handle_input(now, &mut self.input, book);
        if std::mem::take(&mut book.tickets) {
            self.shared.tickets.notify_waiters();
        }
        self.wake.append(&mut book.wake);
        result
    }

    /// Encrypts and sends what is due until there is no more or the kernel takes no more.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let now = self.now();
            let Some(link) = &mut self.link else { return Ok(()) };
            if link.poll_flush(cx)?.is_pending() {
                return Ok(());
            }
            let mut state = self.shared.state.lock();
            let State { core, book, .. } = &mut *state;
            let (mut encoded, ahead) = (0, core.encode_ahead());
            link.limit_unsent(ahead)?;
            while encoded < ahead && core.poll_output(now, book) {
                encoded += link.write(core.output())?;
                core.handle_written(now);
            }
            self.wake.append(&mut book.wake);
            let is_draining = state.drain_until.is_some();
            drop(state);
            if encoded == 0 {
                return Ok(());
            }
            if is_draining {
                // It may have been the last that kept the channel.
                cx.waker().wake_by_ref();
            }
        }
    }

    /// Reasons to end the channel or its link that do not come from the link.
    fn check_state(&mut self, cx: &Context<'_>) -> Result<(), Failure> {
        let now = self.now();
        let mut state = self.shared.state.lock();
        // From here on whoever has something to write wakes this task.
        state.driver.get_or_insert_with(|| cx.waker().clone());
        if state.new_link.is_some() {
            // It came from another thread since the last look.
            cx.waker().wake_by_ref();
        }
        if let Some((code, text)) = state.book.closed.take() {
            return Err(Failure::Channel(EndReason::ClosedByPeer { code, text }));
        }
        if let Some(reason) = state.ending.take() {
            return Err(Failure::Channel(reason));
        }
        if let Some(until) = state.drain_until {
            let has_drained = state.core.has_drained();
            if has_drained || Instant::now() >= until {
                let text = if has_drained {
                    "drained, every stream had ended".to_owned()
                } else {
                    let streams = state.core.counters().live;
                    format!("the grace is over with {streams} streams still open")
                };
                let reason = EndReason::Closed { code: CloseCode::SHUTDOWN, text };
                return Err(Failure::Channel(reason));
            }
        }
        match (state.core.handle_timeout(now), &state.outage) {
            (None, _) => {}
            (Some(Expiry::Channel), Some(Outage { loss, .. })) => {
                return Err(Failure::Channel(EndReason::LinkLost(loss.clone())));
            }
            (Some(Expiry::Frame), _) => return Err(Failure::Link(LinkLoss::Dribbling)),
            (Some(_), _) => return Err(Failure::Link(LinkLoss::Silent)),
        }
        state.pass_outage_mark();
        self.wake.append(&mut state.book.wake);
        Ok(())
    }

    /// One look at everything. Nothing is read before everybody has been woken for what arrived before.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        self.move_link()?;
        let may_read = self.wake.is_empty();
        let mut output = Ok(());
        if std::mem::take(&mut self.output_waits) {
            output = self.poll_output(cx);
        }
        let input = if may_read { self.poll_input(cx) } else { Ok(()) };
        // A peer's last word may stand before the end of the link, so it counts first.
        match (self.check_state(cx), input) {
            (Err(closed @ Failure::Channel(EndReason::ClosedByPeer { .. })), _)
            | (Err(closed @ Failure::Channel(_)), Err(Failure::Link(_))) => Err(closed),
            (state, input) => input.and(state),
        }?;
        if self.wake.is_empty() {
            output = output.and_then(|()| self.poll_output(cx));
        } else {
            self.output_waits = true;
        }
        self.wake_group(cx);
        let Err(error) = output else { return Ok(()) };
        self.read_rest(cx)?;
        self.check_state(cx)?;
        Err(Failure::broken(&error))
    }

    /// Wakes some of those that are to be woken, and this task behind them if there are more or their
    /// output is waited for.
    fn wake_group(&mut self, cx: &Context<'_>) {
        let group = self.wake.len().min(GROUP);
        self.wake.drain(..group).for_each(Waker::wake);
        if self.output_waits || !self.wake.is_empty() {
            cx.waker().wake_by_ref();
        }
    }

    /// Sets the timer to the next time at which something is due.
    fn set_alarm(&mut self, cx: &mut Context<'_>) {
        let next = {
            let state = self.shared.state.lock();
            let deadline = state.core.next_deadline().as_micros();
            let next = self.shared.since + Duration::from_micros(deadline);
            let mark = state.outage.as_ref().and_then(Outage::next_mark);
            [state.drain_until, mark].into_iter().flatten().fold(next, Instant::min)
        };
        // An alarm that goes off early costs one look at the clock; moving it at each frame would
        // cost more.
        if next < self.alarm || self.alarm <= Instant::now() {
            self.alarm = next;
            self.timer.as_mut().reset(next);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            self.alarm = Instant::now() + OVERDUE;
            self.timer.as_mut().reset(self.alarm);
        }
    }

    /// Ends every stream. What is left to do is to tell the peer, if `link` is still there.
    fn end(&mut self, reason: EndReason) {
        let Shared { peer, channel_id, ordinal, ledger, .. } = &*self.shared;
        let code = reason.code();
        if reason.is_planned() {
            info!(%peer, ordinal, channel = %channel_id, code, %reason, "channel has ended");
        } else {
            warn!(%peer, ordinal, channel = %channel_id, code, %reason, "channel has ended");
        }
        ledger.note_end(&reason);
        let last_word = match &reason {
            EndReason::Closed { code, text } => Some((*code, text.clone())),
            EndReason::Protocol(error) => Some((error.code(), error.to_string())),
            _ => None,
        };
        if last_word.is_none() {
            self.link.take().into_iter().for_each(Link::farewell);
        }
        let now = self.now();
        let mut state = self.shared.state.lock();
        let State { core, book, .. } = &mut *state;
        if let (Some(link), Some((code, text))) = (&mut self.link, last_word) {
            core.close(code, &text);
            if core.poll_output(now, book) && link.write(core.output()).is_ok() {
                core.handle_written(now);
            }
        }
        core.dispose();
        state.ended = Some(reason.clone());
        state.driver = None;
        state.new_link = None;
        state.outage = None;
        state.book.forget_untaken();
        state.book.wake_all();
        self.wake.append(&mut state.book.wake);
        drop(state);
        self.wake.drain(..).for_each(Waker::wake);
        self.shared.tickets.notify_waiters();
        self.shared.links.notify_waiters();
        self.input = BytesMut::new();
        self.ended = Some(reason);
    }
}

impl Future for Driver {
    type Output = EndReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<EndReason> {
        let driver = &mut *self;
        let reason = loop {
            if let Some(reason) = &driver.ended {
                break reason.clone();
            }
            match driver.step(cx) {
                Ok(()) => {
                    driver.set_alarm(cx);
                    return Poll::Pending;
                }
                Err(Failure::Link(loss)) => driver.lose_link(loss),
                Err(Failure::Channel(reason)) => driver.end(reason),
            }
        };
        if let Some(link) = driver.link.take() {
            driver.farewell = Some(Box::pin(link.dismiss(MAX_REST_BYTES)));
        }
        if let Some(farewell) = &mut driver.farewell {
            ready!(farewell.as_mut().poll(cx));
            driver.farewell = None;
        }
        Poll::Ready(reason)
    }
}

impl Drop for Driver {
    /// A driver that is dropped before its channel has ended, as at the end of a process's grace, ends
    /// it: the peer hears of it as far as the socket takes it at once, and waits for no new link.
    fn drop(&mut self) {
        if self.ended.is_none() {
            let text = "the process stops, its grace is over".to_owned();
            self.end(EndReason::Closed { code: CloseCode::SHUTDOWN, text });
        }
        self.link.take().into_iter().for_each(Link::farewell);
    }
}
