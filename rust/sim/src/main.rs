//! The proofs that take longer than a test may.

use std::io::{self, Write};
use std::process::ExitCode;

use cmgmux_mux::Side;
use cmgmux_sim::handshake::{self, Size};

const USAGE: &str = "usage: cmgmux-sim handshake small|large";

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["handshake", "small"] => check_handshake(Size::small),
        ["handshake", "large"] => check_handshake(Size::large),
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
