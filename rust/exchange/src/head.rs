//! Request and response heads, and their form on a stream.
//!
//! On a stream a head has the shape of HTTP/1.1: a start line and fields, each line ended by CR LF,
//! and an empty line. It carries no hop-by-hop field and no `Transfer-Encoding`, but for the wish
//! and the consent to switch to WebSocket, `Upgrade: websocket`; `Content-Length` is kept, and
//! checked by [`parts`](crate::parts).

mod decode;
mod error;

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};

pub use self::decode::decode_trailers;
pub(crate) use self::decode::{TRAILER_LIMITS, check_complete, field, for_each_trailer, method_of};
pub use self::error::HeadError;
use crate::fields;
use crate::target::Target;

/// The longest head on a stream, in bytes.
pub const MAX_STREAM_HEAD_BYTES: usize = 32 * 1024;
/// The most field lines in a head on a stream.
pub const MAX_STREAM_FIELDS: usize = 128;
/// The longest trailer section, in bytes.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;
/// The most field lines in a trailer section.
pub const MAX_TRAILER_FIELDS: usize = 32;

/// Whether a request with this method may be sent twice without harm: it is safe (RFC 9110, section
/// 9.2.1; PROPFIND: RFC 4918, section 9.1).
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || method.as_str() == "PROPFIND"
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestHead {
    /// The method, with regard to letter case.
    pub method: Method,
    /// The target in canonical form.
    pub target: Target,
    /// The end-to-end fields, `Host` and `Content-Length` among them.
    pub fields: HeaderMap,
}

/// What a role answers.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseHead {
    /// The status, interim ones included.
    pub status: StatusCode,
    /// The end-to-end fields, `Content-Length` among them.
    pub fields: HeaderMap,
}

impl RequestHead {
    /// Whether it asks to switch to WebSocket: a GET with the field `Upgrade`, which a head has only
    /// then. What follows it on the stream is no body, but the bytes of the new protocol once the
    /// answer is 101.
    #[must_use]
    pub fn asks_to_switch(&self) -> bool {
        self.method == Method::GET && self.fields.contains_key(header::UPGRADE)
    }

    /// Appends the form on a stream to `out`.
    ///
    /// # Errors
    ///
    /// [`HeadError::TooLarge`] or [`HeadError::TooManyFields`] over the limits of a stream,
    /// [`HeadError::HopByHop`] for a field that must not travel, [`HeadError::Repeated`] for one that is
    /// there more than once and must not be. `out` is unchanged then.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), HeadError> {
        encode(out, &self.fields, |out| {
            out.put_slice(self.method.as_str().as_bytes());
            out.put_u8(b' ');
            out.put_slice(self.target.as_str().as_bytes());
            out.put_slice(b" HTTP/1.1\r\n");
        })
    }
}

impl ResponseHead {
    /// A head without fields.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { status, fields: HeaderMap::new() }
    }

    /// Appends the form on a stream to `out`.
    ///
    /// # Errors
    ///
    /// As [`RequestHead::encode`].
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), HeadError> {
        encode(out, &self.fields, |out| put_status_line(out, self.status))
    }
}

/// Appends a trailer section, its empty line included, to `out`.
///
/// # Errors
///
/// [`HeadError::TooLarge`], [`HeadError::TooManyFields`] over the limits of trailers,
/// [`HeadError::NotInTrailers`] for a field that must not be a trailer. `out` is unchanged then.
pub fn encode_trailers(trailers: &HeaderMap, out: &mut BytesMut) -> Result<(), HeadError> {
    if trailers.len() > MAX_TRAILER_FIELDS {
        return Err(HeadError::TooManyFields { limit: MAX_TRAILER_FIELDS });
    }
    if let Some(name) = trailers.keys().find(|name| !fields::may_be_trailer(name)) {
        return Err(HeadError::NotInTrailers(name.clone()));
    }
    let start = out.len();
    put_fields(out, trailers);
    out.put_slice(b"\r\n");
    truncate_over_limit(out, start, MAX_TRAILER_BYTES)
}

pub(crate) fn put_status_line(out: &mut BytesMut, status: StatusCode) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.put_slice(b"\r\n");
}

pub(crate) fn put_fields(out: &mut BytesMut, fields: &HeaderMap) {
    for (name, value) in fields {
        put_field(out, name.as_str(), value.as_bytes());
    }
}

pub(crate) fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

fn encode(
    out: &mut BytesMut,
    fields: &HeaderMap,
    put_start_line: impl FnOnce(&mut BytesMut),
) -> Result<(), HeadError> {
    if fields.len() > MAX_STREAM_FIELDS {
        return Err(HeadError::TooManyFields { limit: MAX_STREAM_FIELDS });
    }
    if let Some((name, _)) = fields.iter().find(|(name, value)| fields::stays_behind(name, value)) {
        return Err(HeadError::HopByHop(name.clone()));
    }
    let repeated = |name: &&HeaderName| fields.get_all(*name).iter().nth(1).is_some();
    if let Some(name) = fields.keys().filter(|name| fields::is_single(name)).find(repeated) {
        return Err(HeadError::Repeated(name.clone()));
    }
    let start = out.len();
    put_start_line(out);
    put_fields(out, fields);
    out.put_slice(b"\r\n");
    truncate_over_limit(out, start, MAX_STREAM_HEAD_BYTES)
}

fn truncate_over_limit(
    out: &mut BytesMut,
    start: usize,
    limit_bytes: usize,
) -> Result<(), HeadError> {
    if out.len() - start > limit_bytes {
        out.truncate(start);
        return Err(HeadError::TooLarge { limit_bytes });
    }
    Ok(())
}
