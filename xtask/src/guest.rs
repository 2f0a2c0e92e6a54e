//! Builds the guest payload that tests and demos run in microVMs.
//!
//! It goes to `target/guest/ghost-guest`. It is a program for a machine
//! without a system, so it has a target, flags and a target folder of its own.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{run, setup, workspace::Workspace};

pub(crate) const TARGET: &str = "x86_64-unknown-none";
const PACKAGE: &str = "ghost-guest";

/// A payload is linked for a fixed address, from where docs/guest-abi.md lets
/// it begin; small pages keep the file small.
const RUSTFLAGS: [&str; 5] = [
    "-Crelocation-model=static",
    "-Ccode-model=small",
    "-Clink-arg=--image-base=0x100000",
    "-Clink-arg=-zmax-page-size=4096",
    "-Clink-arg=--no-dynamic-linker",
];

/// Gets the target at need, builds, and gives the payload's path.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    setup::for_guest()?;
    run::step("building the guest payload", || {
        run::loud(cargo(workspace, "build").arg("--quiet"))
    })?;
    let built = folder(workspace).join(TARGET).join("guest").join(PACKAGE);
    let payload = workspace.root().join("target/guest").join(PACKAGE);
    let dir = workspace.root().join("target/guest");
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    // Whoever starts it meanwhile sees the old or the new one, never half.
    let partial = payload.with_extension("partial");
    fs::copy(&built, &partial).with_context(|| format!("copying {}", built.display()))?;
    fs::rename(&partial, &payload).with_context(|| format!("renaming to {}", payload.display()))?;
    Ok(payload)
}

/// Cargo with the target, flags and target folder of payloads.
pub(crate) fn cargo(workspace: &Workspace, verb: &str) -> Command {
    let mut cargo = workspace.cargo();
    cargo
        .args([verb, "--package", PACKAGE, "--bin", PACKAGE])
        .args(["--features", "payload", "--target", TARGET])
        .args(["--profile", "guest", "--target-dir"])
        .arg(folder(workspace))
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"));
    cargo
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root().join("target/guest-build")
}
