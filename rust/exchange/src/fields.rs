//! Hop-by-hop fields, and the fields that say who a client is.
//!
//! Only the gateway writes the identity fields: `Client-Cert`, `Cmgmux-Identity`, `Forwarded`.
//! Copies that a client sends are removed, with their look-alikes: `X-Forwarded-*`, `X-Real-IP`,
//! and names with `_` for `-`, which some roles cannot tell apart.

mod forwarded;
mod identity;
mod structured;
mod trace;

use http::{HeaderMap, HeaderName, HeaderValue, header};

pub use self::forwarded::forwarded;
pub use self::identity::{
    Identity, IdentityError, IdentityKind, MAX_CERTIFICATE_BYTES, MAX_NAME_BYTES, Principal,
    client_cert,
};
pub(crate) use self::structured::push_string;
pub use self::trace::ensure_traceparent;
use crate::head::HeadError;

/// The client's certificate: a structured-field byte sequence of its DER form (RFC 9440).
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
/// Who the client is, as the gateway established it: see [`Identity`].
pub const CMGMUX_IDENTITY: HeaderName = HeaderName::from_static("cmgmux-identity");
/// Where an error answer comes from (RFC 9209).
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// The position of a request in a trace (W3C Trace Context).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The one protocol that a request may ask to switch to (RFC 6455).
pub const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// What belongs to [`TRACEPARENT`] and is void without it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The fields of a request that the gateway alone writes.
#[derive(Clone, Debug)]
pub struct IdentityFields {
    /// Of a client with a certificate: the value of [`client_cert`]. Made once per connection.
    pub client_cert: Option<HeaderValue>,
    /// The value of [`Identity::to_field`]. Made once per connection.
    pub identity: HeaderValue,
    /// The value of [`forwarded`].
    pub forwarded: HeaderValue,
}

impl IdentityFields {
    /// Replaces whatever `fields` has under these names.
    pub fn set(self, fields: &mut HeaderMap) {
        match self.client_cert {
            Some(value) => fields.insert(CLIENT_CERT, value),
            None => fields.remove(CLIENT_CERT),
        };
        fields.insert(CMGMUX_IDENTITY, self.identity);
        fields.insert(header::FORWARDED, self.forwarded);
    }
}

/// Whether a field concerns one connection only and is never passed on. The name `Close` is reserved
/// (RFC 9112, section 9.6), as `Connection: close` names it.
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "close"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Whether a field must not be in a head on a stream: it is hop-by-hop, and not the wish to switch to
/// WebSocket, which gateway and connection point pass on.
pub(crate) fn stays_behind(name: &HeaderName, value: &HeaderValue) -> bool {
    is_hop_by_hop(name) && !(*name == header::UPGRADE && *value == WEBSOCKET)
}

/// Whether a field says who a client is, or could be taken for one that does.
#[must_use]
pub fn is_identity(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    if !matches!(name[0], b'c' | b'f' | b'x') {
        return false;
    }
    let begins = |wanted: &[u8]| {
        name.len() >= wanted.len()
            && name
                .iter()
                .zip(wanted)
                .all(|(&has, &wants)| has == wants || has == b'_' && wants == b'-')
    };
    let is = |wanted: &[u8]| name.len() == wanted.len() && begins(wanted);
    is(b"client-cert")
        || is(b"client-cert-chain")
        || is(b"forwarded")
        || is(b"x-real-ip")
        || begins(b"cmgmux-")
        || begins(b"x-forwarded-")
}

/// Whether a field must not be there more than once for both ends to read it alike.
#[must_use]
pub fn is_single(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host" | "content-length" | "upgrade" | "client-cert" | "cmgmux-identity" | "traceparent"
    )
}

/// Whether a field may be a trailer: not framing, routing, authentication or the body's format.
#[must_use]
pub fn may_be_trailer(name: &HeaderName) -> bool {
    let forbidden = matches!(
        name.as_str(),
        "authorization"
            | "cache-control"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "date"
            | "expect"
            | "host"
            | "location"
            | "max-forwards"
            | "range"
            | "set-cookie"
            | "traceparent"
            | "trailer"
            | "vary"
            | "www-authenticate"
    );
    !forbidden && !is_hop_by_hop(name) && !is_identity(name)
}

/// Removes the hop-by-hop fields, and those that `Connection` names. `Host` and `Content-Length`
/// stay even if named.
pub fn strip_hop_by_hop(fields: &mut HeaderMap) {
    let named: Vec<HeaderName> = fields
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(connection_options)
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    for name in named {
        fields.remove(name);
    }
    remove_where(fields, is_hop_by_hop);
}

/// Removes every field that says who a client is, or could be taken for one that does.
pub fn strip_identity(fields: &mut HeaderMap) {
    remove_where(fields, is_identity);
}

/// The length that `Content-Length` declares, if it is there.
///
/// # Errors
///
/// [`HeadError::Repeated`] if it is there twice, [`HeadError::Framing`] if it is no plain number.
pub fn content_length(fields: &HeaderMap) -> Result<Option<u64>, HeadError> {
    let mut values = fields.get_all(header::CONTENT_LENGTH).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => parse_content_length(value).map(Some),
        (Some(_), Some(_)) => Err(HeadError::Repeated(header::CONTENT_LENGTH)),
    }
}

pub(crate) fn parse_content_length(value: &HeaderValue) -> Result<u64, HeadError> {
    let digits = value.as_bytes();
    // 19 digits always fit 64 bits.
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Framing("Content-Length is not a plain decimal number"));
    }
    Ok(digits.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// Whether `Upgrade` names WebSocket among the protocols of one side.
#[must_use]
pub fn names_websocket(upgrade: &HeaderValue) -> bool {
    connection_options(upgrade).any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

/// The options of one `Connection` field, without whitespace, as they were sent.
pub(crate) fn connection_options(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}

fn remove_where(fields: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    // One name at a time, so that a map without any costs no allocation.
    while let Some(name) = fields.keys().find(|name| unwanted(name)).cloned() {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for &(name, value) in lines {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_names_go() {
        let mut fields = map(&[
            ("connection", "close, X-One"),
            ("connection", "x-two ,, content-length,host"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("content-length", "4"),
            ("host", "h"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("trailer", "digest"),
        ]);
        strip_hop_by_hop(&mut fields);
        assert_eq!(names(&fields), ["content-length", "host", "trailer", "x-three"]);
    }

    #[test]
    fn identity_fields_go_in_any_spelling() {
        let mut fields = map(&[
            ("client-cert", "a"),
            ("client_cert", "a"),
            ("client-cert-chain", "a"),
            ("cmgmux-identity", "a"),
            ("cmgmux_anything", "a"),
            ("forwarded", "a"),
            ("x-forwarded-for", "a"),
            ("x_forwarded_host", "a"),
            ("x-real-ip", "a"),
            ("ccmclientid", "a"),
            ("cmgmux", "a"),
            ("forwarded2", "a"),
            ("x-forward", "a"),
        ]);
        strip_identity(&mut fields);
        assert_eq!(names(&fields), ["ccmclientid", "cmgmux", "forwarded2", "x-forward"]);
    }

    #[test]
    fn the_gateway_writes_what_no_client_can() {
        let mut fields = map(&[("client-cert", "forged"), ("forwarded", "for=forged")]);
        IdentityFields {
            client_cert: None,
            identity: HeaderValue::from_static("anonymous"),
            forwarded: HeaderValue::from_static("for=192.0.2.1"),
        }
        .set(&mut fields);
        assert_eq!(fields.get(CLIENT_CERT), None);
        assert_eq!(fields.get_all(header::FORWARDED).iter().count(), 1);
        assert_eq!(fields[CMGMUX_IDENTITY], "anonymous");
    }

    #[test]
    fn content_length_is_a_plain_number() {
        for (value, expected) in
            [("0", 0), ("007", 7), ("9999999999999999999", 9_999_999_999_999_999_999)]
        {
            assert_eq!(content_length(&map(&[("content-length", value)])), Ok(Some(expected)));
        }
        for value in ["", "+5", "-5", "5,5", "5 5", "0x5", "5.", "10000000000000000000"] {
            assert!(content_length(&map(&[("content-length", value)])).is_err(), "{value}");
        }
        assert_eq!(content_length(&map(&[])), Ok(None));
        assert!(content_length(&map(&[("content-length", "5"), ("content-length", "5")])).is_err());
    }
}
