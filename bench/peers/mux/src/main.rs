//! `bench-mux JOB`: measures what the JSON object JOB describes and prints its figures as one.

use std::process::ExitCode;

fn main() -> ExitCode {
    let job = std::env::args().nth(1).unwrap_or_default();
    match bench_mux::run(&job, || 0) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench-mux: {error:#}");
            ExitCode::FAILURE
        }
    }
}
