//! The codes with which an exchange resets or stops its stream. Codes below 0x100 belong to the
//! multiplexer.

/// A head or the trailers on the stream could not be read.
pub const BAD_HEAD: u32 = 0x100;
/// The body's length differs from its `Content-Length`.
pub const BODY_MISMATCH: u32 = 0x101;
/// The role's answer broke off before its end.
pub const ROLE_BROKEN: u32 = 0x102;
/// The client left before the exchange was over.
pub const CLIENT_GONE: u32 = 0x103;
/// The request's body is larger than its mapping allows.
pub const BODY_TOO_LARGE: u32 = 0x104;
/// The other end of the exchange was silent for too long.
pub const TIMED_OUT: u32 = 0x105;
/// The parts came in an order or number that no exchange has.
pub const BAD_PARTS: u32 = 0x106;
/// The client's body could not be read, so the request is not complete.
pub const BAD_BODY: u32 = 0x107;
