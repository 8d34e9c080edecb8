//! HTTP/1.1 on a connection, from both sides: strict, bounded, sans-I/O.
//!
//! Towards a client, a connection is a loop: [`RequestReader`] reads a head, [`BodyReader`] the body
//! that it announces; [`ResponseWriter`] writes the head of the answer, and the frame around each
//! piece of its body. Towards a role it is the mirror image: [`RequestWriter`], then
//! [`ResponseReader`] and [`BodyReader`].
//!
//! Readers take bytes off the front of the caller's buffer and own none, so a connection that waits
//! holds no memory once the caller drops its empty buffer. After any error the rest of the
//! connection cannot be understood: answer, then close.

mod body;
mod chunked;
pub(crate) mod field_lines;
mod request;
mod response;
mod role;

pub use self::body::{BodyError, BodyEvent, BodyReader, own_piece, take_piece};
pub use self::request::{Request, RequestReader};
pub use self::response::{
    CONTINUE, Circumstances, Frame, ResponseWriter, encode_interim, encode_switch,
};
pub use self::role::{RequestWriter, Response, ResponseReader};

/// The longest request head, in bytes.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The longest request line, in bytes: a target at its limit, a method and the version.
pub const MAX_REQUEST_LINE_BYTES: usize = crate::target::MAX_TARGET_BYTES + 64;
/// The most fields of a request.
pub const MAX_FIELDS: usize = 100;
/// The most bytes of chunk extensions in a body; they are read and forgotten.
pub const MAX_CHUNK_EXTENSION_BYTES: usize = 1024;

/// How long a body is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyLength {
    /// There is none.
    Empty,
    /// As many bytes as `Content-Length` says; may be 0.
    Exact(u64),
    /// What the chunks add up to.
    Chunked,
    /// All that comes until the connection ends; answers only.
    UntilClose,
}
