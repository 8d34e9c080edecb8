//! The client's side of one exchange over HTTP/2.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cmgmux_exchange::fields;
use cmgmux_exchange::h1::{BodyError, BodyEvent, own_piece};
use cmgmux_exchange::head::{HeadError, ResponseHead};
use cmgmux_exchange::parts::PartsError;
use cmgmux_exchange::refusal::Refusal;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::super::CLOSED;
use super::super::exchange::{Beginning, Failure, Side};
use super::has_no_body;

/// The client's side of one exchange: a stream of HTTP/2 in both directions.
pub(super) struct H2 {
    body: RecvStream,
    /// What may still come of the body before the limit of the mapping is reached.
    room_bytes: u64,
    answer: Answer,
    /// Written and not sent: bytes of the body.
    data: Bytes,
    /// Written and not sent: the end, with its trailers.
    end: Option<HeaderMap>,
    method: Method,
    date: Rc<str>,
    moved_bytes: u64,
}

enum Answer {
    /// Before its head.
    Waiting(SendResponse<Bytes>),
    /// In its body.
    Running(SendStream<Bytes>),
    /// After a head that ends the stream.
    Headed(SendStream<Bytes>),
}

impl H2 {
    pub(super) fn new(
        body: RecvStream,
        respond: SendResponse<Bytes>,
        method: Method,
        date: Rc<str>,
    ) -> Self {
        Self {
            body,
            room_bytes: 0,
            answer: Answer::Waiting(respond),
            data: Bytes::new(),
            end: None,
            method,
            date,
            moved_bytes: 0,
        }
    }

    /// Whether the request has been read to its end.
    pub(super) fn is_request_over(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Sets how long the body may be.
    pub(super) fn limit_body(&mut self, max_bytes: u64) {
        self.room_bytes = max_bytes;
    }

    /// Tells the client to send the body that it holds back.
    pub(super) fn say_continue(&mut self) {
        // A client that is gone says so when it is waited for.
        let _ = self.inform(&ResponseHead::new(StatusCode::CONTINUE));
    }

    /// Waits until the client has left.
    pub(super) async fn gone(&mut self) {
        poll_fn(|cx| self.poll_reset(cx)).await;
    }

    /// Gives the exchange up.
    pub(super) fn reset(&mut self, reason: Reason) {
        match &mut self.answer {
            Answer::Waiting(respond) => respond.send_reset(reason),
            Answer::Running(send) | Answer::Headed(send) => send.send_reset(reason),
        }
    }

    /// Sends an answer that is there as a whole; false if the client has left.
    pub(super) async fn answer(&mut self, head: ResponseHead, body: Bytes) -> bool {
        let has_body = self.method != Method::HEAD;
        let beginning = Beginning { has_body, is_sent: true };
        if self.begin(head, beginning).is_err() {
            return false;
        }
        if has_body {
            self.data = body;
        }
        self.end = Some(HeaderMap::new());
        poll_fn(|cx| self.poll_flush(cx)).await.is_ok()
    }

    fn inform(&mut self, head: &ResponseHead) -> Result<(), PartsError> {
        let Answer::Waiting(respond) = &mut self.answer else {
            return Err(PartsError::OutOfOrder);
        };
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.fields.clone();
        fields::strip_hop_by_hop(response.headers_mut());
        respond.send_informational(response).map_err(|_| unsendable())
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.answer {
            Answer::Waiting(respond) => respond.poll_reset(cx).map(drop),
            Answer::Running(send) | Answer::Headed(send) => send.poll_reset(cx).map(drop),
        }
    }
}

impl Side for H2 {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, Failure>> {
        loop {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    let bytes = data.len() as u64;
                    // What the stream has taken, the client may send again.
                    let released = self.body.flow_control().release_capacity(data.len());
                    if released.is_err() {
                        return Poll::Ready(Err(Failure::ClientGone(CLOSED)));
                    }
                    if bytes > self.room_bytes {
                        let refusal = Refusal::from(&BodyError::TooLarge);
                        return Poll::Ready(Err(Failure::Refused(Box::new(refusal))));
                    }
                    self.room_bytes -= bytes;
                    self.moved_bytes += bytes;
                    return Poll::Ready(Ok(BodyEvent::Data(own_piece(data))));
                }
                Some(Err(_)) => return Poll::Ready(Err(Failure::ClientGone(CLOSED))),
                None => {
                    return match ready!(self.body.poll_trailers(cx)) {
                        Ok(Some(trailers)) => Poll::Ready(Ok(trailers_of(&trailers))),
                        Ok(None) => Poll::Ready(Ok(BodyEvent::End)),
                        Err(_) => Poll::Ready(Err(Failure::ClientGone(CLOSED))),
                    };
                }
            }
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>, _is_sent: bool) -> Poll<&'static str> {
        self.poll_reset(cx).map(|()| CLOSED)
    }

    fn interim(&mut self, head: ResponseHead) -> Result<(), PartsError> {
        self.inform(&head)
    }

    fn begin(&mut self, head: ResponseHead, beginning: Beginning) -> Result<(), PartsError> {
        let Answer::Waiting(respond) = &mut self.answer else {
            return Err(PartsError::OutOfOrder);
        };
        let ends = !beginning.has_body || has_no_body(&self.method, head.status);
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.fields;
        let headers = response.headers_mut();
        fields::strip_hop_by_hop(headers);
        if head.status == StatusCode::NO_CONTENT {
            headers.remove(header::CONTENT_LENGTH);
        } else if !beginning.has_body
            && !has_no_body(&self.method, head.status)
            && !headers.contains_key(header::CONTENT_LENGTH)
        {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if !headers.contains_key(header::DATE)
            && let Ok(date) = HeaderValue::from_str(&self.date)
        {
            headers.insert(header::DATE, date);
        }
        let send = respond.send_response(response, ends).map_err(|_| unsendable())?;
        self.answer = if ends { Answer::Headed(send) } else { Answer::Running(send) };
        Ok(())
    }

    fn data(&mut self, data: Bytes) -> Result<(), PartsError> {
        self.data = data;
        Ok(())
    }

    fn finish(&mut self, trailers: HeaderMap) -> Result<(), PartsError> {
        self.end = Some(trailers);
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.data.is_empty()
    }

    fn has_output(&self) -> bool {
        !self.data.is_empty()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        let Answer::Running(send) = &mut self.answer else {
            return Poll::Ready(Ok(()));
        };
        while !self.data.is_empty() {
            send.reserve_capacity(self.data.len());
            let room = match send.capacity() {
                0 => match ready!(send.poll_capacity(cx)) {
                    Some(Ok(room)) => room,
                    Some(Err(_)) | None => return Poll::Ready(Err(CLOSED)),
                },
                room => room,
            };
            let data = self.data.split_to(room.min(self.data.len()));
            self.moved_bytes += data.len() as u64;
            let is_last =
                self.data.is_empty() && self.end.as_ref().is_some_and(HeaderMap::is_empty);
            if is_last {
                self.end = None;
            }
            send.send_data(data, is_last).map_err(|_| CLOSED)?;
        }
        if let Some(trailers) = self.end.take() {
            let sent = if trailers.is_empty() {
                send.send_data(Bytes::new(), true)
            } else {
                send.send_trailers(trailers)
            };
            sent.map_err(|_| CLOSED)?;
        }
        Poll::Ready(Ok(()))
    }

    fn moved_bytes(&self) -> u64 {
        self.moved_bytes
    }
}

/// The trailers of a request that may be passed on.
fn trailers_of(trailers: &HeaderMap) -> BodyEvent {
    let allowed = trailers.iter().filter(|(name, _)| fields::may_be_trailer(name));
    let kept: HeaderMap = allowed.map(|(name, value)| (name.clone(), value.clone())).collect();
    if kept.is_empty() { BodyEvent::End } else { BodyEvent::Trailers(kept) }
}

fn unsendable() -> PartsError {
    PartsError::Head(HeadError::Malformed("the client's connection takes no such head"))
}
