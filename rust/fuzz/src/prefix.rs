//! An end in any state that a peer sends any bytes.

use cmgmux_mux::Timestamp;
use cmgmux_mux::frame::Header;

use crate::script::Script;
use crate::victim::{FIXED_BYTES, fall_silent, feed, same, victim};
use crate::world::Endpoint;

pub(crate) fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let (kind, length) = (script.byte(), script.byte());
    let prefix = script.part(usize::from(length));
    let bytes = script.rest();
    if bytes.is_empty() {
        return;
    }
    let victim = || victim(kind, &prefix);
    let (Some((mut whole, now)), Some((mut bytewise, _))) = (victim(), victim()) else {
        return;
    };
    let held = whole.input.len();
    let mut outcome = Ok(());
    let memory = allocation_counter::measure(|| outcome = feed(&mut whole, now, bytes));
    let allowed = FIXED_BYTES + 8 * (held + bytes.len()) as u64;
    assert!(memory.bytes_max <= allowed, "{memory:?} for {} bytes", bytes.len());

    let in_pieces = bytes.chunks(1).try_for_each(|byte| feed(&mut bytewise, now, byte));
    assert_eq!(outcome, in_pieces);
    same(&whole, &bytewise);
    if outcome.is_ok() {
        answer(&mut whole, now);
        return;
    }
    // What was applied lies before the refused frame, which changed nothing.
    let applied = (held + bytes.len() - whole.input.len()).saturating_sub(held);
    let (mut careful, _) = victim().unwrap();
    feed(&mut careful, now, &bytes[..applied]).unwrap();
    same(&whole, &careful);
}

/// The end writes whole frames.
fn answer(end: &mut Endpoint, now: Timestamp) {
    fall_silent(end, now, |batch| {
        let mut rest = batch;
        while let Some(header) = Header::decode(rest).unwrap() {
            rest = &rest[header.frame_bytes()..];
        }
        assert!(rest.is_empty(), "a batch ends within a frame");
    });
}
