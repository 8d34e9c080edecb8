//! What a head promises about the body that follows, and whether the promise is kept.

use http::{HeaderMap, StatusCode};

use super::PartsError;
use crate::fields;
use crate::head::{RequestHead, ResponseHead};

/// The body's declared length, and how much of it has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Account {
    allowed: bool,
    trailers: bool,
    declared_bytes: Option<u64>,
    moved_bytes: u64,
}

impl Account {
    /// The account of the body that follows a request head.
    pub(crate) fn of_request(head: &RequestHead) -> Result<Self, PartsError> {
        if head.asks_to_switch() {
            return Ok(Self::of_switch());
        }
        Self::of_body(&head.fields)
    }

    /// The account of what follows a switch of protocols: any bytes, and no trailers.
    pub(crate) fn of_switch() -> Self {
        Self { allowed: true, trailers: false, declared_bytes: None, moved_bytes: 0 }
    }

    fn of_body(fields: &HeaderMap) -> Result<Self, PartsError> {
        let declared_bytes = declared(fields)?;
        Ok(Self { allowed: true, trailers: true, declared_bytes, moved_bytes: 0 })
    }

    /// The account of the body that follows a final response head; `to_head` if it answers HEAD.
    pub(crate) fn of_response(head: &ResponseHead, to_head: bool) -> Result<Self, PartsError> {
        if to_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Self { allowed: false, ..Self::of_switch() });
        }
        Self::of_body(&head.fields)
    }

    /// Whether there may be a body.
    pub(crate) fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// Whether there may be trailers.
    pub(crate) fn allows_trailers(&self) -> bool {
        self.trailers
    }

    /// Counts bytes of the body.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), PartsError> {
        if bytes == 0 {
            return Ok(());
        }
        if !self.allowed {
            return Err(PartsError::BodyNotAllowed);
        }
        // A `usize` fits, and 2^64 bytes never pass.
        self.moved_bytes = self.moved_bytes.saturating_add(bytes as u64);
        match self.declared_bytes {
            Some(declared_bytes) if self.moved_bytes > declared_bytes => {
                Err(PartsError::BodyTooLong { declared_bytes, moved_bytes: self.moved_bytes })
            }
            _ => Ok(()),
        }
    }

    /// Checks that the body may end here.
    pub(crate) fn finish(&self) -> Result<(), PartsError> {
        match self.declared_bytes {
            Some(declared_bytes) if self.moved_bytes != declared_bytes => {
                Err(PartsError::BodyTooShort { declared_bytes, moved_bytes: self.moved_bytes })
            }
            _ => Ok(()),
        }
    }
}

fn declared(fields: &HeaderMap) -> Result<Option<u64>, PartsError> {
    fields::content_length(fields).map_err(PartsError::Head)
}
