//! Frames as a test writes and reads them, byte by byte.

use bytes::BytesMut;
use cmgmux_mux::StreamId;
use cmgmux_mux::frame::{Control, Header};

/// Credit of a stream that begins.
pub(crate) const WINDOW: u32 = 36 * 1024;
/// The body of an OPEN without data.
pub(crate) const OPEN: [u8; 4] = [1, 0, 0, 0];

pub(crate) fn frame(kind: u8, flags: u8, stream: StreamId, body: &[u8]) -> BytesMut {
    let length = u32::try_from(body.len()).unwrap();
    let mut frame = BytesMut::from(&Header { length, kind, flags, stream }.encode()[..]);
    frame.extend_from_slice(body);
    frame
}

pub(crate) fn control(control: &Control, stream: StreamId) -> BytesMut {
    let mut frame = BytesMut::new();
    control.encode(stream, &mut frame);
    frame
}

/// The id that an instance's open number `index` has.
pub(crate) fn theirs(index: u32, generation: u32) -> StreamId {
    StreamId::from_wire(1 << 31 | generation << 23 | index)
}

/// The frames of a batch, headers and all.
pub(crate) fn split(mut bytes: &[u8]) -> Vec<(Header, &[u8])> {
    let mut frames = Vec::new();
    while let Some(header) = Header::decode(bytes).unwrap() {
        let (frame, rest) = bytes.split_at(header.frame_bytes());
        frames.push((header, frame));
        bytes = rest;
    }
    frames
}
