//! One request and its answer: a client connection on one side, a stream on the other.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cmgmux_exchange::code;
use cmgmux_exchange::h1::{
    BodyError, BodyEvent, BodyLength, BodyReader, CONTINUE, Circumstances, Request, ResponseWriter,
    encode_interim,
};
use cmgmux_exchange::head::ResponseHead;
use cmgmux_exchange::parts::{Event, PartsError, Piece, Reader, Writer};
use cmgmux_exchange::refusal::{Reason, Refusal};
use cmgmux_net::{End, RecvStream, SendStream, StreamCode, StreamError};
use http::{HeaderMap, Method, StatusCode};
use tracing::debug;

use super::answer_refusal;
use super::client::{Alarm, Client};
use super::identity::Identities;
use super::request::{Admitted, admit};
use crate::instance::Counted;
use crate::shard::ShardState;

/// Answer bytes gathered before they are sent.
const GATHER_BYTES: usize = 64 * 1024;
/// What a client may send ahead of its next request while it waits for an answer.
const READ_AHEAD_BYTES: usize = 16 * 1024;
/// Time beyond the mapping's own that the connection point's 504 may take to arrive.
const RESPONSE_MARGIN: Duration = Duration::from_secs(5);

/// What becomes of a client connection after an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// It may carry the next request.
    Reusable,
    /// The answer is complete and the connection is to be closed.
    Close,
    /// As `Close`, but the client may still be sending its request.
    Linger,
    /// The answer broke off; the client must not take it for complete.
    Broken,
    /// The client has left.
    ClientGone,
}

/// Why an exchange ends before its answer is complete.
enum Failure {
    /// The client has left, or stalled for too long.
    ClientGone(&'static str),
    /// There is an answer for it, if none has begun.
    Refused(Box<Refusal>),
}

/// Carries one request to its answer, or answers it with an error.
pub(super) async fn serve(
    state: &ShardState,
    client: &mut Client,
    identities: &mut Identities,
    mut request: Request,
) -> Outcome {
    state.counters().requests.fetch_add(1, Ordering::Relaxed);
    let _open = Counted::new(&state.counters().exchanges_open);
    let wants_close = request.close || state.shard.stop().is_requested();
    let admitted = match Box::pin(admit(state, client, identities, &mut request)).await {
        Ok(admitted) => admitted,
        Err(refusal) => {
            let has_body = !matches!(request.body, BodyLength::Empty | BodyLength::Exact(0));
            let close = wants_close || has_body;
            let method = &request.head.method;
            answer_refusal(state, &mut client.output, &refusal, method, close);
            return finish_refusal(client, state, close, has_body).await;
        }
    };
    let mut exchange = match Exchange::begin(state, client, request, admitted, wants_close) {
        Ok(exchange) => exchange,
        Err(refusal) => {
            answer_refusal(state, &mut client.output, &refusal, &Method::GET, true);
            return Outcome::Linger;
        }
    };
    let result = poll_fn(|cx| exchange.poll(cx)).await;
    let (method, has_begun) = (exchange.method.clone(), exchange.has_begun());
    let close = exchange.close;
    let upload_complete = matches!(exchange.upload, Upload::Complete);
    match result {
        Ok(()) if !upload_complete => Outcome::Linger,
        Ok(()) if close => Outcome::Close,
        Ok(()) => Outcome::Reusable,
        Err(Failure::ClientGone(why)) => {
            debug!(why, "client has left before its exchange was over");
            exchange.abandon(code::CLIENT_GONE);
            Outcome::ClientGone
        }
        Err(Failure::Refused(refusal)) => {
            let stream_code = match refusal.reason() {
                Reason::BodyTooLarge => code::BODY_TOO_LARGE,
                Reason::BadBody => code::BAD_BODY,
                Reason::RoleSilent => code::TIMED_OUT,
                _ => StreamCode::CANCELLED.0,
            };
            exchange.abandon(stream_code);
            if has_begun {
                state.instance.refuse(refusal.reason());
                debug!(
                    reason = refusal.reason().code(),
                    details = refusal.details(),
                    "answer broke off"
                );
                return Outcome::Broken;
            }
            let close = close || !upload_complete;
            answer_refusal(state, &mut client.output, &refusal, &method, close);
            finish_refusal(client, state, close, !upload_complete).await
        }
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
        Ok(Err(_)) | Err(_) => Outcome::ClientGone,
    }
}

/// The request on its way.
enum Upload {
    /// The body is read from the client and sent on.
    Running { send: SendStream, writer: Writer, body: BodyReader },
    /// All of it has been sent.
    Complete,
    /// The far end wants no more of it. What the client still sends is not read.
    Unwanted,
}

/// The answer on its way.
enum Download {
    /// Before its head.
    Waiting,
    /// In its body.
    Running(ResponseWriter),
    /// Complete, but perhaps not sent.
    Complete,
}

struct Exchange<'a> {
    state: &'a ShardState,
    client: &'a mut Client,
    upload: Upload,
    /// Until the answer has been read to its end.
    recv: Option<RecvStream>,
    reader: Reader<ResponseHead>,
    download: Download,
    trailers: HeaderMap,
    method: Method,
    close: bool,
    /// Until when the answer has to begin.
    answer_by: Option<Instant>,
    alarm: Alarm,
    /// Since when, and after how many moved bytes, the client is being waited for.
    waiting: Option<(Instant, u64)>,
}

impl<'a> Exchange<'a> {
    /// Sends the head and prepares for the rest.
    fn begin(
        state: &'a ShardState,
        client: &'a mut Client,
        request: Request,
        admitted: Admitted,
        close: bool,
    ) -> Result<Self, Box<Refusal>> {
        let Admitted { mut send, recv, body, response_timeout } = admitted;
        let mut writer = Writer::request();
        let is_whole = body.is_complete();
        let piece = writer.request_head(&request.head, is_whole).map_err(|error| {
            let refusal = Refusal::by_gateway(Reason::HeadTooLarge);
            Box::new(refusal.with_details(error.to_string()))
        })?;
        let upload = match pass(&mut send, piece) {
            // The stream's own end says why, at the receiving half.
            Err(_) => Upload::Unwanted,
            Ok(()) if is_whole => Upload::Complete,
            Ok(()) => Upload::Running { send, writer, body },
        };
        if request.expects_continue && matches!(upload, Upload::Running { .. }) {
            client.output.extend_from_slice(CONTINUE);
        }
        Ok(Self {
            state,
            client,
            upload,
            recv: Some(recv),
            reader: Reader::response(&request.head.method),
            download: Download::Waiting,
            trailers: HeaderMap::new(),
            method: request.head.method,
            close,
            answer_by: response_timeout.map(|limit| Instant::now() + limit + RESPONSE_MARGIN),
            alarm: Alarm::default(),
            waiting: None,
        })
    }

    /// Whether the client may have seen a part of the answer's head.
    fn has_begun(&self) -> bool {
        !matches!(self.download, Download::Waiting)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let upload = self.poll_upload(cx)?;
        if let Poll::Ready(result) = self.poll_download(cx) {
            return Poll::Ready(result);
        }
        // Output waits for the client to read; an upload that wants more, for it to send.
        let is_waiting = !self.client.output.is_empty() || upload == Wait::Client;
        let (now, moved) = (Instant::now(), self.client.moved_bytes);
        self.waiting = match self.waiting {
            _ if !is_waiting => None,
            Some((since, before)) if before == moved => Some((since, moved)),
            _ => Some((now, moved)),
        };
        let stalled_at = self.waiting.map(|(since, _)| since + self.state.instance.timeouts.stall);
        let answer_by = self.answer_by.filter(|_| upload == Wait::Nobody && !self.has_begun());
        let deadline = [stalled_at, answer_by].into_iter().flatten().min();
        match self.alarm.poll_at(cx, deadline) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) if stalled_at.is_some_and(|at| at <= Instant::now()) => {
                let refusal = Refusal::by_gateway(Reason::BodyTimeout);
                Poll::Ready(Err(match upload {
                    Wait::Client if !self.has_begun() => Failure::Refused(Box::new(refusal)),
                    _ => Failure::ClientGone("it neither read nor sent for too long"),
                }))
            }
            Poll::Ready(()) => {
                let refusal = Refusal::by_gateway(Reason::RoleSilent);
                Poll::Ready(Err(Failure::Refused(Box::new(refusal))))
            }
        }
    }

    /// Moves the request's body as far as it goes and says what it waits for. Once it is complete,
    /// notices a client that leaves.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<Wait, Failure> {
        while let Upload::Running { send, writer, body } = &mut self.upload {
            match send.poll_ready(cx) {
                Poll::Pending => return Ok(Wait::Stream),
                Poll::Ready(Err(_)) => {
                    self.upload = Upload::Unwanted;
                    break;
                }
                Poll::Ready(Ok(())) => {}
            }
            let event = body.read(&mut self.client.input).map_err(|error| refused(&error))?;
            let (piece, is_last) = match event {
                Some(BodyEvent::Data(data)) => (writer.data(data, End::None), false),
                Some(BodyEvent::Trailers(trailers)) => {
                    self.trailers = trailers;
                    continue;
                }
                Some(BodyEvent::End) => (self.finish_upload(), true),
                None => match self.client.poll_fill(cx) {
                    Poll::Pending => return Ok(Wait::Client),
                    Poll::Ready(Ok(read)) if read > 0 => continue,
                    Poll::Ready(_) => {
                        return Err(Failure::ClientGone("its body ended before its length"));
                    }
                },
            };
            let Upload::Running { send, .. } = &mut self.upload else { break };
            let passed = match piece {
                Ok(piece) => pass(send, piece).is_ok(),
                Err(error) => {
                    let refusal = Refusal::by_gateway(Reason::BadBody);
                    let refusal = refusal.with_details(error.to_string());
                    return Err(Failure::Refused(Box::new(refusal)));
                }
            };
            match (passed, is_last) {
                (false, _) => self.upload = Upload::Unwanted,
                (true, true) => self.upload = Upload::Complete,
                (true, false) => {}
            }
        }
        while matches!(self.upload, Upload::Complete) && self.client.input.len() < READ_AHEAD_BYTES
        {
            match self.client.poll_fill(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(read)) if read > 0 => {}
                Poll::Ready(_) => return Err(Failure::ClientGone("it closed its connection")),
            }
        }
        Ok(Wait::Nobody)
    }

    /// The last piece of the request: the end of its body, or its trailers.
    fn finish_upload(&mut self) -> Result<Piece, PartsError> {
        let Upload::Running { send, writer, .. } = &mut self.upload else {
            return Err(PartsError::OutOfOrder);
        };
        if self.trailers.is_empty() {
            return writer.data(Bytes::new(), End::Stream);
        }
        let trailers = std::mem::take(&mut self.trailers);
        let end_of_body = writer.data(Bytes::new(), End::Part)?;
        // A stream that takes no more says so again for the trailers.
        let _ = pass(send, end_of_body);
        writer.trailers(&trailers)
    }

    /// Moves the answer as far as it goes; ready when it is complete and sent.
    fn poll_download(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            let mut is_pending = false;
            while self.client.output.len() < GATHER_BYTES {
                let Some(recv) = &mut self.recv else { break };
                match recv.poll_chunk(cx) {
                    Poll::Ready(Ok(Some(chunk))) => {
                        self.handle_piece(chunk.data, chunk.end)?;
                    }
                    Poll::Ready(Ok(None)) => {
                        self.handle_piece(Bytes::new(), End::Stream)?;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(broken(&error))),
                    Poll::Pending => {
                        is_pending = true;
                        break;
                    }
                }
            }
            match self.client.poll_flush(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    return Poll::Ready(Err(Failure::ClientGone("it closed its connection")));
                }
            }
            if matches!(self.download, Download::Complete) {
                return Poll::Ready(Ok(()));
            }
            if is_pending {
                return Poll::Pending;
            }
        }
    }

    fn handle_piece(&mut self, data: Bytes, end: End) -> Result<(), Failure> {
        let bad_answer = |error: &dyn std::fmt::Display| {
            let refusal = Refusal::by_gateway(Reason::ConnectionPointBadAnswer);
            Failure::Refused(Box::new(refusal.with_details(error.to_string())))
        };
        let received = self.reader.handle_piece(data, end).map_err(|error| bad_answer(&error))?;
        let output = &mut self.client.output;
        match received.event {
            // The gateway has answered `Expect` itself.
            Some(Event::Interim(head)) if head.status == StatusCode::CONTINUE => {}
            Some(Event::Interim(head)) => {
                encode_interim(&head, output).map_err(|error| bad_answer(&error))?;
            }
            Some(Event::Head(head)) => {
                self.close |= !matches!(self.upload, Upload::Complete);
                let circumstances = Circumstances {
                    method: &self.method,
                    has_body: !received.complete,
                    close: self.close,
                    date: &self.state.date(),
                };
                let writer = ResponseWriter::start(&head, circumstances, output)
                    .map_err(|error| bad_answer(&error))?;
                self.download = Download::Running(writer);
            }
            Some(Event::Data(data)) => {
                let Download::Running(writer) = &mut self.download else { return Ok(()) };
                let frame = writer.frame(data.len()).map_err(|error| bad_answer(&error))?;
                output.extend_from_slice(frame.prefix());
                output.extend_from_slice(&data);
                output.extend_from_slice(frame.suffix());
            }
            Some(Event::Trailers(trailers)) => self.trailers = trailers,
            None => {}
        }
        if received.complete {
            self.recv = None;
            let download = std::mem::replace(&mut self.download, Download::Complete);
            if let Download::Running(writer) = download {
                let trailers = std::mem::take(&mut self.trailers);
                writer.finish(&trailers, output).map_err(|error| bad_answer(&error))?;
            }
        }
        Ok(())
    }

    /// Gives both halves of the stream up with `stream_code`.
    fn abandon(self, stream_code: u32) {
        if let Upload::Running { send, .. } = self.upload {
            send.reset(StreamCode(stream_code));
        }
        if let Some(recv) = self.recv {
            recv.stop(StreamCode(stream_code));
        }
    }
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

fn pass(send: &mut SendStream, piece: Piece) -> Result<(), StreamError> {
    send.send(piece.data, piece.end)
}

fn refused(error: &BodyError) -> Failure {
    Failure::Refused(Box::new(Refusal::from(error)))
}

fn broken(error: &StreamError) -> Failure {
    let refusal = match error {
        StreamError::Reset(code) | StreamError::Stopped(code) => Refusal::of_stream_code(code.0),
        _ => Refusal::by_gateway(Reason::ConnectionPointLost).with_details(error.to_string()),
    };
    Failure::Refused(Box::new(refusal))
}
