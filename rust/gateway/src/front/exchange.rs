//! One request and its answer: a client on one side, whatever version of HTTP it speaks, and a
//! stream on the other.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cmgmux_exchange::code;
use cmgmux_exchange::h1::BodyEvent;
use cmgmux_exchange::head::ResponseHead;
use cmgmux_exchange::parts::{Event, PartsError, Received};
use cmgmux_exchange::refusal::{Reason, Refusal};
use cmgmux_net::StreamCode;
use http::{HeaderMap, StatusCode};
use tracing::debug;

use super::alarm::Alarm;
use super::passage::Passage;
use crate::shard::ShardState;

/// Time beyond the mapping's own that the connection point's 504 may take to arrive.
const RESPONSE_MARGIN: Duration = Duration::from_secs(5);

/// The client's side of an exchange.
pub(super) trait Side {
    /// The next of the request's body. Pending while the client has to send more. Of a request that
    /// asks to switch protocols: pending until the answer has begun, then what the client says in the
    /// new protocol.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, Failure>>;

    /// Ready with the reason once the client is known to have left. `is_sent` says that all of its
    /// request has been read.
    fn poll_gone(&mut self, cx: &mut Context<'_>, is_sent: bool) -> Poll<&'static str>;

    /// Writes an interim head.
    fn interim(&mut self, head: ResponseHead) -> Result<(), PartsError>;

    /// Writes the head of the answer. One of status 101 switches protocols.
    fn begin(&mut self, head: ResponseHead, circumstances: Beginning) -> Result<(), PartsError>;

    /// Writes bytes of the answer's body, at least one.
    fn data(&mut self, data: Bytes) -> Result<(), PartsError>;

    /// Ends the answer.
    fn finish(&mut self, trailers: HeaderMap) -> Result<(), PartsError>;

    /// Whether it takes more of the answer before [`poll_flush`](Self::poll_flush).
    fn has_room(&self) -> bool;

    /// Whether something written has not been sent.
    fn has_output(&self) -> bool;

    /// Sends what was written. The error says how the client has left.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>>;

    /// Bytes that the client has sent or taken, to tell a slow client from a stalled one.
    fn moved_bytes(&self) -> u64;
}

/// The circumstances in which an answer begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    /// Whether a body or trailers follow.
    pub(super) has_body: bool,
    /// Whether the request was read to its end.
    pub(super) is_sent: bool,
}

/// Why an exchange ends before its answer is complete.
pub(super) enum Failure {
    /// The client has left, or stalled for too long.
    ClientGone(&'static str),
    /// There is an answer for it, if none has begun.
    Refused(Box<Refusal>),
}

/// How an exchange ended.
pub(super) enum Ending {
    /// The answer is complete and sent.
    Complete { is_sent: bool },
    /// The client has left.
    ClientGone,
    /// The answer has not begun; this one is to be given.
    Refused { refusal: Box<Refusal>, is_sent: bool },
    /// The answer has broken off; the client must not take it for complete.
    Broken,
}

/// The answer on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    /// Before its head.
    Waiting,
    /// In its body.
    Running,
    /// After a switch of protocols.
    Switched,
    /// Complete, but perhaps not sent.
    Complete,
}

/// One request and its answer.
pub(super) struct Exchange<'a, S> {
    state: &'a ShardState,
    side: &'a mut S,
    passage: Passage,
    answer: Answer,
    /// The answer's.
    trailers: HeaderMap,
    response_timeout: Option<Duration>,
    /// Until when the answer has to begin.
    answer_by: Option<Instant>,
    alarm: Alarm,
    /// Since when, and after how many moved bytes, the client is being waited for.
    waiting: Option<(Instant, u64)>,
}

/// What the request's body waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wait {
    /// The client has to send more of it.
    Client,
    /// The stream has to take more of it.
    Stream,
    /// It is complete, or unwanted.
    Nobody,
}

impl<'a, S: Side> Exchange<'a, S> {
    /// An exchange whose head has been sent.
    pub(super) fn new(
        state: &'a ShardState,
        side: &'a mut S,
        passage: Passage,
        response_timeout: Option<Duration>,
    ) -> Self {
        let mut exchange = Self {
            state,
            side,
            passage,
            answer: Answer::Waiting,
            trailers: HeaderMap::new(),
            response_timeout,
            answer_by: None,
            alarm: Alarm::default(),
            waiting: None,
        };
        exchange.expect_answer();
        exchange
    }

    /// Carries the request to its answer. Called once.
    pub(super) async fn run(&mut self) -> Ending {
        let result = poll_fn(|cx| self.poll(cx)).await;
        let is_sent = self.passage.is_sent();
        match result {
            Ok(()) => Ending::Complete { is_sent },
            Err(Failure::ClientGone(why)) => {
                debug!(why, "client has left before its exchange was over");
                self.passage.abandon(StreamCode(code::CLIENT_GONE));
                Ending::ClientGone
            }
            Err(Failure::Refused(refusal)) => {
                self.passage.abandon(match refusal.reason() {
                    Reason::BodyTooLarge => StreamCode(code::BODY_TOO_LARGE),
                    Reason::BadBody => StreamCode(code::BAD_BODY),
                    Reason::RoleSilent => StreamCode(code::TIMED_OUT),
                    _ => StreamCode::CANCELLED,
                });
                if self.answer == Answer::Waiting {
                    return Ending::Refused { refusal, is_sent };
                }
                let instance = &self.state.instance;
                instance.refuse(refusal.reason());
                instance.broken_answers.fetch_add(1, Ordering::Relaxed);
                let (reason, details) = (refusal.reason().code(), refusal.details());
                debug!(reason, details, "answer broke off");
                Ending::Broken
            }
        }
    }

    /// The connection point has as long as the role may take, and a little more.
    fn expect_answer(&mut self) {
        self.answer_by =
            self.response_timeout.map(|limit| Instant::now() + limit + RESPONSE_MARGIN);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let upload = loop {
            let upload = self.poll_upload(cx)?;
            let before = self.answer;
            let mut moved = false;
            if let Poll::Ready(result) = self.poll_download(cx, &mut moved) {
                return Poll::Ready(result);
            }
            if moved {
                self.state.counters().requests_moved.fetch_add(1, Ordering::Relaxed);
                self.expect_answer();
            } else if before == self.answer || self.answer != Answer::Switched {
                break upload;
            }
        };
        // Output waits for the client to read; an upload that wants more, for it to send.
        let is_waiting = self.side.has_output() || upload == Wait::Client;
        let (now, moved) = (Instant::now(), self.side.moved_bytes());
        self.waiting = match self.waiting {
            _ if !is_waiting => None,
            Some((since, before)) if before == moved => Some((since, moved)),
            _ => Some((now, moved)),
        };
        let stalled_at = self.waiting.map(|(since, _)| since + self.state.instance.timeouts.stall);
        let has_begun = self.answer != Answer::Waiting;
        let answer_by = self.answer_by.filter(|_| upload == Wait::Nobody && !has_begun);
        let deadline = [stalled_at, answer_by].into_iter().flatten().min();
        match self.alarm.poll_at(cx, deadline) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) if stalled_at.is_some_and(|at| at <= Instant::now()) => {
                Poll::Ready(Err(match upload {
                    Wait::Client if !has_begun => refused(Reason::BodyTimeout),
                    _ => Failure::ClientGone("it neither read nor sent for too long"),
                }))
            }
            Poll::Ready(()) => Poll::Ready(Err(refused(Reason::RoleSilent))),
        }
    }

    /// Moves the request's body as far as it goes and says what it waits for; notices a client that
    /// leaves.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<Wait, Failure> {
        while self.passage.takes_more() {
            if self.passage.poll_room(cx).is_pending() {
                return Ok(Wait::Stream);
            }
            if !self.passage.takes_more() {
                break;
            }
            let sent = match self.side.poll_body(cx)? {
                // Whoever has switched, or wants to, owes nothing.
                Poll::Pending if self.passage.asks_to_switch() => return Ok(Wait::Nobody),
                Poll::Pending => return Ok(Wait::Client),
                Poll::Ready(BodyEvent::Data(data)) => self.passage.send(data),
                Poll::Ready(BodyEvent::Trailers(trailers)) => self.passage.finish(&trailers),
                Poll::Ready(BodyEvent::End) => self.passage.finish(&HeaderMap::new()),
            };
            sent.map_err(|error| {
                let refusal = Refusal::by_gateway(Reason::BadBody);
                Failure::Refused(Box::new(refusal.with_details(error.to_string())))
            })?;
        }
        match self.side.poll_gone(cx, self.passage.is_sent()) {
            Poll::Ready(why) => Err(Failure::ClientGone(why)),
            Poll::Pending => Ok(Wait::Nobody),
        }
    }

    /// Moves the answer as far as it goes; ready when it is complete and sent.
    fn poll_download(
        &mut self,
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let mut is_pending = false;
            while self.answer != Answer::Complete && self.side.has_room() && !is_pending {
                match self.passage.poll_answer(cx, &self.state.router, moved) {
                    Poll::Ready(Ok(received)) => self.handle(received).map_err(|error| {
                        let refusal = Refusal::by_gateway(Reason::ConnectionPointBadAnswer);
                        Failure::Refused(Box::new(refusal.with_details(error.to_string())))
                    })?,
                    Poll::Ready(Err(refusal)) => {
                        return Poll::Ready(Err(Failure::Refused(refusal)));
                    }
                    Poll::Pending => is_pending = true,
                }
            }
            match self.side.poll_flush(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(why)) => return Poll::Ready(Err(Failure::ClientGone(why))),
                Poll::Ready(Ok(())) if self.answer == Answer::Complete => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(())) if is_pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
            }
        }
    }

    fn handle(&mut self, received: Received<ResponseHead>) -> Result<(), PartsError> {
        match received.event {
            // The gateway has answered `Expect` itself.
            Some(Event::Interim(head)) if head.status == StatusCode::CONTINUE => {}
            Some(Event::Interim(head)) => self.side.interim(head)?,
            Some(Event::Head(head)) => {
                let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
                if self.passage.asks_to_switch() && !switches {
                    self.passage.finish(&HeaderMap::new())?;
                }
                let is_sent = self.passage.is_sent();
                let has_body = !received.complete;
                self.side.begin(head, Beginning { has_body, is_sent })?;
                self.answer = if switches { Answer::Switched } else { Answer::Running };
            }
            Some(Event::Data(data)) => self.side.data(data)?,
            Some(Event::Trailers(trailers)) => self.trailers = trailers,
            None => {}
        }
        if received.complete {
            self.answer = Answer::Complete;
            self.side.finish(std::mem::take(&mut self.trailers))?;
        }
        Ok(())
    }
}

fn refused(reason: Reason) -> Failure {
    Failure::Refused(Box::new(Refusal::by_gateway(reason)))
}
