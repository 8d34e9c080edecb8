//! The syntax of chunks, without their data: sizes, extensions and the line ends between.

use super::{BodyError, MAX_CHUNK_EXTENSION_BYTES};

/// The most digits of a chunk size.
const MAX_SIZE_DIGITS: u8 = 15;

/// What the decoder reads next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The digits of a size.
    Size { size: u64, digits: u8 },
    /// An extension.
    Extension { size: u64 },
    /// The LF after a size or extension.
    SizeLf { size: u64 },
    /// Data.
    Data { left: u64 },
    /// The CR after data.
    DataCr,
    /// The LF after data.
    DataLf,
}

/// What is at the front of the input after the syntax has been taken off it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Unknown: more input is needed.
    More,
    /// This many bytes of data.
    Data(u64),
    /// The trailer section.
    Trailers,
}

/// Knows where in the chunks of one body the input stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkDecoder {
    state: State,
    extension_bytes: usize,
}

impl ChunkDecoder {
    pub(super) fn new() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, extension_bytes: 0 }
    }

    /// Reads syntax from the front of `input`; says how many bytes that was, and what follows.
    pub(super) fn handle(&mut self, input: &[u8]) -> Result<(usize, Next), BodyError> {
        if let State::Data { left } = self.state {
            return Ok((0, Next::Data(left)));
        }
        for (at, &byte) in input.iter().enumerate() {
            self.state = match (self.state, byte) {
                (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                    if digits == MAX_SIZE_DIGITS {
                        return Err(BodyError::Malformed("a chunk size has too many digits"));
                    }
                    State::Size { size: size << 4 | hex(byte), digits: digits + 1 }
                }
                (State::Size { digits: 0, .. }, _) => {
                    return Err(BodyError::Malformed("a chunk size is missing"));
                }
                (State::Size { size, .. }, b'\r') => State::SizeLf { size },
                (State::Size { size, .. }, b';') => self.in_extension(size)?,
                (State::Size { .. }, _) => {
                    return Err(BodyError::Malformed("a chunk size is malformed"));
                }
                (State::Extension { size }, b'\r') => State::SizeLf { size },
                (State::Extension { size }, b'\t' | b' '..=b'~') => self.in_extension(size)?,
                (State::Extension { .. }, _) => {
                    return Err(BodyError::Malformed("a chunk extension is malformed"));
                }
                (State::SizeLf { size: 0 }, b'\n') => return Ok((at + 1, Next::Trailers)),
                (State::SizeLf { size }, b'\n') => {
                    self.state = State::Data { left: size };
                    return Ok((at + 1, Next::Data(size)));
                }
                (State::DataCr, b'\r') => State::DataLf,
                (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
                (State::DataCr | State::DataLf, _) => {
                    return Err(BodyError::Malformed("a chunk is longer than its size"));
                }
                (State::SizeLf { .. }, _) => {
                    return Err(BodyError::Malformed("a chunk size does not end in CR LF"));
                }
                (State::Data { left }, _) => return Ok((at, Next::Data(left))),
            };
        }
        Ok((input.len(), Next::More))
    }

    /// Notes that `bytes` of data, no more than there were, have been taken.
    pub(super) fn took(&mut self, bytes: u64) {
        if let State::Data { left } = self.state {
            debug_assert!(bytes <= left, "no more than the chunk holds is taken");
            let left = left.saturating_sub(bytes);
            self.state = if left == 0 { State::DataCr } else { State::Data { left } };
        }
    }

    fn in_extension(&mut self, size: u64) -> Result<State, BodyError> {
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_CHUNK_EXTENSION_BYTES {
            return Err(BodyError::Malformed("the chunk extensions are too long"));
        }
        Ok(State::Extension { size })
    }
}

fn hex(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    })
}
