//! The pinned Rust toolchain: its LLVM version and its library sources.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::run;

/// Major version of the LLVM inside rustc; bpf-linker must have the same.
pub(super) fn llvm_major() -> Result<u32> {
    let version = run::answers(rustc(), "-vV").context("cannot start `rustc -vV`")?;
    let Some(major) = parse_llvm_major(&version) else {
        bail!("`rustc -vV` does not say its LLVM version:\n{version}");
    };
    run::ok(&format!(
        "{} with LLVM {major}",
        version.lines().next().unwrap_or("rustc")
    ));
    Ok(major)
}

fn parse_llvm_major(version: &str) -> Option<u32> {
    let line = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

/// `-Z build-std=core` compiles `core` for BPF from these sources.
pub(super) fn rust_src() -> Result<()> {
    let sysroot = sysroot()?;
    let is_there = || sysroot.join("lib/rustlib/src/rust/library/core").is_dir();
    if is_there() {
        run::ok("sources of Rust's core library");
        return Ok(());
    }
    if run::answers("rustup", "--version").is_none() {
        bail!(
            "the sources of Rust's core library are missing in {}, and there is no rustup to get \
             them: install rustup from https://rustup.rs, or your system's package of Rust's sources",
            sysroot.display()
        );
    }
    run::step("rustup component add rust-src", || {
        run::quiet(Command::new("rustup").args(["component", "add", "rust-src"]))
            .context("cannot get Rust's sources (is there a network?)")
    })?;
    if !is_there() {
        bail!(
            "rustup installed rust-src for another toolchain than the one in use ({}); \
             run `rustup component add rust-src --toolchain` with the name of that one",
            sysroot.display()
        );
    }
    Ok(())
}

/// The core library, compiled for this target.
pub(super) fn target(name: &str) -> Result<()> {
    let library = sysroot()?.join("lib/rustlib").join(name).join("lib");
    if library.is_dir() {
        run::ok(&format!("Rust's core library for {name}"));
        return Ok(());
    }
    if run::answers("rustup", "--version").is_none() {
        bail!(
            "{} is missing, and there is no rustup to get it: install rustup from \
             https://rustup.rs, or your system's package of Rust's library for {name}",
            library.display()
        );
    }
    run::step(&format!("rustup target add {name}"), || {
        run::quiet(Command::new("rustup").args(["target", "add", name]))
            .context("cannot get the target (is there a network?)")
    })?;
    if !library.is_dir() {
        bail!(
            "rustup installed {name} for another toolchain than the one in use; \
             run `rustup target add {name} --toolchain` with the name of that one"
        );
    }
    Ok(())
}

fn sysroot() -> Result<PathBuf> {
    let mut command = Command::new(rustc());
    let sysroot = run::quiet(command.args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(sysroot.trim_end()))
}

fn rustc() -> std::ffi::OsString {
    env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

#[cfg(test)]
mod tests {
    use super::parse_llvm_major;

    #[test]
    fn llvm_version_is_read() {
        let version = "rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n";
        assert_eq!(parse_llvm_major(version), Some(22));
        assert_eq!(parse_llvm_major("rustc 1.95.0\n"), None);
    }
}
