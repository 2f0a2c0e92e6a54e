//! Skipping aloud: `cargo xtask test` lists what was skipped, and why, at its end.

use std::{fs::OpenOptions, io::Write};

/// The file that collects skips, one a line.
const SKIPS: &str = "GHOSTD_SKIPS";

/// Says that `test` is skipped, and why. The caller returns.
pub fn skip(test: &str, why: &str) {
    println!("skipped: {test}: {why}");
    let Some(path) = std::env::var_os(SKIPS) else {
        return;
    };
    let file = OpenOptions::new().append(true).create(true).open(&path);
    let written = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
    if let Err(error) = written {
        panic!("cannot note a skip in {}: {error}", path.display());
    }
}
