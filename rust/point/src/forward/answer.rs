//! The way back: a role's answer, or one of our own, onto the stream.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use cmgmux_exchange::code;
use cmgmux_exchange::h1::{BodyLength, Response};
use cmgmux_exchange::head::ResponseHead;
use cmgmux_exchange::parts::{End, PartsError, Piece, Writer};
use cmgmux_exchange::refusal::{Reason, Refusal};
use cmgmux_net::{SendStream, StreamCode};
use http::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::passage::in_words;
use super::tunnel;
use crate::counters::Counters;
use crate::upstream::{Call, CallError, Failure};

/// Why an answer did not come to its end.
pub(super) enum Broken {
    /// The client left, or the channel was lost.
    Left,
    /// The answer's head cannot travel. Nothing has been sent; the stream takes this refusal.
    BadHead(Box<Refusal>),
    /// The role broke off, or is silent. The stream is to be reset with this code.
    Role(StreamCode),
}

impl From<Interrupted> for Broken {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Left => Self::Left,
            Interrupted::TooLate => Self::Role(StreamCode(code::TIMED_OUT)),
        }
    }
}

impl From<CallError> for Broken {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Request(Failure::Gone) => Self::Left,
            CallError::Request(failure) => Self::Role(failure.code()),
            _ => Self::Role(StreamCode(code::ROLE_BROKEN)),
        }
    }
}

impl From<PartsError> for Broken {
    fn from(error: PartsError) -> Self {
        Self::Role(StreamCode(error.code()))
    }
}

/// How an answer came to its end.
pub(super) enum Passed {
    /// As answers do.
    Whole(Box<Call>),
    /// With the end of what followed a switch of protocols.
    Switched,
}

/// Passes an interim answer on.
pub(super) async fn pass_interim(send: &mut SendStream, head: &ResponseHead) -> Result<(), Broken> {
    if head.status == StatusCode::CONTINUE {
        // The gateway has met the client's expectation itself.
        return Ok(());
    }
    let piece = Writer::response(&Method::GET).response_head(head, false);
    say(send, piece.map_err(|error| bad_head(&error))?).await
}

/// Passes a role's answer on, from its final head, as fast as the stream takes it. `limit` is how
/// long the role may stand still.
pub(super) async fn pass(
    send: &mut SendStream,
    method: &Method,
    mut call: Box<Call>,
    response: Response,
    limit: Option<Duration>,
    counters: &Counters,
) -> Result<Passed, Broken> {
    let has_switched = response.head.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut writer =
        if has_switched { Writer::response_to_switch() } else { Writer::response(method) };
    let has_body = !matches!(response.body, BodyLength::Empty | BodyLength::Exact(0));
    let head = writer.response_head(&response.head, !has_body);
    say(send, head.map_err(|error| bad_head(&error))?).await?;
    if has_switched {
        Box::pin(tunnel::run(send, writer, *call, counters)).await?;
        return Ok(Passed::Switched);
    }
    while !writer.is_over() {
        // The role is read only once there is room for what it says.
        room(send, &mut call).await?;
        let part = wait(send, &mut call, limit, Call::poll_part).await??;
        counters.response_bytes.add(part.data.len() as u64);
        match part.trailers {
            Some(trailers) => {
                say(send, writer.data(part.data, End::Part)?).await?;
                say(send, writer.trailers(&trailers)?).await?;
            }
            None => {
                let end = if part.is_last { End::Stream } else { End::None };
                say(send, writer.data(part.data, end)?).await?;
            }
        }
    }
    Ok(Passed::Whole(call))
}

/// The head of a role's answer cannot be passed on.
fn bad_head(error: &PartsError) -> Broken {
    let refusal = Refusal::by_connection_point(Reason::RoleBadAnswer);
    Broken::BadHead(Box::new(refusal.with_details(in_words(error))))
}

/// Sends an answer of our own.
pub(super) async fn refuse(
    send: &mut SendStream,
    method: &Method,
    refusal: &Refusal,
) -> Result<(), Broken> {
    let (head, body) = refusal.response();
    let mut writer = Writer::response(method);
    let is_head_all = *method == Method::HEAD;
    say(send, writer.response_head(&head, is_head_all)?).await?;
    if !is_head_all {
        say(send, writer.data(body, End::Stream)?).await?;
    }
    Ok(())
}

pub(super) async fn say(send: &mut SendStream, piece: Piece) -> Result<(), Broken> {
    send.write(piece.data, piece.end).await.map_err(|_| Broken::Left)
}

/// Waits until the stream takes more; the request moves on meanwhile.
async fn room(send: &mut SendStream, call: &mut Call) -> Result<(), Broken> {
    let mut has_waited = false;
    poll_fn(|cx| {
        let ready = send.poll_ready(cx).map_err(|_| Broken::Left);
        if ready.is_pending() {
            has_waited = true;
            call.poll_request(cx);
        }
        ready
    })
    .await?;
    if has_waited {
        call.excuse_role();
    }
    Ok(())
}

/// Waits for what `poll` gives, for as long as the peer takes more and the role is not silent for
/// longer than `limit`. Time in which the client's data are missing does not count.
pub(super) async fn wait<T>(
    send: &mut SendStream,
    call: &mut Call,
    limit: Option<Duration>,
    mut poll: impl FnMut(&mut Call, &mut Context<'_>) -> Poll<T>,
) -> Result<T, Interrupted> {
    loop {
        let due = limit.map(|limit| call.role_is_due_since() + limit);
        let either = poll_fn(|cx| match send.poll_broken(cx) {
            Poll::Ready(_) => Poll::Ready(Err(Interrupted::Left)),
            Poll::Pending => poll(call, cx).map(Ok),
        });
        let Some(due) = due else {
            return either.await;
        };
        if let Ok(done) = timeout_at(due, either).await {
            return done;
        }
        if limit.is_some_and(|limit| call.role_is_due_since() + limit <= Instant::now()) {
            return Err(Interrupted::TooLate);
        }
    }
}

/// Why a wait ended without what was waited for.
pub(super) enum Interrupted {
    Left,
    TooLate,
}
