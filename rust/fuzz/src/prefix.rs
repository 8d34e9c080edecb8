//! An end in any state that a peer sends any bytes.

use cmgmux_mux::frame::Header;
use cmgmux_mux::{ProtocolError, Timestamp};

use crate::script::Script;
use crate::world::{Endpoint, World};

/// Memory that an end may take whatever it receives, in bytes: pages of slots and blocks.
const FIXED_BYTES: u64 = 256 * 1024;
/// Batches that an end may have to write because of one input.
const MAX_BATCHES: usize = 10_000;

pub(crate) fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let (kind, length) = (script.byte(), script.byte());
    let prefix = script.part(usize::from(length));
    let bytes = script.rest();
    if bytes.is_empty() {
        return;
    }
    let victim = || {
        let mut world = World::new(kind & 1 == 1);
        world.run(&mut prefix.clone()).ok()?;
        let World { ends: [point, instance], now, .. } = world;
        let mut end = if kind & 2 == 2 { instance } else { point };
        end.app.distrust();
        Some((end, now))
    };
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

/// Delivers bytes to the end.
fn feed(end: &mut Endpoint, now: Timestamp, bytes: &[u8]) -> Result<(), ProtocolError> {
    end.input.extend_from_slice(bytes);
    end.channel.handle_input(now, &mut end.input, &mut end.app)
}

fn same(one: &Endpoint, other: &Endpoint) {
    assert_eq!(one.app, other.app);
    let (one, other) = (format!("{:?}", one.channel), format!("{:?}", other.channel));
    assert!(state(&one).eq(state(&other)), "{one}\n{other}");
}

/// What a channel shows of itself, but for the age of a partial frame, which belongs to its link, and
/// the account of churn, for which a frame counts before it is judged.
fn state(shown: &str) -> impl Iterator<Item = &str> {
    let left_out =
        |field: &str| field.starts_with("partial_since") || field.starts_with("empty_at");
    shown.split(", ").filter(move |field| !left_out(field))
}

/// The end writes whole frames, and not for ever.
fn answer(end: &mut Endpoint, now: Timestamp) {
    for _ in 0..MAX_BATCHES {
        if !end.channel.poll_output(now, &mut end.app) {
            return;
        }
        let batch: Vec<u8> = end.channel.output().flatten().copied().collect();
        let mut rest = &batch[..];
        while let Some(header) = Header::decode(rest).unwrap() {
            rest = &rest[header.frame_bytes()..];
        }
        assert!(rest.is_empty(), "a batch ends within a frame");
        end.channel.handle_written(now);
    }
    panic!("the end never falls silent");
}
