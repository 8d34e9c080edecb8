//! Request heads as HTTP/2 has them, held to the rules of [`h1`](crate::h1).
//!
//! Whoever decoded the frames has checked what RFC 9113 wants: pseudo-fields, lower-case names, no
//! field of the connection, `Content-Length` against the frames. What is left are the limits and
//! the rules that make a request mean the same to gateway, connection point and role.

use http::{HeaderMap, HeaderValue, Uri, header, request};

use crate::h1::field_lines::Fields;
use crate::h1::{BodyLength, MAX_FIELDS, MAX_HEAD_BYTES, Request};
use crate::head::{HeadError, RequestHead, method_of};
use crate::target::{Target, TargetError};

/// Bytes that a field line of HTTP/1.1 has beside name and value.
const LINE_BYTES: usize = 4;

/// Reads a request head. `ends` says that nothing follows it.
///
/// The parts become what the same request would be in HTTP/1.1: the authority is the field `Host`,
/// several `Cookie` fields are one (RFC 9113, section 8.2.3), and a body without `Content-Length` is
/// one of undeclared length, [`BodyLength::Chunked`].
///
/// # Errors
///
/// [`HeadError`]: answer with its [`reason`](HeadError::reason). Other requests of the connection
/// are not touched by it.
pub fn request(parts: request::Parts, ends: bool) -> Result<Request, HeadError> {
    let request::Parts { method, uri, headers, .. } = parts;
    let method = method_of(method.as_str())?;
    let raw = uri.path_and_query().map(|target| target.as_str());
    let target = Target::parse(raw.ok_or(TargetError::Form)?)?;
    check_limits(&headers, method.as_str().len() + target.as_str().len())?;
    let mut fields = Fields::new(headers.len() + 1);
    if !headers.contains_key(header::HOST)
        && let Some(host) = host_of(&uri)
    {
        fields.add(header::HOST, host)?;
    }
    let mut current = None;
    for (name, value) in headers {
        current = name.or(current);
        if let Some(name) = &current {
            fields.add(name.clone(), value)?;
        }
    }
    fields.check_host(uri.authority().map(http::uri::Authority::as_str))?;
    let body = match fields.body()? {
        BodyLength::Empty if !ends => BodyLength::Chunked,
        body => body,
    };
    let has_body = !matches!(body, BodyLength::Empty | BodyLength::Exact(0));
    join_cookies(&mut fields.kept)?;
    Ok(Request {
        body,
        close: false,
        expects_continue: fields.expects_continue && has_body,
        head: RequestHead { method, target, fields: fields.kept },
    })
}

/// A head of HTTP/2 may be as large as one of HTTP/1.1 that says the same.
fn check_limits(headers: &HeaderMap, request_line_bytes: usize) -> Result<(), HeadError> {
    if headers.len() > MAX_FIELDS {
        return Err(HeadError::TooManyFields { limit: MAX_FIELDS });
    }
    let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + LINE_BYTES);
    if request_line_bytes + lines.sum::<usize>() > MAX_HEAD_BYTES {
        return Err(HeadError::TooLarge { limit_bytes: MAX_HEAD_BYTES });
    }
    Ok(())
}

fn host_of(uri: &Uri) -> Option<HeaderValue> {
    uri.authority().and_then(|authority| HeaderValue::try_from(authority.as_str()).ok())
}

fn join_cookies(kept: &mut HeaderMap) -> Result<(), HeadError> {
    if kept.get_all(header::COOKIE).iter().nth(1).is_none() {
        return Ok(());
    }
    let values: Vec<_> = kept.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&values.join(&b"; "[..]))
        .map_err(|_| HeadError::Malformed("the field Cookie is malformed"))?;
    kept.insert(header::COOKIE, joined);
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request as HttpRequest;

    use super::*;
    use crate::refusal::Reason;

    fn read(uri: &str, lines: &[(&str, &str)], ends: bool) -> Result<Request, HeadError> {
        let mut builder = HttpRequest::builder().method("POST").uri(uri);
        for &(name, value) in lines {
            builder = builder.header(name, value);
        }
        request(builder.body(()).expect("a request").into_parts().0, ends)
    }

    #[test]
    fn a_request_means_what_it_would_mean_in_http_1_1() {
        let lines = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("te", "trailers")];
        let request = read("https://h:8443/a/../%62?c", &lines, false).expect("valid");
        assert_eq!(request.head.target.as_str(), "/b?c");
        assert_eq!(request.head.fields["host"], "h:8443");
        assert_eq!(request.head.fields["cookie"], "a=1; b=2");
        assert!(!request.head.fields.contains_key("te"));
        assert_eq!((request.body, request.close), (BodyLength::Chunked, false));
        let declared = read("https://h/", &[("content-length", "3")], false).expect("valid");
        assert_eq!(declared.body, BodyLength::Exact(3));
        assert_eq!(read("https://h/", &[], true).expect("valid").body, BodyLength::Empty);
    }

    #[test]
    fn forged_identities_are_not_kept() {
        let lines = [("client-cert", ":AA==:"), ("forwarded", "for=x"), ("cmgmux-identity", "r")];
        let request = read("https://h/", &lines, true).expect("valid");
        assert_eq!(request.head.fields.len(), 1);
    }

    #[test]
    fn limits_and_refusals_are_those_of_http_1_1() {
        let long = "x".repeat(17_000);
        let many: Vec<(String, &str)> = (0..101).map(|i| (format!("x-{i}"), "1")).collect();
        let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let long_target = format!("https://h/{}", "a".repeat(9_000));
        for (uri, lines, reason) in [
            ("https://h/", &[("x", long.as_str())][..], Reason::HeadTooLarge),
            ("https://h/", &many[..], Reason::HeadTooLarge),
            (long_target.as_str(), &[], Reason::TargetTooLong),
            ("https://h/a%2fb", &[], Reason::BadTarget),
            ("https://h/", &[("host", "other")], Reason::BadHead),
            ("https://u@h/", &[], Reason::BadHead),
            ("/", &[], Reason::BadHead),
            ("https://h/", &[("expect", "wonders")], Reason::ExpectationFailed),
            ("https://h/", &[("content-length", "x")], Reason::AmbiguousFraming),
        ] {
            let refused = read(uri, lines, true).expect_err("refused");
            assert_eq!(refused.reason(), reason, "{uri} {lines:?}");
        }
    }
}
