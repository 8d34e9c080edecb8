//! From a request head to an open stream: mapping, authentication, method, body, site.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cmgmux_exchange::fields::{IdentityFields, ensure_traceparent};
use cmgmux_exchange::h1::{BodyReader, Request};
use cmgmux_exchange::refusal::{Reason, Refusal};
use cmgmux_net::{RecvStream, SendStream};
use http::{HeaderValue, header};

use super::client::Client;
use super::identity::Identities;
use crate::shard::ShardState;

/// When to ask again for a site without a connection point.
const RETRY_AFTER_S: u32 = 5;

/// A request that may pass, with the stream that will carry it.
pub(super) struct Admitted {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) body: BodyReader,
    /// How long the role may take to begin its answer; no limit for a held mapping.
    pub(super) response_timeout: Option<Duration>,
}

/// Checks a request and opens its stream. The head gets the fields that the gateway alone writes.
///
/// # Errors
///
/// Why the request does not pass.
pub(super) async fn admit(
    state: &ShardState,
    client: &Client,
    identities: &mut Identities,
    request: &mut Request,
) -> Result<Admitted, Box<Refusal>> {
    let refuse = |reason| Refusal::by_gateway(reason);
    let table = state.instance.sites.table();
    let Some(mapping) = table.lookup(&request.head.target) else {
        let path = request.head.target.path();
        return Err(Box::new(refuse(Reason::NoMapping).with_details(format!("path {path}"))));
    };
    let (route, mapped) = (&mapping.route, &mapping.value);
    mapped.requests.fetch_add(1, Ordering::Relaxed);
    let no_host = HeaderValue::from_static("");
    let host = request.head.fields.get(header::HOST).unwrap_or(&no_host);
    let fields: IdentityFields =
        identities.fields(client, route.authentication(), &mapped.site, host)?;
    if !route.allows(&request.head.method) {
        let refusal = refuse(Reason::MethodNotAllowed).with_allow(route.allow().clone());
        return Err(Box::new(refusal));
    }
    let body = BodyReader::new(request.body, route.max_body_bytes()).map_err(|error| {
        let limit = route.max_body_bytes();
        Box::new(Refusal::from(&error).with_details(format!("at most {limit} bytes are allowed")))
    })?;
    fields.set(&mut request.head.fields);
    ensure_traceparent(&mut request.head.fields, || {
        let mut random = [0; 24];
        fastrand::fill(&mut random);
        random
    });
    let (site, response_timeout) = (mapped.site.code.clone(), route.response_timeout());
    drop(table);
    let opening = state.router.open(&site, state.instance.timeouts.admission);
    let (send, recv) = opening.await.map_err(|why| {
        let details = format!("site {site}: {why}");
        let refusal = refuse(Reason::NoConnectionPoint).with_details(details);
        Box::new(refusal.with_retry_after_s(RETRY_AFTER_S))
    })?;
    Ok(Admitted { send, recv, body, response_timeout })
}
