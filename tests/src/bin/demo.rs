//! The demo: `cargo xtask demo` builds what it needs and starts it.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    ghostd_tests::demo::run()
}
