//! The settings of a mapping, each checked and brought into the form that requests need.

use std::time::Duration;

use http::{Method, Uri, uri};

use super::{MAX_METHODS, MAX_RESPONSE_TIMEOUT_S, MAX_SEGMENTS, MAX_URL_BYTES, MappingError};
use crate::target::Target;

/// The canonical prefix without a slash at its end; empty for the root.
pub(super) fn external(external: &str) -> Result<Box<str>, MappingError> {
    let fail = |message: String| Err(MappingError::new("external", message));
    if external.len() > MAX_URL_BYTES {
        return fail(format!("is longer than {MAX_URL_BYTES} bytes"));
    }
    let target = match Target::parse(external) {
        Ok(target) if target.query().is_none() => target,
        Ok(_) => return fail(format!("{external:?} has a query; give the path only")),
        Err(error) => {
            return fail(format!("{external:?} is no path of a URL such as /name: {error}"));
        }
    };
    let prefix = target.path().trim_end_matches('/');
    if prefix.matches('/').count() > MAX_SEGMENTS {
        return fail(format!("has more than {MAX_SEGMENTS} segments"));
    }
    Ok(prefix.into())
}

/// The scheme, the authority, and the canonical path without a slash at its end.
pub(super) fn internal(
    internal: &str,
) -> Result<(uri::Scheme, uri::Authority, Box<str>), MappingError> {
    let fail =
        |message: &str| Err(MappingError::new("internal", format!("{internal:?} {message}")));
    if internal.len() > MAX_URL_BYTES {
        return fail("is too long");
    }
    let parts = internal.parse::<Uri>().map(Uri::into_parts).unwrap_or_default();
    let Some(scheme) =
        parts.scheme.filter(|scheme| *scheme == uri::Scheme::HTTP || *scheme == uri::Scheme::HTTPS)
    else {
        return fail("is no URL such as http://host:80/path or https://host/path");
    };
    let Some(authority) = parts.authority.filter(|authority| !authority.as_str().contains('@'))
    else {
        return fail("names a user; give only host and port");
    };
    if internal.contains(['?', '#']) {
        return fail("has a query or fragment; give scheme, host, port and path only");
    }
    match Target::parse(parts.path_and_query.as_ref().map_or("/", |path| path.as_str())) {
        Ok(target) => Ok((scheme, authority, target.path().trim_end_matches('/').into())),
        Err(error) => fail(&format!("has a path that cannot be used: {error}")),
    }
}

pub(super) fn methods(methods: &[String]) -> Result<Box<[Method]>, MappingError> {
    let fail = |message: String| Err(MappingError::new("methods", message));
    if methods.is_empty() || methods.len() > MAX_METHODS {
        return fail(format!("needs 1 to {MAX_METHODS} entries, not {}", methods.len()));
    }
    let mut compiled: Vec<Method> = Vec::with_capacity(methods.len());
    for name in methods {
        match Method::from_bytes(name.as_bytes()) {
            Ok(Method::CONNECT | Method::TRACE) => {
                return fail(format!("{name} cannot pass a gateway"));
            }
            Ok(method) if compiled.contains(&method) => {
                return fail(format!("{name} is there twice"));
            }
            Ok(method) => compiled.push(method),
            Err(_) => return fail(format!("{name:?} is no method name such as GET")),
        }
    }
    Ok(compiled.into())
}

pub(super) fn timeout(seconds: f64) -> Result<Duration, MappingError> {
    if (0.001..=MAX_RESPONSE_TIMEOUT_S).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    let message = format!("is {seconds}; give 0.001 to {MAX_RESPONSE_TIMEOUT_S} seconds");
    Err(MappingError::new("response_timeout_s", format!("{message}, or set hold = true")))
}
