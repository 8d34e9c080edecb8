//! A request target in its one canonical form.
//!
//! The same text decides the mapping, is checked by both ends and is forwarded, so two spellings of
//! one path must never differ in meaning. See [`Target`] for the rules.

mod path;

/// The longest request target that is accepted, in bytes, as sent and in canonical form.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;

/// A request target: an absolute canonical path and, unchanged, the query.
///
/// In the path, escapes of unreserved characters are decoded, the hexadecimal digits of all others
/// are upper case, characters that RFC 3986 does not allow raw (such as `{`) are escaped, and dot
/// segments are removed, escaped ones too. Empty segments and letter case stay. Parsing the
/// canonical form again gives the same form.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Target {
    text: Box<str>,
    path_bytes: usize,
}

impl Target {
    /// Reads a target in origin-form (`/path?query`).
    ///
    /// # Errors
    ///
    /// [`TargetError`] says which rule the target breaks.
    pub fn parse(raw: &str) -> Result<Self, TargetError> {
        if raw.len() > MAX_TARGET_BYTES {
            return Err(TargetError::TooLong);
        }
        if !raw.starts_with('/') {
            return Err(TargetError::Form);
        }
        let (path, query) = match raw.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (raw, None),
        };
        if let Some(query) = query {
            check_query(query)?;
        }
        if path::is_canonical(path) {
            return Ok(Self { text: raw.into(), path_bytes: path.len() });
        }
        let mut text = String::with_capacity(raw.len() + 16);
        path::canonicalise(path, &mut text)?;
        let path_bytes = text.len();
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        if text.len() > MAX_TARGET_BYTES {
            return Err(TargetError::TooLong);
        }
        Ok(Self { text: text.into_boxed_str(), path_bytes })
    }

    /// Reads the target of a request line: origin-form, or absolute-form (`https://host/path`) of
    /// the schemes http and https. Gives the authority of an absolute-form as it was sent.
    ///
    /// The asterisk-form and the authority-form name no path and are refused.
    ///
    /// # Errors
    ///
    /// [`TargetError`] says which rule the target breaks.
    pub fn parse_request(raw: &str) -> Result<(Self, Option<&str>), TargetError> {
        if raw.starts_with('/') {
            return Ok((Self::parse(raw)?, None));
        }
        let (scheme, rest) = raw.split_once("://").ok_or(TargetError::Form)?;
        if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
            return Err(TargetError::Form);
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.is_empty() || authority.contains('@') {
            return Err(TargetError::Authority);
        }
        let target = if target.starts_with('/') {
            Self::parse(target)?
        } else {
            Self::parse(&format!("/{target}"))?
        };
        Ok((target, Some(authority)))
    }

    /// The canonical path. Starts with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[..self.path_bytes]
    }

    /// The query without its `?`, byte for byte as the client sent it.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_bytes + 1..)
    }

    /// The whole target in origin-form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A request target that is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Neither a path nor an absolute http or https URL.
    #[error("it is neither an absolute path nor an http or https URL")]
    Form,
    /// The authority of an absolute URL is empty or names a user.
    #[error("its authority is empty or names a user")]
    Authority,
    /// Longer than [`MAX_TARGET_BYTES`].
    #[error("it is longer than {MAX_TARGET_BYTES} bytes")]
    TooLong,
    /// A byte that must not appear as it is.
    #[error("it holds the byte {0:#04x}, which must not appear raw")]
    Byte(u8),
    /// An escape of a separator or a control character, which readers understand differently.
    #[error("it holds an escape of the byte {0:#04x}, which must not appear even escaped")]
    EscapedByte(u8),
    /// A `%` that two hexadecimal digits do not follow.
    #[error("it holds a % without two hexadecimal digits")]
    Escape,
    /// Dot segments that lead above the root.
    #[error("its dot segments lead above the root")]
    AboveRoot,
}

/// Accepts what RFC 3986 allows and the characters that clients send raw in spite of it, as far as
/// `http::Uri` can carry them.
fn check_query(query: &str) -> Result<(), TargetError> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>');
    match query.bytes().find(|&byte| !allowed(byte)) {
        None => Ok(()),
        Some(byte) => Err(TargetError::Byte(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(raw: &str) -> Result<String, TargetError> {
        Target::parse(raw).map(|target| target.as_str().to_owned())
    }

    #[test]
    fn equal_paths_have_one_spelling() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/%41%2d%7e%5F", "/A-~_"),
            ("/%c3%a9", "/%C3%A9"),
            ("/CCM_Incoming/{1-2}", "/CCM_Incoming/%7B1-2%7D"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/.", "/"),
            ("/a//b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("/a/...", "/a/..."),
            ("/a/.b", "/a/.b"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/a;x=1/b", "/a;x=1/b"),
        ] {
            assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn dangerous_paths_are_refused() {
        for (raw, expected) in [
            ("", TargetError::Form),
            ("a", TargetError::Form),
            ("*", TargetError::Form),
            ("/..", TargetError::AboveRoot),
            ("/a/../..", TargetError::AboveRoot),
            ("/%2e%2e/a", TargetError::AboveRoot),
            ("/a%2Fb", TargetError::EscapedByte(b'/')),
            ("/a%2fb", TargetError::EscapedByte(b'/')),
            ("/a%5cb", TargetError::EscapedByte(b'\\')),
            ("/a%00", TargetError::EscapedByte(0)),
            ("/a%0d%0a", TargetError::EscapedByte(b'\r')),
            ("/a%7f", TargetError::EscapedByte(0x7f)),
            ("/a\\b", TargetError::Byte(b'\\')),
            ("/a b", TargetError::Byte(b' ')),
            ("/a\u{1}", TargetError::Byte(1)),
            ("/é", TargetError::Byte(0xc3)),
            ("/a#b", TargetError::Byte(b'#')),
            ("/a?b#c", TargetError::Byte(b'#')),
            ("/a?b c", TargetError::Byte(b' ')),
            ("/a%", TargetError::Escape),
            ("/a%2", TargetError::Escape),
            ("/a%zz", TargetError::Escape),
            ("/a%+1", TargetError::Escape),
        ] {
            assert_eq!(canonical(raw), Err(expected), "{raw}");
        }
    }

    #[test]
    fn the_query_passes_byte_for_byte() {
        let target = Target::parse("/a/../b?x=%2e%2E/..&{y}=%zz?").expect("accepted");
        assert_eq!((target.path(), target.query()), ("/b", Some("x=%2e%2E/..&{y}=%zz?")));
        let empty = Target::parse("/a?").expect("accepted");
        assert_eq!((empty.path(), empty.query(), empty.as_str()), ("/a", Some(""), "/a?"));
        assert_eq!(Target::parse("/a").expect("accepted").query(), None);
    }

    #[test]
    fn absolute_urls_lose_scheme_and_authority() {
        let (target, authority) =
            Target::parse_request("HTTPS://Host:443/a/./b?c").expect("accepted");
        assert_eq!((target.as_str(), authority), ("/a/b?c", Some("Host:443")));
        let (target, authority) = Target::parse_request("http://h?c").expect("accepted");
        assert_eq!((target.as_str(), authority), ("/?c", Some("h")));
        for raw in ["ftp://h/", "https:///a", "https://u@h/", "h:443", "*", "https://h#f"] {
            assert!(Target::parse_request(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn length_is_bounded_before_and_after_escaping() {
        let longest = format!("/{}", "a".repeat(MAX_TARGET_BYTES - 1));
        assert!(Target::parse(&longest).is_ok());
        assert_eq!(canonical(&format!("{longest}a")), Err(TargetError::TooLong));
        let grows = format!("/{}", "{".repeat(MAX_TARGET_BYTES / 2));
        assert_eq!(canonical(&grows), Err(TargetError::TooLong));
    }
}
