//! `Forwarded` (RFC 7239): the client's address, the scheme and the host it asked for.

use std::net::IpAddr;

use http::HeaderValue;

use super::push_string;

/// The value of `Forwarded` for a request of `client` over HTTPS to `host`, which is the value of
/// its `Host` field.
///
/// Bytes of `host` that cannot be in a quoted string are replaced by `?`; a `Host` that the client
/// front accepts has none.
#[must_use]
pub fn forwarded(client: IpAddr, host: &HeaderValue) -> HeaderValue {
    let mut text = String::with_capacity(64 + host.len());
    match client.to_canonical() {
        IpAddr::V4(address) => text.push_str(&format!("for={address}")),
        IpAddr::V6(address) => text.push_str(&format!("for=\"[{address}]\"")),
    }
    text.push_str(";proto=https;host=");
    match host.to_str() {
        Ok(host) if is_token(host) => text.push_str(host),
        Ok(host) => push_string(&mut text, host),
        Err(_) => push_string(&mut text, "?"),
    }
    // Only printable ASCII was put in.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(client: &str, host: &'static str) -> HeaderValue {
        forwarded(client.parse().expect("an address"), &HeaderValue::from_static(host))
    }

    #[test]
    fn what_is_no_token_is_quoted() {
        assert_eq!(
            value("192.0.2.43", "cmg.example"),
            "for=192.0.2.43;proto=https;host=cmg.example"
        );
        assert_eq!(
            value("2001:db8::17", "cmg.example:8443"),
            "for=\"[2001:db8::17]\";proto=https;host=\"cmg.example:8443\""
        );
        assert_eq!(value("192.0.2.1", "a\";b\\"), r#"for=192.0.2.1;proto=https;host="a\";b\\""#);
    }

    #[test]
    fn a_mapped_address_is_shown_as_the_one_it_is() {
        assert_eq!(value("::ffff:192.0.2.43", "h"), "for=192.0.2.43;proto=https;host=h");
    }
}
