//! An end in any state that a peer asks, with any positions, to go on over a new link.

use cmgmux_mux::{Claim, ResumeCode, Resumed, Timestamp};

use crate::script::Script;
use crate::victim::{FIXED_BYTES, claimant, fall_silent, feed, is_instance, same, victim};
use crate::world::Endpoint;

pub(crate) fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let (kind, length) = (script.byte(), script.byte());
    let prefix = script.part(usize::from(length));
    if is_instance(kind) {
        check_claim(kind, &prefix, script);
    } else {
        check_answer(kind, &prefix, script);
    }
}

/// A connection point claims the channel at the instance.
fn check_claim(kind: u8, prefix: &Script<'_>, mut script: Script<'_>) {
    let epoch = u32::from(script.byte());
    let [rx_pos, tx_first] = [0; 2].map(|_| position(&mut script));
    let claim = Claim { epoch, rx_pos, tx_first };
    let (Some((mut end, now)), Some((untouched, _))) = (victim(kind, prefix), victim(kind, prefix))
    else {
        return;
    };
    let resumed = measured(|| end.channel.handle_claim(now, &claim));
    match resumed {
        Ok(resumed) if resumed.code == ResumeCode::ACCEPTED => {
            let is_possible = tx_first <= resumed.rx_pos && rx_pos <= resumed.tx_start;
            assert!(is_possible, "{claim:?} {resumed:?}");
            let again = end.channel.handle_claim(now, &claim).unwrap();
            assert_eq!(again.code, ResumeCode::STALE_EPOCH);
            go_on(end, now, script);
        }
        _ => same(&end, &untouched),
    }
}

/// An instance answers a claim of the connection point, which may have made another since.
fn check_answer(kind: u8, prefix: &Script<'_>, mut script: Script<'_>) {
    let length = script.byte();
    let meanwhile = script.part(usize::from(length));
    let [rx_pos, tx_start] = [0; 2].map(|_| position(&mut script));
    let victim = || claimant(kind, prefix, &meanwhile);
    let (Some((mut end, now, claim)), Some((mut untouched, ..))) = (victim(), victim()) else {
        return;
    };
    let answer = Resumed { code: ResumeCode::ACCEPTED, epoch: claim.epoch, rx_pos, tx_start };
    let kept = end.channel.counters().ring_bytes;
    if measured(|| end.channel.handle_resumed(now, &answer)) == Ok(true) {
        // What it would claim now says where it stands.
        let present = untouched.channel.claim();
        assert_eq!(present.epoch, claim.epoch + 1, "an older claim is answered");
        assert!((claim.rx_pos..=present.rx_pos).contains(&tx_start), "{claim:?} {answer:?}");
        let range = present.tx_first..=present.tx_first + kept;
        assert!(range.contains(&rx_pos), "{answer:?} in {range:?}");
        go_on(end, now, script);
    } else {
        same(&end, &untouched);
    }
}

/// What `work` gives, which takes little memory.
fn measured<T>(work: impl FnOnce() -> T) -> T {
    let mut given = None;
    let memory = allocation_counter::measure(|| given = Some(work()));
    assert!(memory.bytes_max <= FIXED_BYTES, "{memory:?}");
    given.unwrap()
}

/// The peer sends the rest of the script over the new link.
fn go_on(mut end: Endpoint, now: Timestamp, script: Script<'_>) {
    end.input.clear();
    assert!(end.channel.is_attached());
    if feed(&mut end, now, script.rest()).is_ok() {
        fall_silent(&mut end, now, |_| {});
    }
}

/// One near those that there have been, or any.
fn position(script: &mut Script<'_>) -> u64 {
    if script.byte() >= 0xf0 {
        return u64::from_le_bytes([0; 8].map(|_| script.byte()));
    }
    u64::from(u16::from_le_bytes([script.byte(), script.byte()]))
}
