//! bpf-linker, at one version, built once for all checkouts of a user.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{run, workspace::Workspace};

const VERSION: &str = "0.13.0";

/// LLVM versions this bpf-linker can be built for.
const LLVM_KNOWN: [u32; 2] = [21, 22];

/// Where LLVM's headers and libraries are; Debian's place unless LLVM_PREFIX says otherwise.
pub(super) fn llvm_prefix(llvm: u32) -> String {
    env::var("LLVM_PREFIX").unwrap_or_else(|_| format!("/usr/lib/llvm-{llvm}"))
}

/// LLVM's strip knows BPF objects; GNU's does not.
pub(super) fn llvm_strip(llvm: u32) -> PathBuf {
    Path::new(&llvm_prefix(llvm)).join("bin/llvm-strip")
}

/// Path of a bpf-linker that understands the bitcode of our rustc.
pub(super) fn install(workspace: &Workspace, llvm: u32) -> Result<PathBuf> {
    ensure!(
        LLVM_KNOWN.contains(&llvm),
        "bpf-linker {VERSION} cannot be built for LLVM {llvm}, which this rustc has; \
         use the toolchain that rust-toolchain.toml pins"
    );
    let name = format!("bpf-linker-{VERSION}-llvm-{llvm}");
    let home = workspace.tools().join(&name);
    let linker = home.join("bin/bpf-linker");
    if works(&linker) {
        run::ok(&format!("bpf-linker {VERSION} for LLVM {llvm}"));
        return Ok(linker);
    }
    fs::create_dir_all(workspace.tools())
        .with_context(|| format!("creating {}", workspace.tools().display()))?;
    // Two checkouts may be set up at the same time: the second waits, then finds it.
    let lock_path = workspace.tools().join(format!("{name}.lock"));
    let lock = fs::File::create(&lock_path)
        .with_context(|| format!("creating {}", lock_path.display()))?;
    lock.lock()
        .with_context(|| format!("locking {}", lock_path.display()))?;
    if !works(&linker) {
        run::step(
            &format!("building bpf-linker {VERSION} for LLVM {llvm} (a minute or two, once)"),
            || compile(workspace, llvm, &home),
        )?;
    }
    ensure!(
        works(&linker),
        "{} was built but does not start; remove {} and run `cargo xtask setup` again",
        linker.display(),
        home.display()
    );
    Ok(linker)
}

fn compile(workspace: &Workspace, llvm: u32, home: &Path) -> Result<()> {
    let build = home.with_extension("build");
    let result = run::quiet(
        workspace
            .cargo()
            .current_dir(workspace.tools())
            .args([
                "install",
                "bpf-linker",
                "--version",
                VERSION,
                "--locked",
                "--force",
            ])
            .args([
                "--no-default-features",
                "--features",
                &format!("llvm-{llvm}"),
            ])
            .arg("--root")
            .arg(home)
            .arg("--target-dir")
            .arg(&build)
            .env("LLVM_PREFIX", llvm_prefix(llvm))
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("RUSTFLAGS"),
    );
    // Hundreds of megabytes that nobody needs again; if they stay, it is only space.
    let _ = fs::remove_dir_all(&build);
    result.context("cannot build bpf-linker (is there a network?)")?;
    Ok(())
}

fn works(linker: &Path) -> bool {
    run::answers(linker, "--version").is_some_and(|text| text.contains(VERSION))
}
