//! Gets what building and running need, checking before each step.
//!
//! Owns: what is needed, in which version, and how it is got. A second run
//! only checks. Fails with what is missing and the command that gets it.

mod host;
mod kernel;
mod linker;
mod packages;
mod toolchain;

use std::path::PathBuf;

use anyhow::Result;

use crate::{guest, workspace::Workspace};

/// What the build of the BPF object needs beyond cargo.
pub(crate) struct BpfTools {
    pub(crate) linker: PathBuf,
    pub(crate) strip: PathBuf,
}

/// Everything, as `cargo xtask setup` does it.
pub(crate) fn everything(workspace: &Workspace) -> Result<()> {
    for_running()?;
    for_building(workspace)?;
    for_guest()?;
    for_vm(workspace)
}

/// What VMs need.
pub(crate) fn for_vm(workspace: &Workspace) -> Result<()> {
    packages::install("for VMs", &packages::vm())?;
    kernel::get(workspace)
}

/// What the build of the guest payload needs.
pub(crate) fn for_guest() -> Result<()> {
    toolchain::target(guest::TARGET)
}

/// What the build of the BPF object needs. Needs root only if a package is missing.
pub(crate) fn for_building(workspace: &Workspace) -> Result<BpfTools> {
    let llvm = toolchain::llvm_major()?;
    toolchain::rust_src()?;
    packages::install("to build", &packages::building(llvm))?;
    let linker = linker::install(workspace, llvm)?;
    let strip = linker::llvm_strip(llvm);
    Ok(BpfTools { linker, strip })
}

/// What demo, tests and benchmarks need of the machine: root, a kernel, mounts, tools.
pub(crate) fn for_running() -> Result<()> {
    host::root()?;
    host::kernel()?;
    host::btf()?;
    host::mounts()?;
    packages::install("to run", &packages::running())
}
