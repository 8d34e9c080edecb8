//! One end of a conversation that its peer turns against.

use cmgmux_mux::{Claim, ProtocolError, Timestamp};

use crate::script::Script;
use crate::world::{Endpoint, POINT, World};

/// Memory that an end may take whatever it receives, in bytes: pages of slots and blocks.
pub(crate) const FIXED_BYTES: u64 = 256 * 1024;
/// Batches that an end may have to write because of one input.
const MAX_BATCHES: usize = 10_000;

/// The end that `kind` names, after a conversation; `None` if the channel is over by then.
pub(crate) fn victim(kind: u8, prefix: &Script<'_>) -> Option<(Endpoint, Timestamp)> {
    let mut world = World::new(kind & 1 == 1);
    world.run(&mut prefix.clone()).ok()?;
    Some(end_of(world, kind))
}

/// A connection point that has made a claim, and went on over its old link meanwhile if it has one.
pub(crate) fn claimant(
    kind: u8,
    prefix: &Script<'_>,
    meanwhile: &Script<'_>,
) -> Option<(Endpoint, Timestamp, Claim)> {
    let mut world = World::new(kind & 1 == 1);
    world.run(&mut prefix.clone()).ok()?;
    let claim = world.ends[POINT].channel.claim();
    world.run(&mut meanwhile.clone()).ok()?;
    let (end, now) = end_of(world, kind);
    Some((end, now, claim))
}

fn end_of(World { ends: [point, instance], now, .. }: World, kind: u8) -> (Endpoint, Timestamp) {
    let mut end = if is_instance(kind) { instance } else { point };
    end.app.distrust();
    (end, now)
}

pub(crate) fn is_instance(kind: u8) -> bool {
    kind & 2 == 2
}

/// Delivers bytes to the end.
pub(crate) fn feed(end: &mut Endpoint, now: Timestamp, bytes: &[u8]) -> Result<(), ProtocolError> {
    end.input.extend_from_slice(bytes);
    end.channel.handle_input(now, &mut end.input, &mut end.app)
}

pub(crate) fn same(one: &Endpoint, other: &Endpoint) {
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

/// Has the end write until it has nothing more, which it must come to.
pub(crate) fn fall_silent(end: &mut Endpoint, now: Timestamp, mut look: impl FnMut(&[u8])) {
    for _ in 0..MAX_BATCHES {
        if !end.channel.poll_output(now, &mut end.app) {
            return;
        }
        let batch: Vec<u8> = end.channel.output().flatten().copied().collect();
        look(&batch);
        end.channel.handle_written(now);
    }
    panic!("the end never falls silent");
}
