//! Measures the data plane: `cargo xtask bench steer` builds what it needs and starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    match ghostd_tests::bench::steer(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
