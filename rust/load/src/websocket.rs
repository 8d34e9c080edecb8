//! What both ends of our WebSockets have in common.

use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The longest message.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// What is read at a time: little, since streams are held by the thousand.
const READ_BYTES: usize = 1024;

/// The limits of one end; nothing is written late.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MAX_MESSAGE_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}
