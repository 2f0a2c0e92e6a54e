//! ghostd: see `ghostd::daemon`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ghostd::daemon::main()
}
