//! The proofs that take longer than a test may.

use std::io::{self, Write};
use std::process::ExitCode;

use cmgmux_mux::Side;
use cmgmux_sim::handshake::{self, Size};
use cmgmux_sim::plan::Plan;
use cmgmux_sim::{Report, cuts, run};

const USAGE: &str = "\
usage: cmgmux-sim handshake small|large
       cmgmux-sim cuts                  cuts the links of one conversation at every byte
       cmgmux-sim seeds COUNT [FIRST]   runs COUNT seeds from FIRST on, 0 if it is not given
       cmgmux-sim seed SEED             runs one seed and prints what happens
       cmgmux-sim plan FILE             runs a plan, such as a failing seed prints";

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    match arguments[..] {
        ["handshake", "small"] => check_handshake(Size::small),
        ["handshake", "large"] => check_handshake(Size::large),
        ["cuts"] => check_cuts(),
        ["seeds", count] => check_seeds(number(count)?, 0),
        ["seeds", count, first] => check_seeds(number(count)?, number(first)?),
        ["seed", seed] => replay(&Plan::draw(number(seed)?)),
        ["plan", file] => replay(&serde_json::from_slice(&std::fs::read(file)?)?),
        _ => {
            writeln!(io::stderr(), "{USAGE}")?;
            Ok(ExitCode::from(2))
        }
    }
}

fn check_handshake(size: impl Fn(Side) -> Size) -> io::Result<ExitCode> {
    for opener in [Side::ConnectionPoint, Side::Instance] {
        let report = handshake::check(size(opener));
        writeln!(io::stdout(), "{opener:?} opens: {report}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check_cuts() -> io::Result<ExitCode> {
    let (cuts, report) = cuts::check().map_err(io::Error::other)?;
    writeln!(io::stdout(), "{cuts} cuts; {report}")?;
    Ok(ExitCode::SUCCESS)
}

fn check_seeds(count: u64, first: u64) -> io::Result<ExitCode> {
    let mut total = Report::default();
    for seed in first..first + count {
        let plan = Plan::draw(seed);
        match run::run(&plan) {
            Ok(report) => total += report,
            Err(why) => {
                let small = run::minimise(&plan);
                let also = run::run(&small).err().unwrap_or_default();
                writeln!(io::stdout(), "{}", serde_json::to_string(&small)?)?;
                writeln!(io::stdout(), "seed {seed} fails: {why}\nthe plan above fails: {also}")?;
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    writeln!(io::stdout(), "{total}")?;
    Ok(ExitCode::SUCCESS)
}

fn replay(plan: &Plan) -> io::Result<ExitCode> {
    writeln!(io::stdout(), "{}", run::replay(plan))?;
    Ok(ExitCode::SUCCESS)
}
