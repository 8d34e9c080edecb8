//! An end in any state that a peer asks, with any positions, to go on over a new link.

use cmgmux_mux::{Claim, ProtocolError, ResumeCode, Resumed, Timestamp};

use crate::script::Script;
use crate::victim::{fall_silent, feed, is_instance, same, victim};
use crate::world::Endpoint;

/// Memory that an end may take for going on, in bytes.
const FIXED_BYTES: u64 = 256 * 1024;

pub(crate) fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let (kind, length) = (script.byte(), script.byte());
    let prefix = script.part(usize::from(length));
    let epochs_on = script.byte();
    let positions = [0; 2].map(|_| position(&mut script));
    let bytes = script.rest();
    let (Some((mut end, now)), Some((mut untouched, _))) =
        (victim(kind, &prefix), victim(kind, &prefix))
    else {
        return;
    };
    let ask = if is_instance(kind) { claim } else { answer };
    let mut outcome = Ok(false);
    let memory = allocation_counter::measure(|| outcome = ask(&mut end, now, epochs_on, positions));
    assert!(memory.bytes_max <= FIXED_BYTES, "{memory:?}");
    if outcome != Ok(true) {
        if !is_instance(kind) {
            untouched.channel.claim();
        }
        same(&end, &untouched);
        return;
    }
    end.input.clear();
    assert!(end.channel.is_attached());
    if feed(&mut end, now, bytes).is_ok() {
        fall_silent(&mut end, now, |_| {});
    }
}

/// One near those that there have been, or any.
fn position(script: &mut Script<'_>) -> u64 {
    let is_any = script.byte() >= 0xf0;
    let bytes = [0; 8].map(|byte| if is_any { script.byte() } else { byte });
    if is_any {
        return u64::from_le_bytes(bytes);
    }
    u64::from(u16::from_le_bytes([script.byte(), script.byte()]))
}

/// A connection point claims the channel at the instance; says whether it goes on.
fn claim(
    instance: &mut Endpoint,
    now: Timestamp,
    epoch: u8,
    [rx_pos, tx_first]: [u64; 2],
) -> Result<bool, ProtocolError> {
    let claim = Claim { epoch: u32::from(epoch), rx_pos, tx_first };
    let resumed = instance.channel.handle_claim(now, &claim)?;
    if resumed.code != ResumeCode::ACCEPTED {
        return Ok(false);
    }
    assert!(tx_first <= resumed.rx_pos && rx_pos <= resumed.tx_start, "{claim:?} {resumed:?}");
    let again = instance.channel.handle_claim(now, &claim)?;
    assert_eq!(again.code, ResumeCode::STALE_EPOCH);
    Ok(true)
}

/// An instance answers the connection point's newest claim, or one before; says whether it goes on.
fn answer(
    point: &mut Endpoint,
    now: Timestamp,
    epochs_back: u8,
    [rx_pos, tx_start]: [u64; 2],
) -> Result<bool, ProtocolError> {
    let (claim, kept) = (point.channel.claim(), point.channel.counters().ring_bytes);
    let epoch = claim.epoch.saturating_sub(u32::from(epochs_back % 4));
    let resumed = Resumed { code: ResumeCode::ACCEPTED, epoch, rx_pos, tx_start };
    let is_taken = point.channel.handle_resumed(now, &resumed)?;
    if is_taken {
        assert_eq!((epoch, tx_start), (claim.epoch, claim.rx_pos));
        assert!((claim.tx_first..=claim.tx_first + kept).contains(&rx_pos), "{claim:?} {rx_pos}");
    }
    Ok(is_taken)
}
