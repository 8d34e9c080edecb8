//! One conversation, cut at every byte of its links.

use crate::plan::{Behaviour, Ending, Fault, Kind, Net, Plan, Sizes, Stream};
use crate::report::Report;
use crate::run::run;

/// More than any link of the conversation carries.
const NEVER: u32 = u32::MAX;

/// Cuts the conversation's first link at every byte towards either end, and then, with a first link
/// that died half way, its second link. Returns how many cuts that were, and what the runs have seen.
///
/// # Errors
///
/// Says which cut broke which invariant.
pub fn check() -> Result<(u64, Report), String> {
    let (mut cuts, mut total) = (0, Report::default());
    for earlier in [None, Some([9_000, NEVER]), Some([NEVER, 9_000])] {
        for side in 0..2 {
            for bytes in 0.. {
                let mut cut = [NEVER; 2];
                cut[side] = bytes;
                let report = run(&plan(earlier.into_iter().chain([cut])))
                    .map_err(|why| format!("{earlier:?}, {cut:?}: {why}"))?;
                let is_beyond = report.link_deaths <= u64::from(earlier.is_some());
                total += report;
                if is_beyond {
                    break;
                }
                cuts += 1;
            }
        }
    }
    Ok((cuts, total))
}

/// The conversation, with links that are cut after so many bytes to either end.
fn plan(cuts: impl Iterator<Item = [u32; 2]>) -> Plan {
    let sizes = Sizes {
        max_streams: 4,
        window_bytes: 16 * 1024,
        max_window_bytes: 16 * 1024,
        budget_bytes: 1 << 20,
        queue_bytes: 4 * 1024,
        ring_bytes: 1 << 20,
        resume_window_ms: 60_000,
    };
    let application = |bytes, part_bytes, ending| Behaviour {
        echoes: false,
        bytes,
        piece_bytes: 3_000,
        part_bytes,
        write_pace_us: 500,
        ending,
        read_pace_us: 0,
        sleeps: false,
        stop_at: None,
        linger_us: 0,
    };
    let stream = |number: u64| Stream {
        at_us: 1_000 * number,
        opener: number as usize % 2,
        applications: [
            application(700 * number, 300, Ending::Joined),
            application(
                3_000 - 400 * number,
                1_000,
                [Ending::Alone, Ending::Reset][number as usize / 5],
            ),
        ],
    };
    Plan {
        seed: 0,
        sizes: [sizes.clone(), sizes],
        net: Net { delay_us: 2_000, late_per_mille: 0, piece_bytes: 2_000, buffer_bytes: 16_000 },
        heal_ms: 5_000,
        streams: (0..7).map(stream).collect(),
        faults: cuts
            .map(|bytes| Fault { at_us: 0, kind: Kind::Cut { next: true, bytes } })
            .collect(),
    }
}
