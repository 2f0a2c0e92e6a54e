//! Tests that need root say so when they are skipped.

use std::{env, fs::OpenOptions, io::Write as _};

/// `true` for root. Otherwise prints and records that `test` is skipped, in
/// the file that `GHOSTD_SKIPS` names.
pub(crate) fn is_root(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let line = format!("{test}\tneeds root");
    println!("skipped: {line}");
    if let Some(path) = env::var_os("GHOSTD_SKIPS") {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        writeln!(file, "{line}").unwrap();
    }
    false
}
