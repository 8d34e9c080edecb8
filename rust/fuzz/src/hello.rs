//! The frames with which links begin.

use std::fmt::Debug;

use bytes::BytesMut;
use cmgmux_mux::frame::HEADER_BYTES;
use cmgmux_mux::{CloseCode, Hello, HelloOk, ProtocolError, Resume, Resumed};

pub(crate) fn check(body: &[u8]) {
    survives(body, Hello::decode, Hello::encode);
    survives(body, HelloOk::decode, HelloOk::encode);
    if let Some(again) = survives(body, Resume::decode, Resume::encode) {
        assert_eq!(again[HEADER_BYTES..], *body);
    }
    if let Some(again) = survives(body, Resumed::decode, Resumed::encode) {
        assert_eq!(again[HEADER_BYTES..], *body);
    }
}

/// What is decoded without memory is the same after another way over the wire; gives its frame.
fn survives<T: Debug + PartialEq>(
    body: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, ProtocolError>,
    encode: impl Fn(&T) -> BytesMut,
) -> Option<BytesMut> {
    let mut decoded = None;
    let memory = allocation_counter::measure(|| decoded = Some(decode(body)));
    assert_eq!(memory.count_total, 0);
    match decoded.unwrap() {
        Ok(value) => {
            let frame = encode(&value);
            assert_eq!(decode(&frame[HEADER_BYTES..]), Ok(value));
            Some(frame)
        }
        Err(error) => {
            assert!(matches!(error.code(), CloseCode::MALFORMED | CloseCode::VERSION), "{error}");
            None
        }
    }
}
