//! JSON messages and their pieces.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// A message that is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("the message is longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    /// Not the JSON that was expected.
    #[error("the message cannot be read: {0}")]
    Malformed(String),
}

/// Joins the pieces of messages. A message that comes in one piece is not copied.
#[derive(Debug, Default)]
pub struct MessageReader {
    held: BytesMut,
}

impl MessageReader {
    /// A reader at the start of a message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece; gives the message that it completes.
    ///
    /// # Errors
    ///
    /// [`MessageError::TooLong`] as soon as the message is; the stream is of no use then.
    pub fn handle_piece(
        &mut self,
        data: Bytes,
        end_of_message: bool,
    ) -> Result<Option<Bytes>, MessageError> {
        if self.held.len() + data.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLong);
        }
        if end_of_message && self.held.is_empty() {
            return Ok(Some(data));
        }
        self.held.extend_from_slice(&data);
        Ok(end_of_message.then(|| std::mem::take(&mut self.held).freeze()))
    }

    /// Whether a message is incomplete.
    #[must_use]
    pub fn is_in_message(&self) -> bool {
        !self.held.is_empty()
    }
}

pub(super) fn to_json(message: &impl Serialize) -> Result<Bytes, MessageError> {
    let json =
        serde_json::to_vec(message).map_err(|error| MessageError::Malformed(error.to_string()))?;
    if json.len() > MAX_MESSAGE_BYTES {
        return Err(MessageError::TooLong);
    }
    Ok(json.into())
}

pub(super) fn from_json<T: DeserializeOwned>(message: &[u8]) -> Result<T, MessageError> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(MessageError::TooLong);
    }
    serde_json::from_slice(message).map_err(|error| MessageError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_or_in_pieces() {
        let mut reader = MessageReader::new();
        let piece = Bytes::from_static;
        assert_eq!(reader.handle_piece(piece(b"whole"), true), Ok(Some(piece(b"whole"))));
        assert_eq!(reader.handle_piece(piece(b"in "), false), Ok(None));
        assert!(reader.is_in_message());
        assert_eq!(reader.handle_piece(piece(b"pieces"), true), Ok(Some(piece(b"in pieces"))));
        assert!(!reader.is_in_message());
    }

    #[test]
    fn a_message_is_refused_as_soon_as_it_is_too_long() {
        let mut reader = MessageReader::new();
        let most = Bytes::from(vec![b'x'; MAX_MESSAGE_BYTES]);
        assert_eq!(reader.handle_piece(most.clone(), false), Ok(None));
        assert_eq!(reader.handle_piece(Bytes::from_static(b"x"), true), Err(MessageError::TooLong));
        let long = [most, Bytes::from_static(b"x")].concat();
        assert_eq!(super::super::Publication::decode(&long), Err(MessageError::TooLong));
    }
}
