//! The demo: `cargo xtask demo` builds what it needs and starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    match ghostd_tests::demo::run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the demo could not be given: {error:#}");
            ExitCode::FAILURE
        }
    }
}
