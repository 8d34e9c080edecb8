//! The reasons for refusals: one table from which status, error type, code and words come.

use http::StatusCode;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $error_type:literal, $code:literal,
        $summary:literal, $remedy:literal;)+) => {
        /// Why an exchange is refused. The number of a reason is its index in [`Reason::ALL`].
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The status of the answer.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)+
                }
            }

            /// The error type that RFC 9209 registers for the case.
            #[must_use]
            pub fn error_type(self) -> &'static str {
                match self {
                    $(Self::$name => $error_type,)+
                }
            }

            /// The stable code for counters and logs.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }

            /// What happened.
            #[must_use]
            pub fn summary(self) -> &'static str {
                match self {
                    $(Self::$name => $summary,)+
                }
            }

            /// What to do about it: a sentence.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Self::$name => $remedy,)+
                }
            }
        }
    };
}

reasons! {
    /// The request head is malformed.
    BadHead = BAD_REQUEST, "http_request_error", "bad-head",
        "the request head is malformed", "Send a request head as HTTP/1.1 (RFC 9112) wants it.";
    /// The request target is refused.
    BadTarget = BAD_REQUEST, "http_request_error", "bad-target",
        "the request target cannot be used",
        "Send an absolute path without escaped separators or control characters.";
    /// Readers could disagree where the request's body ends.
    AmbiguousFraming = BAD_REQUEST, "http_request_error", "ambiguous-framing",
        "the length of the request body is ambiguous",
        "Send one Content-Length, or Transfer-Encoding: chunked, or neither.";
    /// The request body is malformed.
    BadBody = BAD_REQUEST, "http_request_error", "bad-body",
        "the request body is malformed", "Send well-formed chunks (RFC 9112, section 7.1).";
    /// The request head is too large.
    HeadTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "http_request_error", "head-too-large",
        "the request head is too large", "Send fewer or shorter fields.";
    /// The request target is too long.
    TargetTooLong = URI_TOO_LONG, "http_request_error", "target-too-long",
        "the request target is too long", "Send a shorter path and query.";
    /// Another version than HTTP/1.1.
    VersionNotSupported = HTTP_VERSION_NOT_SUPPORTED, "http_request_error", "version-not-supported",
        "the version of HTTP is not supported", "Use HTTP/1.1.";
    /// An expectation other than 100-continue.
    ExpectationFailed = EXPECTATION_FAILED, "http_request_error", "expectation-failed",
        "the expectation cannot be met", "Expect 100-continue or nothing.";
    /// The request head did not come in time.
    HeadTimeout = REQUEST_TIMEOUT, "http_request_error", "head-timeout",
        "the request head did not come in time", "Send the whole head at once.";
    /// The request body stopped coming.
    BodyTimeout = REQUEST_TIMEOUT, "http_request_error", "body-timeout",
        "the request body stopped coming", "Check the connection and send the request again.";
    /// No mapping has a prefix of the path.
    NoMapping = NOT_FOUND, "destination_not_found", "no-mapping",
        "no mapping of any connected site has this path",
        "Check the path; if it is right, check that a connection point publishes its mapping.";
    /// The mapping does not list the method.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "http_request_error", "method-not-allowed",
        "the mapping does not let this method pass",
        "Use a method of the field Allow, or add this one to the mapping's methods.";
    /// The body is larger than the mapping allows.
    BodyTooLarge = PAYLOAD_TOO_LARGE, "http_request_error", "body-too-large",
        "the request body is larger than the mapping allows",
        "Send a smaller body, or raise max_body_bytes of the mapping.";
    /// The mapping demands a client certificate and there is none.
    CertificateMissing = FORBIDDEN, "http_request_denied", "certificate-missing",
        "the mapping demands a client certificate and the connection has none",
        "Connect with a certificate that the site trusts.";
    /// The client certificate does not satisfy the mapping's site.
    CertificateUntrusted = FORBIDDEN, "http_request_denied", "certificate-untrusted",
        "the client certificate is not valid for the mapping's site",
        "Connect with a certificate for clients that is valid and that the site trusts.";
    /// The connection point does not accept the identity that the gateway established.
    IdentityRefused = FORBIDDEN, "http_request_denied", "identity-refused",
        "the connection point does not accept the identity of the client",
        "Check that the mapping is the same at gateway and connection point.";
    /// No connection point of the site is connected.
    NoConnectionPoint = SERVICE_UNAVAILABLE, "destination_unavailable", "no-connection-point",
        "no connection point of the site is connected",
        "Try again later; check the site's connection points and their links if it lasts.";
    /// The connection point takes no more exchanges now.
    ConnectionPointBusy = SERVICE_UNAVAILABLE, "destination_unavailable", "connection-point-busy",
        "the connection point takes no more requests now", "Try again later.";
    /// The channel to the connection point was lost before an answer.
    ConnectionPointLost = BAD_GATEWAY, "connection_terminated", "connection-point-lost",
        "the connection to the connection point was lost before an answer",
        "Check first whether the request had its effect, then send it again.";
    /// The connection point sent what is no answer.
    ConnectionPointBadAnswer = BAD_GATEWAY, "http_protocol_error", "connection-point-bad-answer",
        "the connection point sent a malformed answer",
        "Check that gateway and connection point have the same version, and report this.";
    /// The connection point gave the exchange up.
    ConnectionPointFailed = BAD_GATEWAY, "connection_terminated", "connection-point-failed",
        "the connection point gave the request up", "See the connection point's log.";
    /// The role's name cannot be resolved.
    RoleUnresolved = BAD_GATEWAY, "dns_error", "role-unresolved",
        "the name of the role cannot be resolved",
        "Check the host in the mapping's internal URL and the resolver of the connection point.";
    /// The role refuses connections.
    RoleRefused = BAD_GATEWAY, "connection_refused", "role-refused",
        "the role refuses connections",
        "Check that the role runs, and the port in the mapping's internal URL.";
    /// The role cannot be reached for another cause.
    RoleUnreachable = BAD_GATEWAY, "destination_unavailable", "role-unreachable",
        "the role cannot be reached",
        "Check the network between connection point and role.";
    /// No connection to the role within its time.
    RoleConnectTimeout = GATEWAY_TIMEOUT, "connection_timeout", "role-connect-timeout",
        "the role did not accept a connection in time",
        "Check that the role runs and that no firewall is in the way.";
    /// The role's certificate is not accepted.
    RoleUntrusted = BAD_GATEWAY, "tls_certificate_error", "role-untrusted",
        "the role's certificate is not accepted",
        "Check the certificate of the role, and the mapping's upstream_ca and internal URL.";
    /// TLS with the role failed.
    RoleTlsFailed = BAD_GATEWAY, "tls_protocol_error", "role-tls-failed",
        "the TLS handshake with the role failed",
        "Check that the port in the mapping's internal URL speaks TLS 1.2 or 1.3.";
    /// The role's answer broke off.
    RoleBrokeOff = BAD_GATEWAY, "http_response_incomplete", "role-broke-off",
        "the role closed the connection before its answer was complete",
        "See the role's log; check first whether the request had its effect, then send it again.";
    /// The role's answer is not HTTP, or more than can be carried.
    RoleBadAnswer = BAD_GATEWAY, "http_protocol_error", "role-bad-answer",
        "the answer of the role is malformed or its head too large", "See the role's log.";
    /// The role did not answer within the mapping's time.
    RoleSilent = GATEWAY_TIMEOUT, "http_response_timeout", "role-silent",
        "the role did not answer in time",
        "Try again later; raise response_timeout_s of the mapping if the role needs longer.";
    /// A defect of cmgmux.
    Internal = INTERNAL_SERVER_ERROR, "proxy_internal_error", "internal",
        "something went wrong inside", "See the log and report this.";
}

impl Reason {
    /// The index in [`Reason::ALL`]: for a counter per reason.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether the same request can succeed a little later.
    #[must_use]
    pub fn is_temporary(self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The registry of RFC 9209, section 2.3.
    const REGISTERED: &[&str] = &[
        "dns_timeout",
        "dns_error",
        "destination_not_found",
        "destination_unavailable",
        "destination_ip_prohibited",
        "destination_ip_unroutable",
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
        "connection_read_timeout",
        "connection_write_timeout",
        "connection_limit_reached",
        "tls_protocol_error",
        "tls_certificate_error",
        "tls_alert_received",
        "http_request_error",
        "http_request_denied",
        "http_response_incomplete",
        "http_response_header_section_size",
        "http_response_header_size",
        "http_response_body_size",
        "http_response_trailer_section_size",
        "http_response_trailer_size",
        "http_response_transfer_coding",
        "http_response_content_coding",
        "http_response_timeout",
        "http_upgrade_failed",
        "http_protocol_error",
        "proxy_internal_response",
        "proxy_internal_error",
        "proxy_configuration_error",
        "proxy_loop_detected",
    ];

    #[test]
    fn error_types_are_registered_and_codes_are_unique() {
        let mut codes = HashSet::new();
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert!(REGISTERED.contains(&reason.error_type()), "{reason:?}");
            assert!(codes.insert(reason.code()), "{reason:?}");
            assert_eq!(reason.index(), index);
            assert!(reason.status().is_client_error() || reason.status().is_server_error());
        }
    }
}
