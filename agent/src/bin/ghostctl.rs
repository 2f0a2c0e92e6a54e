//! ghostctl: see `ghostd::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ghostd::cli::main()
}
