//! Connections to roles: HTTP/1.1, one exchange at a time, kept for the next one.
//!
//! Each shard has its own [`Upstream`] for each role, so nothing here is locked. A connection has no
//! task of its own: the exchange that uses it moves it, as a [`Call`], and closes it by dropping it.

mod call;
mod connect;
mod connection;
mod request;
mod request_parts;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;
use tracing::debug;

pub(crate) use self::call::{Call, CallError, Switched};
pub(crate) use self::connect::ConnectError;
use self::connection::Connection;
pub(crate) use self::connection::Io;
pub(crate) use self::request::Request;
pub(crate) use self::request_parts::{Failure, RequestParts};
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
/// One role as one shard sees it.
pub(crate) struct Upstream {
    authority: Authority,
    tls: Option<RoleTls>,
    host_field: HeaderValue,
    counters: Arc<UpstreamCounters>,
    /// Most recently used last.
    idle: RefCell<Vec<Connection>>,
    is_closed: Cell<bool>,
}

impl Upstream {
    /// The role at `authority`; no connection is made yet.
    pub(crate) fn new(
        authority: Authority,
        tls: Option<RoleTls>,
        counters: Arc<UpstreamCounters>,
    ) -> Self {
        let host_field = host_field(&authority, default_port(tls.as_ref()));
        Self {
            authority,
            tls,
            host_field,
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

    /// Begins an exchange, on an idle connection if there is one. Nothing is sent yet.
    pub(crate) async fn call(&self, request: Box<Request>) -> Result<Box<Call>, ConnectError> {
        match self.take_idle() {
            Some(connection) => Ok(Call::new(connection, request)),
            None => self.call_anew(request).await,
        }
    }

    /// Begins an exchange on a new connection. Nothing is sent yet.
    pub(crate) async fn call_anew(&self, request: Box<Request>) -> Result<Box<Call>, ConnectError> {
        Ok(Call::new(Box::pin(self.connect()).await?, request))
    }

    /// Ends an exchange. Its connection is kept if it can serve another one, and closed if not.
    pub(crate) fn end(&self, call: Box<Call>) {
        let mut idle = self.idle.borrow_mut();
        if !self.is_closed.get() && idle.len() < MAX_IDLE {
            idle.extend(call.into_kept());
        }
    }

    /// Closes the connections that nobody has used for [`IDLE_TIMEOUT`], and forgets closed ones.
    pub(crate) fn close_unused(&self) {
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|idle| idle.is_fresh(IDLE_TIMEOUT) && idle.is_quiet());
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
        while let Some(mut connection) = idle.pop() {
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let host = self.authority.host();
        match connect::connect(host, self.port(), self.tls.as_ref()).await {
            Ok(io) => Ok(Connection::new(io, &self.counters)),
            Err(error) => {
                self.counters.connect_failures.add(1);
                debug!(role = %self.authority, %error, "cannot connect to the role");
                Err(error)
            }
        }
    }
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
