//! `bench-mux JOB`: measures what the JSON object JOB describes and prints its figures as one.

use std::process::ExitCode;

fn main() -> ExitCode {
    bench_mux::main(|| None)
}
