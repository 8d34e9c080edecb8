//! An admitted exchange: the request to its role, the answer back.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::time::Duration;

use cmgmux_exchange::h1::Response;
use cmgmux_exchange::refusal::{Reason, Refusal};
use cmgmux_net::SendStream;
use http::{Method, StatusCode};
use tracing::debug;

use super::Forwarder;
use super::admit::Admitted;
use super::answer::{self, Broken, Interrupted, Passed, wait};
use crate::counters::OpenExchange;
use crate::upstream::{Call, CallError, ConnectError, Failure, Request, RequestParts, Upstream};

/// A request that is on its way, and who waits for the answer.
pub(super) struct Passage {
    send: SendStream,
    request: Box<Request>,
    terms: Terms,
}

/// What stays the same from the request to the end of the answer.
struct Terms {
    upstream: Rc<Upstream>,
    method: Method,
    /// How long the role may be silent; as long as it likes if the mapping holds requests.
    limit: Option<Duration>,
    _open: OpenExchange,
}

/// The exchange with the role, and the final head of its answer.
type Answered = (Box<Call>, Box<Response>);

/// Why there is no answer.
enum Unanswered {
    /// The client left, or the channel was lost.
    Left,
    /// The client gets this instead.
    Refusal(Box<Refusal>),
}

impl From<Broken> for Unanswered {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::BadHead(refusal) => Self::Refusal(refusal),
            Broken::Left | Broken::Role(_) => Self::Left,
        }
    }
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(Box::new(refusal))
    }
}

impl Passage {
    /// The exchange of an admitted request; `rest` is what follows its head, if anything does.
    pub(super) fn new(admitted: Admitted, send: SendStream, rest: Option<RequestParts>) -> Self {
        let terms = Terms {
            _open: OpenExchange::of(&admitted.destination.exchanges),
            upstream: admitted.destination.upstream,
            method: admitted.method.clone(),
            limit: admitted.response_timeout,
        };
        let request = Request::new(
            admitted.method,
            admitted.target.path_and_query().map_or("/", |target| target.as_str()),
            &admitted.fields,
            admitted.asks_to_switch,
            rest,
            admitted.declared_bytes,
            admitted.max_body_bytes,
        );
        Self { send, request: Box::new(request), terms }
    }

    /// Serves the exchange to its end.
    pub(super) async fn run(self: Box<Self>, forwarder: &Forwarder) {
        let Self { mut send, request, terms } = *self;
        match terms.ask(&mut send, request).await {
            // Boxed, so that a held request need not have room for it.
            Ok(answered) => Box::pin(terms.answer(forwarder, send, answered)).await,
            Err(Unanswered::Left) => forwarder.counters.abandoned.add(1),
            Err(Unanswered::Refusal(refusal)) => {
                forwarder.refuse(send, &terms.method, *refusal).await;
            }
        }
    }
}

impl Terms {
    /// Waits for the final head of the answer; interim ones are passed on.
    async fn ask(
        &self,
        send: &mut SendStream,
        request: Box<Request>,
    ) -> Result<Answered, Unanswered> {
        let mut call = self.connected(send, self.upstream.call(request)).await?;
        loop {
            let error = match wait(send, &mut call, self.limit, Call::poll_head).await {
                Ok(Ok(response)) if is_interim(response.head.status) => {
                    answer::pass_interim(send, &response.head).await?;
                    continue;
                }
                Ok(Ok(response)) => return Ok((call, Box::new(response))),
                Ok(Err(error)) => error,
                Err(Interrupted::Left) => return Err(Unanswered::Left),
                Err(Interrupted::TooLate) => return Err(self.silence().into()),
            };
            let Some(request) = call.into_again(&error) else {
                return Err(self.unanswered(error));
            };
            call = self.connected(send, self.upstream.call_anew(request)).await?;
        }
    }

    /// Waits for a connection, for as long as the client waits.
    async fn connected(
        &self,
        send: &mut SendStream,
        connecting: impl Future<Output = Result<Box<Call>, ConnectError>>,
    ) -> Result<Box<Call>, Unanswered> {
        let connected = tokio::select! {
            biased;
            _ = poll_fn(|cx| send.poll_broken(cx)) => return Err(Unanswered::Left),
            connected = connecting => connected,
        };
        connected.map_err(|error| {
            let reason = match error {
                ConnectError::Unresolved { .. } => Reason::RoleUnresolved,
                ConnectError::Refused { .. } => Reason::RoleRefused,
                ConnectError::Timeout { .. } => Reason::RoleConnectTimeout,
                ConnectError::Untrusted { .. } => Reason::RoleUntrusted,
                ConnectError::Tls { .. } => Reason::RoleTlsFailed,
                ConnectError::Unreachable { .. } => Reason::RoleUnreachable,
            };
            Refusal::by_connection_point(reason).with_details(error.to_string()).into()
        })
    }

    /// Passes the answer on. The connection is kept for others if both ends were heard out; if not,
    /// it closes, and with it ends what is left of the request.
    async fn answer(
        &self,
        forwarder: &Forwarder,
        mut send: SendStream,
        (call, response): Answered,
    ) {
        let counters = &forwarder.counters;
        match answer::pass(&mut send, &self.method, call, *response, self.limit, counters).await {
            Ok(Passed::Whole(call)) => self.upstream.end(call),
            Ok(Passed::Switched) => {}
            Err(Broken::Left) => counters.abandoned.add(1),
            Err(Broken::BadHead(refusal)) => {
                forwarder.refuse(send, &self.method, *refusal).await;
            }
            Err(Broken::Role(code)) => {
                counters.broken.add(1);
                debug!(role = %self.upstream.authority(), %code, "an answer broke off");
                send.reset(code);
            }
        }
    }

    /// What the client gets for this error: nothing if it left, else a refusal.
    fn unanswered(&self, error: CallError) -> Unanswered {
        let authority = self.upstream.authority();
        let reason = match &error {
            CallError::Request(Failure::Gone) => return Unanswered::Left,
            CallError::Request(Failure::TooLarge { .. }) => Reason::BodyTooLarge,
            CallError::Request(Failure::Malformed(_)) => Reason::BadBody,
            CallError::Head(_) | CallError::Body(_) => Reason::RoleBadAnswer,
            CallError::Broke(_) | CallError::Closed => Reason::RoleBrokeOff,
        };
        let details = match &error {
            CallError::Request(failure) => failure.to_string(),
            _ => format!("{authority}: {}", in_words(&error)),
        };
        Refusal::by_connection_point(reason).with_details(details).into()
    }

    /// The role has neither taken anything nor answered for its time.
    fn silence(&self) -> Refusal {
        let authority = self.upstream.authority();
        let limit_s = self.limit.unwrap_or_default().as_secs_f64();
        let details = format!("no answer of {authority} within {limit_s} s");
        Refusal::by_connection_point(Reason::RoleSilent).with_details(details)
    }
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// An error and its causes.
pub(super) fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    words
}
