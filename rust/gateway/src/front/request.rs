//! What a request head must have to pass: mapping, authentication, method, body, site.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cmgmux_exchange::fields::{IdentityFields, ensure_traceparent};
use cmgmux_exchange::h1::{BodyError, BodyLength, Request};
use cmgmux_exchange::refusal::{Reason, Refusal};
use http::{HeaderValue, header};

use super::identity::{Identities, Visitor};
use crate::router::Opened;
use crate::shard::ShardState;
use crate::sites::Site;

/// When to ask again for a site without a connection point.
const RETRY_AFTER_S: u32 = 5;

/// The terms on which a request passes.
pub(super) struct Admitted {
    pub(super) site: Arc<Site>,
    /// The longest body.
    pub(super) max_body_bytes: u64,
    /// How long the role may take to begin its answer; no limit for a held mapping.
    pub(super) response_timeout: Option<Duration>,
}

/// Checks a request. Its head gets the fields that the gateway alone writes.
///
/// # Errors
///
/// Why the request does not pass.
pub(super) fn admit(
    state: &ShardState,
    visitor: Visitor<'_>,
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
        identities.fields(visitor, route.authentication(), &mapped.site, host)?;
    if !route.allows(&request.head.method) {
        let refusal = refuse(Reason::MethodNotAllowed).with_allow(route.allow().clone());
        return Err(Box::new(refusal));
    }
    let max_body_bytes = route.max_body_bytes();
    if matches!(request.body, BodyLength::Exact(bytes) if bytes > max_body_bytes) {
        let details = format!("at most {max_body_bytes} bytes are allowed");
        return Err(Box::new(Refusal::from(&BodyError::TooLarge).with_details(details)));
    }
    fields.set(&mut request.head.fields);
    ensure_traceparent(&mut request.head.fields, || {
        let mut random = [0; 24];
        fastrand::fill(&mut random);
        random
    });
    let (site, response_timeout) = (Arc::clone(&mapped.site), route.response_timeout());
    Ok(Admitted { site, max_body_bytes, response_timeout })
}

/// Opens the stream of a request to a connection point of its site.
///
/// # Errors
///
/// None takes one within the admission timeout.
pub(super) async fn open(state: &ShardState, site: &Site) -> Result<Opened, Box<Refusal>> {
    let opening = state.router.open(&site.code, state.instance.timeouts.admission);
    opening.await.map_err(|why| {
        let details = format!("site {}: {why}", site.code);
        let refusal = Refusal::by_gateway(Reason::NoConnectionPoint).with_details(details);
        Box::new(refusal.with_retry_after_s(RETRY_AFTER_S))
    })
}
