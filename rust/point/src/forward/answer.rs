//! The way back: a role's answer, or one of our own, onto the stream.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use cmgmux_exchange::head::ResponseHead;
use cmgmux_exchange::parts::{End, PartsError, Piece, Writer};
use cmgmux_exchange::refusal::{Reason, Refusal};
use cmgmux_exchange::{code, fields};
use cmgmux_net::{SendStream, StreamCode};
use http::{HeaderMap, Method, Response, header};
use hyper::body::{Body, Frame, Incoming};
use tokio::time::timeout;

use super::passage::in_words;
use crate::counters::Counters;

/// Why an answer did not come to its end.
pub(super) enum Broken {
    /// The client left, or the channel was lost.
    Left,
    /// The answer's head cannot travel. Nothing has been sent; the stream takes this refusal.
    BadHead(Box<Refusal>),
    /// The role broke off, or is silent. The stream is to be reset with this code.
    Role(StreamCode),
}

impl From<PartsError> for Broken {
    fn from(error: PartsError) -> Self {
        Self::Role(StreamCode(error.code()))
    }
}

/// Passes a role's answer on, as fast as the stream takes it. `limit` is how long the role may stand
/// still.
pub(super) async fn pass(
    send: &mut SendStream,
    method: &Method,
    response: Box<Response<Incoming>>,
    limit: Option<Duration>,
    counters: &Counters,
) -> Result<(), Broken> {
    let (mut writer, head, mut body) = begin(method, *response)?;
    say(send, head).await?;
    while !writer.is_over() {
        // The role is read only once there is room for what it says.
        send.ready().await.map_err(|_| Broken::Left)?;
        let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let frame = match unless_broken(send, limit, next).await {
            Ok(next) => next.transpose(),
            Err(Interrupted::Broken) => return Err(Broken::Left),
            Err(Interrupted::TooLate) => return Err(Broken::Role(StreamCode(code::TIMED_OUT))),
        };
        let frame = frame.map_err(|_| Broken::Role(StreamCode(code::ROLE_BROKEN)))?;
        match frame.map(Frame::into_data) {
            None => say(send, writer.data(Bytes::new(), End::Stream)?).await?,
            Some(Ok(data)) if body.is_end_stream() => {
                counters.response_bytes.add(data.len() as u64);
                say(send, writer.data(data, End::Stream)?).await?;
            }
            Some(Ok(data)) if data.is_empty() => {}
            Some(Ok(data)) => {
                counters.response_bytes.add(data.len() as u64);
                say(send, writer.data(data, End::None)?).await?;
            }
            Some(Err(frame)) => {
                let trailers = allowed(frame.into_trailers().unwrap_or_default());
                say(send, writer.data(Bytes::new(), End::Part)?).await?;
                say(send, writer.trailers(&trailers)?).await?;
            }
        }
    }
    Ok(())
}

/// The head of an answer as it is sent, the rest of the answer, and what writes it.
fn begin(
    method: &Method,
    response: Response<Incoming>,
) -> Result<(Writer, Piece, Incoming), Broken> {
    let (head, body) = response.into_parts();
    let head = ResponseHead { status: head.status, fields: end_to_end(head.headers) };
    let mut writer = Writer::response(method);
    let piece =
        writer.response_head(&head, body.is_end_stream()).map_err(|error| bad_head(&error))?;
    Ok((writer, piece, body))
}

/// The head of a role's answer cannot be passed on.
pub(super) fn bad_head(error: &PartsError) -> Broken {
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
    send.ready().await.map_err(|_| Broken::Left)?;
    send.send(piece.data, piece.end).map_err(|_| Broken::Left)
}

/// Waits for `wanted`, for `limit` at the most, and only for as long as the peer takes more.
pub(super) async fn unless_broken<T>(
    send: &mut SendStream,
    limit: Option<Duration>,
    wanted: impl Future<Output = T>,
) -> Result<T, Interrupted> {
    let mut wanted = pin!(wanted);
    let either = poll_fn(|cx| match send.poll_broken(cx) {
        Poll::Ready(_) => Poll::Ready(Err(Interrupted::Broken)),
        Poll::Pending => wanted.as_mut().poll(cx).map(Ok),
    });
    match limit {
        Some(limit) => timeout(limit, either).await.unwrap_or(Err(Interrupted::TooLate)),
        None => either.await,
    }
}

/// Why a wait ended without what was waited for.
pub(super) enum Interrupted {
    Broken,
    TooLate,
}

/// The fields of an answer that go further than the connection to the role.
pub(super) fn end_to_end(mut fields: HeaderMap) -> HeaderMap {
    if fields.contains_key(header::TRANSFER_ENCODING) {
        // The chunks decide how long the body is, not what else it was said to be.
        fields.remove(header::CONTENT_LENGTH);
    }
    fields::strip_hop_by_hop(&mut fields);
    fields
}

/// The trailers that may travel.
fn allowed(trailers: HeaderMap) -> HeaderMap {
    let mut allowed = HeaderMap::with_capacity(trailers.len());
    let mut name = None;
    for (next, value) in trailers {
        name = next.or(name);
        if let Some(name) = name.as_ref().filter(|name| fields::may_be_trailer(name)) {
            allowed.append(name, value);
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn chunks_decide_the_length_of_an_answer() {
        let mut fields = HeaderMap::new();
        fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
        fields.insert(header::ETAG, HeaderValue::from_static("\"x\""));
        let passed = end_to_end(fields);
        assert_eq!(passed.keys().collect::<Vec<_>>(), [header::ETAG]);
    }

    #[test]
    fn trailers_that_must_not_travel_are_left_out() {
        let mut trailers = HeaderMap::new();
        trailers.append("digest", HeaderValue::from_static("1"));
        trailers.append("digest", HeaderValue::from_static("2"));
        trailers.append("set-cookie", HeaderValue::from_static("3"));
        let passed = allowed(trailers);
        assert_eq!(passed.len(), 2);
        assert_eq!(passed.get_all("digest").iter().count(), 2);
    }
}
