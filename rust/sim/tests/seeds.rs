//! Long conversations over bad links.

use std::fs;
use std::path::Path;

use cmgmux_sim::plan::Plan;
use cmgmux_sim::{Report, run};

fn play(plan: &Plan, name: &str) -> Report {
    run::run(plan).unwrap_or_else(|why| panic!("{name}: {why}; make sim {name} shows the run"))
}

// R-RESUME-3, R-RESUME-4, R-RESUME-5, R-RESUME-6, R-RESUME-7, R-RESUME-12, R-RESUME-13, R-RESUME-14
#[test]
fn nothing_is_lost_or_doubled_and_everything_comes_to_an_end_in_500_seeds() {
    let mut total = Report::default();
    for seed in 0..500 {
        total += play(&Plan::draw(seed), &format!("SEED={seed}"));
    }
    eprintln!("{total}");
    assert!(total.resumes > 100 && total.expired > 10 && total.silent > 10, "{total}");
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
