//! Every error answer that cmgmux itself makes.
//!
//! Each says in `Proxy-Status` (RFC 9209) where it comes from, and in a small text what happened,
//! where, and what to do. Roles' own error answers pass as they are.

mod reason;

use bytes::Bytes;
use http::{HeaderValue, header};

pub use self::reason::Reason;
use crate::fields::{PROXY_STATUS, push_string};
use crate::head::{HeadError, ResponseHead};
use crate::text::cut;
use crate::{code, h1};

/// The longest `details` of a refusal, in bytes; what is longer is cut.
pub const MAX_DETAILS_BYTES: usize = 256;

/// Who makes an error answer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Origin {
    /// The gateway.
    Gateway,
    /// The connection point.
    ConnectionPoint,
}

impl Origin {
    /// The name in `Proxy-Status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "cmgmux-gateway",
            Self::ConnectionPoint => "cmgmux-connection-point",
        }
    }
}

/// An error answer: a [`Reason`], who gives it, and the facts of the case.
#[derive(Clone, Debug)]
pub struct Refusal {
    origin: Origin,
    reason: Reason,
    details: String,
    allow: Option<HeaderValue>,
    retry_after_s: Option<u32>,
}

impl Refusal {
    /// A refusal without further facts. Reasons that pass by themselves ask the client to try again
    /// after a second.
    #[must_use]
    pub fn new(origin: Origin, reason: Reason) -> Self {
        let retry_after_s = reason.is_temporary().then_some(1);
        Self { origin, reason, details: String::new(), allow: None, retry_after_s }
    }

    /// A refusal by the gateway.
    #[must_use]
    pub fn by_gateway(reason: Reason) -> Self {
        Self::new(Origin::Gateway, reason)
    }

    /// A refusal by the connection point.
    #[must_use]
    pub fn by_connection_point(reason: Reason) -> Self {
        Self::new(Origin::ConnectionPoint, reason)
    }

    /// A refusal by the gateway because the exchange's stream ended with `stream_code` before there
    /// was an answer.
    #[must_use]
    pub fn of_stream_code(stream_code: u32) -> Self {
        let reason = match stream_code {
            mux_code::REFUSED => Reason::ConnectionPointBusy,
            mux_code::SLOW_CONSUMER | mux_code::CHANNEL_LOST => Reason::ConnectionPointLost,
            code::ROLE_BROKEN => Reason::RoleBrokeOff,
            code::TIMED_OUT => Reason::RoleSilent,
            code::BODY_TOO_LARGE => Reason::BodyTooLarge,
            code::BAD_HEAD | code::BODY_MISMATCH | code::BAD_PARTS => {
                Reason::ConnectionPointBadAnswer
            }
            _ => Reason::ConnectionPointFailed,
        };
        Self::by_gateway(reason).with_details(format!("the stream ended with code {stream_code}"))
    }

    /// Adds the facts of the case in words: lower case, no secrets. Outside printable ASCII a
    /// character becomes `?`.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        cut(&mut self.details, MAX_DETAILS_BYTES);
        self
    }

    /// Adds the value of `Allow`.
    #[must_use]
    pub fn with_allow(mut self, allow: HeaderValue) -> Self {
        self.allow = Some(allow);
        self
    }

    /// Sets when to try again, in seconds from now.
    #[must_use]
    pub fn with_retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Who gives the answer.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The facts of the case; may be empty.
    #[must_use]
    pub fn details(&self) -> &str {
        &self.details
    }

    /// The answer: a head with `Content-Length`, and the body that belongs to it. In answer to HEAD
    /// only the head is sent.
    #[must_use]
    pub fn response(&self) -> (ResponseHead, Bytes) {
        let body = self.body();
        let mut head = ResponseHead::new(self.reason.status());
        let fields = &mut head.fields;
        fields.reserve(6);
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        fields.insert(PROXY_STATUS, self.proxy_status());
        if let Some(allow) = &self.allow {
            fields.insert(header::ALLOW, allow.clone());
        }
        if let Some(seconds) = self.retry_after_s {
            fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        (head, body)
    }

    fn proxy_status(&self) -> HeaderValue {
        let details = if self.details.is_empty() { self.reason.summary() } else { &self.details };
        let mut text = String::with_capacity(80 + details.len());
        text.push_str(self.origin.name());
        text.push_str("; error=");
        text.push_str(self.reason.error_type());
        text.push_str("; details=");
        push_string(&mut text, details);
        // Only printable ASCII was put in.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("cmgmux"))
    }

    fn body(&self) -> Bytes {
        let (status, reason) = (self.reason.status(), self.reason);
        let mut text = format!(
            "{status}\n\n{} ({}) says: {}",
            self.origin.name(),
            reason.code(),
            reason.summary()
        );
        if !self.details.is_empty() {
            text.push_str(": ");
            text.extend(
                self.details.chars().map(|char| if char.is_control() { '?' } else { char }),
            );
        }
        text.push_str(".\n");
        text.push_str(reason.remedy());
        text.push('\n');
        text.into()
    }
}

impl From<&HeadError> for Refusal {
    /// The gateway's answer to a request head.
    fn from(error: &HeadError) -> Self {
        let details = match error {
            HeadError::Target(cause) => format!("{error}: {cause}"),
            _ => error.to_string(),
        };
        Self::by_gateway(error.reason()).with_details(details)
    }
}

impl From<&h1::BodyError> for Refusal {
    /// The gateway's answer to a request body.
    fn from(error: &h1::BodyError) -> Self {
        Self::by_gateway(error.reason()).with_details(error.to_string())
    }
}

/// The multiplexer's own codes that say something about the exchange.
mod mux_code {
    pub(super) const REFUSED: u32 = 2;
    pub(super) const SLOW_CONSUMER: u32 = 3;
    pub(super) const CHANNEL_LOST: u32 = 4;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(head: &'a ResponseHead, name: &str) -> &'a str {
        head.fields[name].to_str().expect("ASCII")
    }

    #[test]
    fn every_answer_says_where_why_and_what_to_do() {
        for origin in [Origin::Gateway, Origin::ConnectionPoint] {
            for &reason in Reason::ALL {
                let refusal = Refusal::new(origin, reason).with_details("fact\r\nü \"x\"");
                let (head, body) = refusal.response();
                let status = field(&head, "proxy-status");
                assert!(status.starts_with(origin.name()), "{status}");
                assert!(status.contains(reason.error_type()), "{status}");
                assert!(status.ends_with("details=\"fact??? \\\"x\\\"\""), "{status}");
                assert_eq!(field(&head, "content-length"), body.len().to_string());
                let body = std::str::from_utf8(&body).expect("UTF-8");
                for part in [reason.code(), reason.summary(), reason.remedy(), "fact??ü \"x\""] {
                    assert!(body.contains(part), "{body}");
                }
                assert_eq!(head.fields.contains_key("retry-after"), reason.is_temporary());
                let mut wire = bytes::BytesMut::new();
                assert!(head.encode(&mut wire).is_ok());
            }
        }
    }

    #[test]
    fn method_and_time_of_the_next_attempt_are_given() {
        let refusal = Refusal::by_gateway(Reason::MethodNotAllowed)
            .with_allow(HeaderValue::from_static("GET, HEAD"));
        assert_eq!(field(&refusal.response().0, "allow"), "GET, HEAD");
        let refusal = Refusal::by_gateway(Reason::NoConnectionPoint).with_retry_after_s(30);
        assert_eq!(field(&refusal.response().0, "retry-after"), "30");
    }

    #[test]
    fn details_are_bounded() {
        let refusal = Refusal::by_gateway(Reason::BadHead).with_details("ü".repeat(1000));
        assert_eq!(refusal.details().len(), MAX_DETAILS_BYTES);
        let refusal = Refusal::by_gateway(Reason::BadHead).with_details("€".repeat(1000));
        assert_eq!(refusal.details().len(), MAX_DETAILS_BYTES - 1);
    }

    #[test]
    fn stream_codes_become_the_reason_a_client_can_use() {
        for (stream_code, reason) in [
            (mux_code::REFUSED, Reason::ConnectionPointBusy),
            (mux_code::CHANNEL_LOST, Reason::ConnectionPointLost),
            (code::ROLE_BROKEN, Reason::RoleBrokeOff),
            (code::TIMED_OUT, Reason::RoleSilent),
            (code::BAD_HEAD, Reason::ConnectionPointBadAnswer),
            (0xffff_ffff, Reason::ConnectionPointFailed),
        ] {
            assert_eq!(Refusal::of_stream_code(stream_code).reason(), reason, "{stream_code}");
        }
    }
}
