//! An admitted exchange: the request to its role, the answer back.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use cmgmux_exchange::refusal::{Reason, Refusal};
use cmgmux_net::SendStream;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::Forwarder;
use super::admit::Admitted;
use super::answer::{self, Broken};
use super::tunnel;
use crate::counters::OpenExchange;
use crate::upstream::{
    AskError, ConnectError, Connection, Failure, Outcome, Progress, RequestBody, RequestParts,
    Upstream,
};

/// A request that is on its way, and who waits for the answer.
pub(super) struct Passage {
    send: SendStream,
    request: Box<Request<RequestBody>>,
    /// What follows the head, if that is for after a switch of protocols.
    switch: Option<Box<RequestParts>>,
    terms: Terms,
}

/// What stays the same from the request to the end of the answer.
struct Terms {
    upstream: Rc<Upstream>,
    method: Method,
    progress: Rc<Progress>,
    /// How long the role may be silent; as long as it likes if the mapping holds requests.
    limit: Option<Duration>,
    _open: OpenExchange,
}

/// The head of an answer, on the connection that its body comes from.
type Answered = (Connection, Box<Response<Incoming>>);

impl Passage {
    /// The exchange of an admitted request; `parts` is what follows its head, if anything does.
    pub(super) fn new(
        admitted: Admitted,
        method: Method,
        send: SendStream,
        parts: RequestParts,
    ) -> Self {
        let complete = || (Rc::new(Progress::new(Outcome::Complete)), RequestBody::empty());
        let mut switch = None;
        let (progress, body) = if admitted.is_complete {
            complete()
        } else if admitted.asks_to_switch {
            switch = Some(Box::new(parts));
            complete()
        } else {
            let progress = Rc::new(Progress::new(Outcome::Open));
            let body = RequestBody::new(
                parts,
                Rc::clone(&progress),
                admitted.declared_bytes,
                admitted.max_body_bytes,
            );
            (progress, body)
        };
        let terms = Terms {
            _open: OpenExchange::of(&admitted.destination.exchanges),
            upstream: admitted.destination.upstream,
            method,
            progress,
            limit: admitted.response_timeout,
        };
        Self { send, request: Box::new(admitted.request.map(|()| body)), switch, terms }
    }

    /// Serves the exchange to its end.
    pub(super) async fn run(self: Box<Self>, forwarder: &Forwarder) {
        let Self { mut send, request, switch, terms } = *self;
        let asked = tokio::select! {
            biased;
            _ = poll_fn(|cx| send.poll_broken(cx)) => None,
            answered = terms.ask(request) => Some(answered),
        };
        match asked {
            None => forwarder.counters.abandoned.add(1),
            Some(Ok(answered)) => terms.answer(forwarder, send, answered, switch).await,
            Some(Err(refusal)) => terms.give_up(forwarder, send, *refusal).await,
        }
        forwarder.counters.request_bytes.add(terms.progress.bytes());
    }
}

impl Terms {
    /// The head of the answer, or why there is none.
    async fn ask(&self, request: Box<Request<RequestBody>>) -> Result<Answered, Box<Refusal>> {
        let answered = tokio::select! {
            answered = self.upstream.ask(request) => answered,
            limit = self.role_is_silent() => {
                let authority = self.upstream.authority();
                let details = format!("no answer of {authority} within {} s", limit.as_secs_f64());
                let refusal = Refusal::by_connection_point(Reason::RoleSilent);
                return Err(Box::new(refusal.with_details(details)));
            }
        };
        answered.map_err(|error| Box::new(self.refusal_of(&error)))
    }

    /// Ends once the role has neither taken anything nor answered for its time, which it tells. Time
    /// in which the client's data are missing does not count.
    async fn role_is_silent(&self) -> Duration {
        let Some(limit) = self.limit else {
            return std::future::pending().await;
        };
        loop {
            let due = self.progress.role_is_due_since() + limit;
            if due <= Instant::now() {
                return limit;
            }
            sleep_until(due).await;
        }
    }

    /// Passes the answer on. The connection is kept for others if both ends were heard out; if not,
    /// it closes, and with it ends what is left of the request.
    async fn answer(
        &self,
        forwarder: &Forwarder,
        mut send: SendStream,
        answered: Answered,
        switch: Option<Box<RequestParts>>,
    ) {
        let counters = &forwarder.counters;
        let (connection, response) = answered;
        let switch = switch.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS);
        let has_switched = switch.is_some();
        let passed = match switch {
            Some(parts) => Box::pin(tunnel::run(&mut send, *parts, *response, counters)).await,
            None => answer::pass(&mut send, &self.method, response, self.limit, counters).await,
        };
        match passed {
            Ok(()) if has_switched => {}
            Ok(()) if self.progress.outcome() == Outcome::Complete => {
                drop(send);
                self.upstream.keep(connection).await;
            }
            Ok(()) => {}
            Err(Broken::Left) => counters.abandoned.add(1),
            Err(Broken::BadHead(refusal)) => {
                drop(connection);
                forwarder.refuse(send, &self.method, *refusal).await;
            }
            Err(Broken::Role(code)) => {
                let failure = self.progress.take_failure();
                if failure == Some(Failure::Gone) {
                    return counters.abandoned.add(1);
                }
                let code = failure.map_or(code, |failure| failure.code());
                counters.broken.add(1);
                debug!(role = %self.upstream.authority(), %code, "an answer broke off");
                send.reset(code);
            }
        }
    }

    /// Answers with `refusal`, unless the request itself is at fault for the lack of an answer.
    async fn give_up(&self, forwarder: &Forwarder, send: SendStream, refusal: Refusal) {
        let refusal = match self.progress.take_failure() {
            None => refusal,
            Some(Failure::Gone) => return forwarder.counters.abandoned.add(1),
            Some(failure @ Failure::TooLarge { .. }) => {
                Refusal::by_connection_point(Reason::BodyTooLarge).with_details(failure.to_string())
            }
            Some(failure @ Failure::Malformed(_)) => {
                Refusal::by_connection_point(Reason::BadBody).with_details(failure.to_string())
            }
        };
        forwarder.refuse(send, &self.method, refusal).await;
    }

    fn refusal_of(&self, error: &AskError) -> Refusal {
        let reason = match error {
            AskError::Connect(ConnectError::Unresolved { .. }) => Reason::RoleUnresolved,
            AskError::Connect(ConnectError::Refused { .. }) => Reason::RoleRefused,
            AskError::Connect(ConnectError::Timeout { .. }) => Reason::RoleConnectTimeout,
            AskError::Connect(ConnectError::Untrusted { .. }) => Reason::RoleUntrusted,
            AskError::Connect(ConnectError::Tls { .. }) => Reason::RoleTlsFailed,
            AskError::Connect(ConnectError::Unreachable { .. }) => Reason::RoleUnreachable,
            AskError::Exchange(error) if error.is_parse() => Reason::RoleBadAnswer,
            AskError::Exchange(_) => Reason::RoleBrokeOff,
        };
        let details = match error {
            AskError::Connect(error) => error.to_string(),
            AskError::Exchange(error) => {
                format!("{}: {}", self.upstream.authority(), in_words(error))
            }
        };
        Refusal::by_connection_point(reason).with_details(details)
    }
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
