//! Runs plans, and makes those that fail smaller.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::plan::{Behaviour, Ending, Plan};
use crate::report::Report;
use crate::world::World;

/// Attempts to make a failing plan smaller.
const MAX_ATTEMPTS: u32 = 2_000;

thread_local! {
    /// A panic is this run's result, and is not printed.
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Plays a plan.
///
/// # Errors
///
/// Says which invariant was broken.
pub fn run(plan: &Plan) -> Result<Report, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_RUNNING.get() {
                tell(panic);
            }
        }));
    });
    IS_RUNNING.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| World::run(plan, false)));
    IS_RUNNING.set(false);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    })
}

/// Plays a plan and prints what happens.
///
/// # Panics
///
/// When an invariant is broken.
#[must_use]
pub fn replay(plan: &Plan) -> Report {
    World::run(plan, true)
}

/// A failure with fewer streams and faults, and applications that do less.
#[must_use]
pub fn minimise(plan: &Plan) -> Plan {
    let mut small = plan.clone();
    let mut attempts = 0;
    let mut fails = |plan: &Plan| {
        attempts += 1;
        attempts <= MAX_ATTEMPTS && run(plan).is_err()
    };
    loop {
        let before = small.streams.len() + small.faults.len();
        small = remove(small, |plan| &mut plan.streams, &mut fails);
        small = remove(small, |plan| &mut plan.faults, &mut fails);
        if small.streams.len() + small.faults.len() == before {
            break;
        }
    }
    for stream in 0..small.streams.len() {
        for application in 0..2 {
            for simpler in [plain, prompt] {
                let mut attempt = small.clone();
                simpler(&mut attempt.streams[stream].applications[application]);
                if fails(&attempt) {
                    small = attempt;
                }
            }
        }
    }
    small
}

/// Writes and ends.
fn plain(application: &mut Behaviour) {
    application.ending = Ending::Joined;
    application.stop_at = None;
    application.sleeps = false;
}

/// Takes no time.
fn prompt(application: &mut Behaviour) {
    application.write_pace_us = 0;
    application.read_pace_us = 0;
    application.linger_us = 0;
}

/// Removes entries of a list of the plan, many at a time and then one by one, as long as it fails.
fn remove<T: Clone>(
    mut plan: Plan,
    list: impl Fn(&mut Plan) -> &mut Vec<T>,
    fails: &mut impl FnMut(&Plan) -> bool,
) -> Plan {
    let mut count = list(&mut plan).len();
    while count > 0 {
        let mut start = 0;
        while start < list(&mut plan).len() {
            let mut smaller = plan.clone();
            let entries = list(&mut smaller);
            entries.drain(start..entries.len().min(start + count));
            if fails(&smaller) {
                plan = smaller;
            } else {
                start += count;
            }
        }
        count /= 2;
    }
    plan
}
