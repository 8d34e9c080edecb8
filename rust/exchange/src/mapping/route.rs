//! One mapping, checked: the terms of its use and the way from external to internal URL.

use std::time::Duration;

use bytes::Bytes;
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Uri};

use super::Authentication;
use crate::target::Target;

/// A checked mapping.
#[derive(Clone, Debug)]
pub struct Route {
    pub(super) external: Box<str>,
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    pub(super) base: Box<str>,
    pub(super) methods: Box<[Method]>,
    pub(super) allow: HeaderValue,
    pub(super) authentication: Authentication,
    pub(super) max_body_bytes: u64,
    pub(super) response_timeout: Option<Duration>,
}

impl Route {
    /// The external prefix in canonical form, without a slash at its end; empty for the root.
    #[must_use]
    pub fn external(&self) -> &str {
        &self.external
    }

    /// Whether the role is reached by TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Host and port of the role.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whether requests with this method pass.
    #[must_use]
    pub fn allows(&self, method: &Method) -> bool {
        self.methods.contains(method)
    }

    /// The value of `Allow`: the methods that pass.
    #[must_use]
    pub fn allow(&self) -> &HeaderValue {
        &self.allow
    }

    /// What clients have to show.
    #[must_use]
    pub fn authentication(&self) -> Authentication {
        self.authentication
    }

    /// The longest request body, in bytes.
    #[must_use]
    pub fn max_body_bytes(&self) -> u64 {
        self.max_body_bytes
    }

    /// How long the role may take until the head of its answer; no limit for a held mapping.
    #[must_use]
    pub fn response_timeout(&self) -> Option<Duration> {
        self.response_timeout
    }

    /// Whether the target's path is the prefix or lies below it.
    #[must_use]
    pub fn matches(&self, target: &Target) -> bool {
        let path = target.path().as_bytes();
        let prefix = self.external.as_bytes();
        path.get(..prefix.len()).is_some_and(|front| front.eq_ignore_ascii_case(prefix))
            && matches!(path.get(prefix.len()), None | Some(b'/'))
    }

    /// The internal URL of a target that [`matches`](Self::matches): the prefix replaced, the rest
    /// of the path and the query as they are.
    ///
    /// # Errors
    ///
    /// [`RewriteError`] if the target does not match.
    pub fn rewrite(&self, target: &Target) -> Result<Uri, RewriteError> {
        if !self.matches(target) {
            return Err(RewriteError);
        }
        let rest = &target.as_str()[self.external.len()..];
        let mut path = String::with_capacity(self.base.len() + rest.len() + 1);
        path.push_str(&self.base);
        if !rest.starts_with('/') && self.base.is_empty() {
            path.push('/');
        }
        path.push_str(rest);
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        // Every byte that a target may hold can be in a `Uri`, so neither step fails.
        let path = PathAndQuery::from_maybe_shared(Bytes::from(path)).map_err(|_| RewriteError)?;
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).map_err(|_| RewriteError)
    }
}

/// A target that does not belong to the mapping it was to be rewritten by.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the target does not lie below the mapping's external prefix")]
pub struct RewriteError;
