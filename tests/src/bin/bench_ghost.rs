//! Measures microVMs: `cargo xtask bench ghost` builds what it needs and starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    match ghostd_tests::bench::ghost(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
