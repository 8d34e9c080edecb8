//! The proofs that take longer than a test may.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use cmgmux_mux::Side;
use cmgmux_sim::handshake::{self, Size};
use cmgmux_sim::plan::Plan;
use cmgmux_sim::{Report, cuts, run};

const USAGE: &str = "\
usage: cmgmux-sim handshake small|large
       cmgmux-sim cuts                  cuts the links of one conversation at every byte
       cmgmux-sim seeds COUNT [--from SEED]
                                        runs seeds, and makes one that fails smaller
       cmgmux-sim first COUNT           runs seeds, and says which one fails first
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
        ["seeds", count] => check_seeds(number(count)?, 0, true),
        ["seeds", count, "--from", first] => check_seeds(number(count)?, number(first)?, true),
        ["first", count] => check_seeds(number(count)?, 0, false),
        ["seed", seed] => replay(&Plan::draw(number(seed)?)),
        ["plan", file] => replay(&serde_json::from_slice(&std::fs::read(file)?)?),
        _ => {
            writeln!(io::stderr(), "{USAGE}")?;
            Ok(ExitCode::from(2))
        }
    }
}

/// Searches for both openers side by side.
fn check_handshake(size: impl Fn(Side) -> Size) -> io::Result<ExitCode> {
    let searches = [Side::ConnectionPoint, Side::Instance].map(|opener| {
        let size = size(opener);
        (opener, thread::spawn(move || handshake::check(size)))
    });
    for (opener, search) in searches {
        let report = search.join().map_err(|_| io::Error::other("an order breaks an invariant"))?;
        writeln!(io::stdout(), "{opener:?} opens: {report}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check_cuts() -> io::Result<ExitCode> {
    let (cuts, report) = cuts::check().map_err(io::Error::other)?;
    writeln!(io::stdout(), "{cuts} cuts; {report}")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs seeds until one fails, and makes the plan of that one smaller if that is wanted.
fn check_seeds(count: u64, first: u64, minimises: bool) -> io::Result<ExitCode> {
    let mut total = Report::default();
    for seed in first..first + count {
        let plan = Plan::draw(seed);
        match run::run(&plan) {
            Ok(report) => total += report,
            Err(why) => {
                writeln!(io::stdout(), "seed {seed} fails: {why}")?;
                if minimises {
                    let small = run::minimise(&plan);
                    let why = run::run(&small).err().unwrap_or_default();
                    writeln!(io::stdout(), "this smaller plan fails: {why}")?;
                    writeln!(io::stdout(), "{}", serde_json::to_string(&small)?)?;
                }
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
