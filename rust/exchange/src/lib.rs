//! One HTTP exchange as one stream, and the strict HTTP/1.1 reader and writer of the client front;
//! sans-I/O.
//!
//! Nothing here opens a socket, waits or reads a clock: bytes go in, values come out. Whatever is
//! ambiguous is refused and never repaired, and every buffer and count has a named limit.
//!
//! | module | subject |
//! | --- | --- |
//! | [`target`] | a request target in its one canonical form |
//! | [`mapping`] | URL mappings: validation, lookup, external to internal URL |
//! | [`head`] | request and response heads, and their form on a stream |
//! | [`fields`] | hop-by-hop fields, and the fields that say who a client is |
//! | [`parts`] | an exchange as the parts of a stream: interim heads, head, body, trailers |
//! | [`h1`] | the server side of HTTP/1.1, as the client front speaks it |
//! | [`h2`] | request heads as HTTP/2 has them |
//! | [`refusal`] | every error answer that cmgmux itself makes |
//! | [`code`] | the codes with which an exchange resets or stops its stream |
//! | [`publication`] | the messages of the control stream |

#![forbid(unsafe_code)]

pub mod code;
pub mod fields;
pub mod h1;
pub mod h2;
pub mod head;
pub mod mapping;
pub mod parts;
pub mod publication;
pub mod refusal;
pub mod target;

mod lines;
mod text;
