//! HTTP/1.1: one request after the other on a connection.

mod client;

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use cmgmux_exchange::h1::{
    BodyEvent, BodyLength, BodyReader, CONTINUE, Circumstances, Request, RequestReader,
    ResponseWriter, encode_interim, encode_switch, take_piece,
};
use cmgmux_exchange::head::ResponseHead;
use cmgmux_exchange::parts::PartsError;
use cmgmux_exchange::refusal::{Reason, Refusal};
use http::{HeaderMap, Method, StatusCode};

pub(super) use self::client::Client;
use super::alarm::Alarm;
use super::exchange::{Beginning, Ending, Exchange, Failure, Side};
use super::identity::{Identities, Visitor};
use super::passage::Passage;
use super::request::{Admitted, admit, open};
use super::{CLOSED, refusal_response};
use crate::instance::Counted;
use crate::shard::ShardState;

/// Answer bytes gathered before they are sent.
const GATHER_BYTES: usize = 64 * 1024;
/// What a client may send ahead of its next request while it waits for an answer.
const READ_AHEAD_BYTES: usize = 16 * 1024;

/// What a connection brings next.
enum Next {
    /// A request head.
    Request(Box<Request>),
    /// Something that is answered with an error, and then the end.
    Refused(Box<Refusal>),
    /// The end, without a word.
    Over,
}

/// What becomes of a connection after an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    /// It may carry the next request.
    Reusable,
    /// The answer is complete and the connection is to be closed.
    Close,
    /// As `Close`, but the client may still be sending its request.
    Linger,
    /// It is dropped without a closing alert, so that the client sees a broken end.
    Drop,
}

/// Serves one client connection to its end.
pub(super) async fn serve(state: Rc<ShardState>, mut client: Box<Client>) {
    let mut identities = Identities::default();
    let mut is_first = true;
    loop {
        let outcome = match next_request(&state, &mut client, is_first).await {
            Next::Request(request) => exchange(&state, &mut client, &mut identities, request).await,
            Next::Refused(refusal) => {
                write_refusal(&state, &mut client.output, &refusal, &Method::GET, true);
                Outcome::Linger
            }
            Next::Over => Outcome::Close,
        };
        match outcome {
            Outcome::Reusable => {}
            Outcome::Close => return client.close().await,
            Outcome::Linger => return client.linger().await,
            Outcome::Drop => return,
        }
        is_first = false;
    }
}

/// Waits for the next request head.
async fn next_request(state: &ShardState, client: &mut Client, is_first: bool) -> Next {
    let timeouts = state.instance.timeouts;
    let mut reader = RequestReader::new();
    let mut alarm = Alarm::default();
    let waiting_since = Instant::now();
    let mut head_since = is_first.then_some(waiting_since);
    let mut stopping = std::pin::pin!(state.shard.stop().requested());
    loop {
        match reader.read(&mut client.input) {
            Ok(Some(request)) => return Next::Request(Box::new(request)),
            Ok(None) => {}
            Err(error) => return Next::Refused(Box::new(Refusal::from(&error))),
        }
        let is_idle = client.input.is_empty();
        if !is_idle {
            head_since.get_or_insert_with(Instant::now);
        }
        let deadline = match head_since {
            Some(since) => since + timeouts.head,
            None => waiting_since + timeouts.idle,
        };
        let next = poll_fn(|cx| {
            if let Poll::Ready(read) = client.poll_fill(cx) {
                // A connection that ends or breaks between requests owes nobody an answer.
                return Poll::Ready(read.ok().filter(|&read| read > 0).map(|_| None));
            }
            if is_idle && stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            alarm.poll_at(cx, Some(deadline)).map(|()| {
                (!is_idle).then(|| Some(Box::new(Refusal::by_gateway(Reason::HeadTimeout))))
            })
        });
        match next.await {
            Some(None) => {}
            Some(Some(refusal)) => return Next::Refused(refusal),
            None => return Next::Over,
        }
    }
}

/// Carries one request to its answer, or answers it with an error.
async fn exchange(
    state: &ShardState,
    client: &mut Client,
    identities: &mut Identities,
    mut request: Box<Request>,
) -> Outcome {
    state.counters().requests.fetch_add(1, Ordering::Relaxed);
    let _open = Counted::new(&state.counters().exchanges_open);
    let wants_close = request.close || state.shard.stop().is_requested();
    let has_body = !matches!(request.body, BodyLength::Empty | BodyLength::Exact(0));
    let method = request.head.method.clone();
    let begun = Box::pin(begin(state, client, identities, &mut request)).await;
    let (passage, body, admitted) = match begun {
        Ok(begun) => begun,
        Err(refusal) => {
            let close = wants_close || has_body;
            write_refusal(state, &mut client.output, &refusal, &method, close);
            return finish_refusal(client, state, close, has_body).await;
        }
    };
    if request.expects_continue {
        client.output.extend_from_slice(CONTINUE);
    }
    drop(request);
    let phase = if passage.asks_to_switch() { Phase::Asked } else { Phase::Http };
    let mut side = H1 { state, client, body, phase, writer: None, method, close: wants_close };
    let ending = Exchange::new(state, &mut side, passage, admitted.response_timeout).run().await;
    let H1 { client, method, close, .. } = side;
    match ending {
        Ending::Complete { is_sent: false } => Outcome::Linger,
        Ending::Complete { .. } if close => Outcome::Close,
        Ending::Complete { .. } => Outcome::Reusable,
        Ending::ClientGone | Ending::Broken => Outcome::Drop,
        Ending::Refused { refusal, is_sent } => {
            let close = close || !is_sent;
            write_refusal(state, &mut client.output, &refusal, &method, close);
            finish_refusal(client, state, close, !is_sent).await
        }
    }
}

/// Decides whether a request passes, and sends its head.
async fn begin(
    state: &ShardState,
    client: &Client,
    identities: &mut Identities,
    request: &mut Request,
) -> Result<(Passage, BodyReader, Admitted), Box<Refusal>> {
    let visitor = Visitor { address: client.address.ip(), certificates: client.certificates() };
    let admitted = admit(state, visitor, identities, request)?;
    let body = BodyReader::new(request.body, admitted.max_body_bytes)
        .map_err(|error| Box::new(Refusal::from(&error)))?;
    let opened = open(state, &admitted.site).await?;
    let passage = Passage::begin(opened, &admitted, &request.head, body.is_complete())?;
    Ok((passage, body, admitted))
}

/// Appends an error answer to `output` and counts it.
fn write_refusal(
    state: &ShardState,
    output: &mut BytesMut,
    refusal: &Refusal,
    method: &Method,
    close: bool,
) {
    let (head, body) = refusal_response(state, refusal);
    let has_body = *method != Method::HEAD;
    let circumstances = Circumstances { method, has_body, close, date: &state.date() };
    let Ok(mut writer) = ResponseWriter::start(&head, circumstances, output) else { return };
    if has_body && writer.frame(body.len()).is_ok() {
        output.extend_from_slice(&body);
        // Its length is declared, so there is nothing to add.
        let _ = writer.finish(&HeaderMap::new(), output);
    }
}

/// Sends an error answer.
async fn finish_refusal(
    client: &mut Client,
    state: &ShardState,
    close: bool,
    is_sending: bool,
) -> Outcome {
    let flushing = poll_fn(|cx| client.poll_flush(cx));
    match tokio::time::timeout(state.instance.timeouts.stall, flushing).await {
        Ok(Ok(())) if is_sending => Outcome::Linger,
        Ok(Ok(())) if close => Outcome::Close,
        Ok(Ok(())) => Outcome::Reusable,
        Ok(Err(_)) | Err(_) => Outcome::Drop,
    }
}

/// The client's side of one exchange.
struct H1<'a> {
    state: &'a ShardState,
    client: &'a mut Client,
    body: BodyReader,
    phase: Phase,
    /// Once the answer has begun.
    writer: Option<ResponseWriter>,
    method: Method,
    /// Whether the connection ends with the answer.
    close: bool,
}

/// Whether a connection has left HTTP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// It speaks HTTP.
    Http,
    /// It has asked to leave.
    Asked,
    /// It carries raw bytes to its end.
    Switched,
}

impl H1<'_> {
    /// The client's bytes as they come, and its end.
    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, Failure>> {
        if self.client.input.is_empty() {
            match ready!(self.client.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(Ok(BodyEvent::End)),
                Ok(_) => {}
                Err(_) => return Poll::Ready(Err(Failure::ClientGone(CLOSED))),
            }
        }
        Poll::Ready(Ok(BodyEvent::Data(take_piece(&mut self.client.input, u64::MAX))))
    }
}

impl Side for H1<'_> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, Failure>> {
        match self.phase {
            Phase::Http => {}
            Phase::Asked => {
                return self.poll_gone(cx, true).map(|why| Err(Failure::ClientGone(why)));
            }
            Phase::Switched => return self.poll_raw(cx),
        }
        loop {
            let event = self.body.read(&mut self.client.input);
            match event.map_err(|error| Failure::Refused(Box::new(Refusal::from(&error))))? {
                Some(event) => return Poll::Ready(Ok(event)),
                None => match ready!(self.client.poll_fill(cx)) {
                    Ok(read) if read > 0 => {}
                    _ => {
                        let why = "its body ended before its length";
                        return Poll::Ready(Err(Failure::ClientGone(why)));
                    }
                },
            }
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>, is_sent: bool) -> Poll<&'static str> {
        // After a switch the end of what one end says is not the end of the other.
        let may_look = is_sent && self.phase != Phase::Switched;
        while may_look && self.client.input.len() < READ_AHEAD_BYTES {
            match ready!(self.client.poll_fill(cx)) {
                Ok(read) if read > 0 => {}
                _ => return Poll::Ready(CLOSED),
            }
        }
        Poll::Pending
    }

    fn interim(&mut self, head: ResponseHead) -> Result<(), PartsError> {
        encode_interim(&head, &mut self.client.output).map_err(PartsError::Head)
    }

    fn begin(&mut self, head: ResponseHead, beginning: Beginning) -> Result<(), PartsError> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            (self.phase, self.close) = (Phase::Switched, true);
            return encode_switch(&head, &mut self.client.output).map_err(PartsError::Head);
        }
        self.phase = Phase::Http;
        self.close |= !beginning.is_sent;
        let circumstances = Circumstances {
            method: &self.method,
            has_body: beginning.has_body,
            close: self.close,
            date: &self.state.date(),
        };
        self.writer = Some(ResponseWriter::start(&head, circumstances, &mut self.client.output)?);
        Ok(())
    }

    fn data(&mut self, data: Bytes) -> Result<(), PartsError> {
        if self.phase == Phase::Switched {
            self.client.output.extend_from_slice(&data);
            return Ok(());
        }
        let writer = self.writer.as_mut().ok_or(PartsError::OutOfOrder)?;
        let frame = writer.frame(data.len())?;
        let output = &mut self.client.output;
        output.extend_from_slice(frame.prefix());
        output.extend_from_slice(&data);
        output.extend_from_slice(frame.suffix());
        Ok(())
    }

    fn finish(&mut self, trailers: HeaderMap) -> Result<(), PartsError> {
        if self.phase == Phase::Switched {
            return Ok(());
        }
        let writer = self.writer.take().ok_or(PartsError::OutOfOrder)?;
        writer.finish(&trailers, &mut self.client.output)
    }

    fn has_room(&self) -> bool {
        self.client.output.len() < GATHER_BYTES
    }

    fn has_output(&self) -> bool {
        self.client.has_output()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        self.client.poll_flush(cx).map_err(|_| CLOSED)
    }

    fn moved_bytes(&self) -> u64 {
        self.client.moved_bytes
    }
}
