//! Whether and how a request goes to a role: the same questions that the gateway asked, asked again.

use cmgmux_exchange::fields::{self, CMGMUX_IDENTITY, Identity, IdentityKind};
use cmgmux_exchange::head::RequestHead;
use cmgmux_exchange::mapping::{Authentication, Entry, MappingTable};
use cmgmux_exchange::refusal::{Reason, Refusal};
use http::{HeaderMap, Method, Uri, header};

use super::Destination;

/// A request that goes to a role.
pub(super) struct Admitted {
    pub(super) destination: Destination,
    pub(super) method: Method,
    /// As the role gets it: a path with its query.
    pub(super) target: Uri,
    /// As the role gets them.
    pub(super) fields: HeaderMap,
    /// The request asks to switch protocols: what follows the head is for afterwards.
    pub(super) asks_to_switch: bool,
    pub(super) declared_bytes: Option<u64>,
    pub(super) max_body_bytes: u64,
    pub(super) response_timeout: Option<std::time::Duration>,
}

/// Checks a request head and brings it into the form for its role.
///
/// `Host` becomes the role's own, so that virtual hosts work; the one that the client asked for is in
/// `Forwarded`.
pub(super) fn admit(
    table: &MappingTable<Destination>,
    head: RequestHead,
) -> Result<Admitted, Refusal> {
    let refuse = Refusal::by_connection_point;
    let Some(Entry { route, value: destination }) = table.lookup(&head.target) else {
        return Err(refuse(Reason::NoMapping));
    };
    if route.authentication() == Authentication::Certificate && !has_certificate(&head.fields) {
        return Err(refuse(Reason::IdentityRefused)
            .with_details("the mapping demands a certificate and the gateway vouches for none"));
    }
    if !route.allows(&head.method) {
        return Err(refuse(Reason::MethodNotAllowed).with_allow(route.allow().clone()));
    }
    let internal =
        |error: &dyn std::fmt::Display| refuse(Reason::Internal).with_details(error.to_string());
    let declared_bytes = fields::content_length(&head.fields).map_err(|error| internal(&error))?;
    let max_body_bytes = route.max_body_bytes();
    if declared_bytes.is_some_and(|bytes| bytes > max_body_bytes) {
        let details = format!("the limit is {max_body_bytes} bytes");
        return Err(refuse(Reason::BodyTooLarge).with_details(details));
    }
    let asks_to_switch = head.asks_to_switch();
    let target = route.rewrite(&head.target).map_err(|error| internal(&error))?;
    let mut fields = head.fields;
    // The gateway has met the expectation; the body follows in any case.
    fields.remove(header::EXPECT);
    fields.insert(header::HOST, destination.upstream.host_field().clone());
    Ok(Admitted {
        destination: destination.clone(),
        method: head.method,
        target,
        fields,
        asks_to_switch,
        declared_bytes,
        max_body_bytes,
        response_timeout: route.response_timeout(),
    })
}

/// Whether the gateway knows the client by a certificate.
fn has_certificate(fields: &HeaderMap) -> bool {
    fields
        .get(CMGMUX_IDENTITY)
        .and_then(|value| Identity::from_field(value).ok())
        .is_some_and(|identity| identity.kind == IdentityKind::Certificate)
}
