//! The kinds of notification streams.

use serde::{Deserialize, Serialize};

pub(super) mod long_poll;
pub(super) mod sse;
pub(super) mod websocket;

/// How a client gets its notifications.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Each by a request that is held until it comes.
    #[serde(rename = "long-poll")]
    LongPoll,
    /// As server-sent events in one answer without end.
    Sse,
    /// As text messages of a WebSocket.
    WebSocket,
}
