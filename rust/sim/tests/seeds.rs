//! Long conversations over bad links.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cmgmux_sim::plan::{Fault, Plan};
use cmgmux_sim::{Report, run};

fn play(plan: &Plan, name: &str) -> Report {
    run::run(plan).unwrap_or_else(|why| panic!("{name}: {why}; make sim {name} shows the run"))
}

/// The names of the faults of a plan.
fn kinds(plan: &Plan) -> BTreeSet<String> {
    let name = |fault: &Fault| format!("{:?}", fault.kind).split(' ').next().map(str::to_owned);
    plan.faults.iter().filter_map(name).collect()
}

// R-RESUME-3, R-RESUME-4, R-RESUME-5, R-RESUME-6, R-RESUME-7, R-RESUME-12, R-RESUME-13, R-RESUME-14
#[test]
fn nothing_is_lost_or_doubled_and_everything_comes_to_an_end_in_500_seeds() {
    let mut total = Report::default();
    let mut squeezed = BTreeMap::<String, u64>::new();
    for seed in 0..500 {
        let plan = Plan::draw(seed);
        let report = play(&plan, &format!("SEED={seed}"));
        for kind in kinds(&plan) {
            *squeezed.entry(kind).or_default() += u64::from(report.too_slow > 0);
        }
        total += report;
    }
    eprintln!("{total}");
    assert!(total.resumes > 100 && total.expired > 10 && total.silent > 10, "{total}");
    // Readers that are too slow for a budget meet every fault.
    assert!(squeezed.len() == 8 && squeezed.values().all(|runs| *runs >= 5), "{squeezed:?}");
}

#[test]
fn plans_that_once_failed_do_not() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let plan: Plan = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        play(&plan, &format!("PLAN={}", path.display()));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 95, 274] {
        let plan = Plan::draw(seed);
        assert_eq!(run::run(&plan), run::run(&plan));
    }
}
