//! The decoder of frames.

use bytes::BytesMut;
use cmgmux_mux::frame::{Control, HEADER_BYTES, Header};

pub(crate) fn check(mut input: &[u8]) {
    while let Ok(Some(header)) = Header::decode(input) {
        assert_eq!(header.encode(), input[..HEADER_BYTES]);
        let Some((frame, rest)) = input.split_at_checked(header.frame_bytes()) else {
            return;
        };
        check_control(&header, frame);
        input = rest;
    }
}

fn check_control(header: &Header, frame: &[u8]) {
    let body = &frame[HEADER_BYTES..];
    let mut decoded = None;
    let memory = allocation_counter::measure(|| decoded = Control::decode(header, body).ok());
    assert!(memory.bytes_max <= 8 * body.len() as u64, "{memory:?} for {}", body.len());
    let Some(control) = decoded else {
        return;
    };
    let mut again = BytesMut::new();
    control.encode(header.stream, &mut again);
    let is_text = match control {
        Control::Close { .. } => std::str::from_utf8(&body[4..]).is_ok(),
        _ => true,
    };
    if header.flags == 0 && is_text {
        assert_eq!(again, frame);
        return;
    }
    // A flag that means nothing is forgotten, and text that is none replaced.
    let header = Header::decode(&again).unwrap().unwrap();
    assert_eq!(header.frame_bytes(), again.len());
    let once_more = Control::decode(&header, &again[HEADER_BYTES..]).unwrap();
    assert!(!is_text || once_more == control);
}
