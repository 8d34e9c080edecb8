//! Connections to roles: HTTP/1.1, one exchange at a time, kept for the next one.
//!
//! Each shard has its own [`Upstream`] for each role, so nothing here is locked. A connection lives on
//! a task of its own and as long as somebody owns its [`Connection`]: an exchange that is given up
//! closes it at once.

mod connect;
mod request_body;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cmgmux_exchange::head::is_safe;
use cmgmux_net::shard::Shard;
use http::uri::Authority;
use http::{HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::SendRequest;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;

pub(crate) use self::connect::ConnectError;
pub(crate) use self::request_body::{Failure, Outcome, Progress, RequestBody, RequestParts};
use crate::counters::UpstreamCounters;
use crate::plan::RoleTls;

/// Idle connections to one role that a shard keeps; further ones are closed.
const MAX_IDLE: usize = 256;
/// How long a connection is kept without an exchange. Shorter than what common servers allow, so
/// that they rarely close a connection just as it is used again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The ports of URLs without one.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// What a connection may take to be ready again after an exchange; a role that has not read the
/// request to its end by then does not get another one on the connection.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// One role as one shard sees it.
pub(crate) struct Upstream {
    authority: Authority,
    tls: Option<RoleTls>,
    host_field: HeaderValue,
    shard: Shard,
    counters: Arc<UpstreamCounters>,
    /// Most recently used last.
    idle: RefCell<Vec<Connection>>,
    is_closed: Cell<bool>,
}

/// A connection to a role. Dropping it closes it.
pub(crate) struct Connection {
    sender: SendRequest<RequestBody>,
    /// Ends the connection's task when dropped.
    _owner: oneshot::Sender<Infallible>,
    idle_since: Instant,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The exchange on the connection failed, which may be the fault of either end.
    #[error(transparent)]
    Exchange(#[from] hyper::Error),
}

impl Upstream {
    /// The role at `authority`; no connection is made yet.
    pub(crate) fn new(
        shard: Shard,
        authority: Authority,
        tls: Option<RoleTls>,
        counters: Arc<UpstreamCounters>,
    ) -> Self {
        let host_field = host_field(&authority, default_port(tls.as_ref()));
        Self {
            authority,
            tls,
            host_field,
            shard,
            counters,
            idle: RefCell::default(),
            is_closed: Cell::new(false),
        }
    }

    /// Host and port, as the mapping has them.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The value of `Host` in requests to this role.
    pub(crate) fn host_field(&self) -> &HeaderValue {
        &self.host_field
    }

    fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(default_port(self.tls.as_ref()))
    }

    /// Sends a request, on an idle connection if there is one, and waits for the head of the answer.
    ///
    /// A role may close an idle connection at the moment of its use. The request is sent again then
    /// if it was not sent at all, or if it is safe and has no body: once, on a new connection.
    pub(crate) async fn ask(
        &self,
        mut request: Box<Request<RequestBody>>,
    ) -> Result<(Connection, Box<Response<Incoming>>), AskError> {
        while let Some(mut connection) = self.take_idle() {
            let again = is_repeatable(&request).then(|| copy(&request));
            let mut error = match connection.sender.try_send_request(*request).await {
                Ok(response) => return Ok((connection, Box::new(response))),
                Err(error) => error,
            };
            match (error.take_message(), again) {
                (Some(unsent), _) => *request = unsent,
                (None, Some(again)) if broke_off(error.error()) => {
                    request = again;
                    break;
                }
                (None, _) => return Err(error.into_error().into()),
            }
        }
        let mut connection = Box::pin(self.connect()).await?;
        let response = connection.sender.send_request(*request).await?;
        Ok((connection, Box::new(response)))
    }

    /// Keeps a connection whose exchange is over, if it can serve another one.
    pub(crate) async fn keep(&self, mut connection: Connection) {
        if !matches!(timeout(READY_TIMEOUT, connection.sender.ready()).await, Ok(Ok(()))) {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if !self.is_closed.get() && idle.len() < MAX_IDLE {
            connection.idle_since = Instant::now();
            idle.push(connection);
        }
    }

    /// Closes the connections that nobody has used for [`IDLE_TIMEOUT`], and forgets closed ones.
    pub(crate) fn close_unused(&self) {
        let is_kept =
            |idle: &Connection| idle.idle_since.elapsed() < IDLE_TIMEOUT && idle.sender.is_ready();
        let mut idle = self.idle.borrow_mut();
        idle.retain(is_kept);
        if idle.is_empty() {
            idle.shrink_to_fit();
        }
    }

    /// Closes the idle connections and keeps none any more.
    pub(crate) fn close(&self) {
        self.is_closed.set(true);
        self.idle.take();
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(connection) = idle.pop() {
            if connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let host = self.authority.host();
        let connected = connect::connect(host, self.port(), self.tls.as_ref()).await;
        let (sender, driver) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                self.counters.connect_failures.add(1);
                debug!(role = %self.authority, %error, "cannot connect to the role");
                return Err(error);
            }
        };
        let (owner, ownerless) = oneshot::channel();
        self.shard.spawn(connect::Driven::new(driver, ownerless, &self.counters));
        Ok(Connection { sender, _owner: owner, idle_since: Instant::now() })
    }
}

/// Whether a request may have its effect twice.
fn is_repeatable(request: &Request<RequestBody>) -> bool {
    is_safe(request.method()) && request.body().is_end_stream()
}

/// The request once more; it has no body.
fn copy(request: &Request<RequestBody>) -> Box<Request<RequestBody>> {
    let mut copy = Box::new(Request::new(RequestBody::empty()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Whether the connection ended before the answer began, rather than in the middle of a bad one.
fn broke_off(error: &hyper::Error) -> bool {
    !error.is_parse() && !error.is_user()
}

fn default_port(tls: Option<&RoleTls>) -> u16 {
    if tls.is_some() { HTTPS_PORT } else { HTTP_PORT }
}

/// Without the port if it is the one of the scheme, as user agents do it.
fn host_field(authority: &Authority, default_port: u16) -> HeaderValue {
    let host = match authority.port_u16() {
        Some(port) if port != default_port => authority.as_str(),
        Some(_) | None => authority.host(),
    };
    // An authority has only characters that a field may have.
    HeaderValue::from_str(host).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The roles of one shard, each once.
#[derive(Default)]
pub(crate) struct Upstreams(Vec<Rc<Upstream>>);

impl Upstreams {
    /// The role at `authority`, dialled in this way; made by `make` if there is none yet.
    pub(crate) fn of(
        &mut self,
        authority: &Authority,
        tls: Option<&RoleTls>,
        make: impl FnOnce() -> Upstream,
    ) -> Rc<Upstream> {
        let is_same = |known: &&Rc<Upstream>| {
            let same_tls = match (&known.tls, tls) {
                (None, None) => true,
                (Some(one), Some(other)) => Arc::ptr_eq(&one.config, &other.config),
                _ => false,
            };
            same_tls && known.authority == *authority
        };
        if let Some(known) = self.0.iter().find(is_same) {
            return Rc::clone(known);
        }
        let new = Rc::new(make());
        self.0.push(Rc::clone(&new));
        new
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Upstream> {
        self.0.iter().map(Rc::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_field_names_the_role_as_user_agents_do() {
        for (authority, port, field) in [
            ("mp", HTTP_PORT, "mp"),
            ("mp:80", HTTP_PORT, "mp"),
            ("mp:80", HTTPS_PORT, "mp:80"),
            ("mp:443", HTTPS_PORT, "mp"),
            ("mp:8530", HTTP_PORT, "mp:8530"),
            ("[::1]:80", HTTP_PORT, "[::1]"),
            ("[::1]:8530", HTTP_PORT, "[::1]:8530"),
        ] {
            let authority: Authority = authority.parse().expect("an authority");
            assert_eq!(host_field(&authority, port), field);
        }
    }
}
