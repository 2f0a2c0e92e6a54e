//! Builds the BPF object and checks that it is whole.
//!
//! The object goes to `target/bpf/ghostd.bpf.o`, and is touched only when its
//! content changes, so that an unchanged object does not rebuild the daemon.
//! It has BTF but no DWARF, which is nine tenths of it; for `llvm-objdump -S`
//! the unstripped one stays in `target/bpf-build`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolScope};

use crate::{
    run,
    setup::{self, BpfTools},
    workspace::Workspace,
};

const TARGET: &str = "bpfel-unknown-none";

/// A build of programs: which, for which instruction set, and to where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Build {
    /// A `[[bin]]` of `agent-ebpf`.
    program: &'static str,
    /// v3 has atomics and 32-bit jumps; kernels since 5.12 run it. v4 wants 6.6.
    cpu: &'static str,
    /// Cargo's target folder below the repository's.
    folder: &'static str,
    object: &'static str,
}

/// What is shipped.
pub(crate) const SHIPPED: Build = Build {
    program: "ghostd-bpf",
    cpu: "v3",
    folder: "bpf-build",
    object: "ghostd.bpf.o",
};

/// Other programs of the same sources, for the test of an upgrade.
pub(crate) const NEXT: Build = Build {
    program: "ghostd-bpf",
    cpu: "v4",
    folder: "bpf-build-next",
    object: "ghostd-next.bpf.o",
};

/// What benchmarks measure the shipped programs against.
pub(crate) const FLOOR: Build = Build {
    program: "floor-bpf",
    cpu: "v3",
    folder: "bpf-build",
    object: "floor.bpf.o",
};

impl Build {
    /// Always below the repository, whatever CARGO_TARGET_DIR says, because
    /// the build script of the daemon is not told that.
    pub(crate) fn object(self, workspace: &Workspace) -> PathBuf {
        workspace.root().join("target/bpf").join(self.object)
    }

    fn folder(self, workspace: &Workspace) -> PathBuf {
        workspace.root().join("target").join(self.folder)
    }
}

/// bpf-linker asks LLVM to expand `memcpy` in the order of addresses; LLVM 22
/// then crashes ("Post-RA pseudo instruction expansion") on our programs.
const NO_ORDERED_MEMCPY: &str = "link-arg=--disable-expand-memcpy-in-order";

/// Without these `bpftool` shows neither names nor source lines.
const SECTIONS_NEEDED: [&str; 3] = [".BTF", ".BTF.ext", "license"];

/// Every program and map begins with this, so that an operator finds ours.
const PREFIX: &str = "gd_";

/// The kernel cuts longer names.
const NAME_BYTES_MAX: usize = 15;

/// Sections whose symbols are neither programs nor maps.
const SECTIONS_UNNAMED: [&str; 5] = [".text", ".data", ".rodata", ".bss", "license"];

/// Sets up what is needed and builds. Gives the tools, for lints of the same code.
pub(crate) fn build(workspace: &Workspace) -> Result<BpfTools> {
    let tools = setup::for_building(workspace)?;
    assemble(workspace, &tools, SHIPPED)?;
    Ok(tools)
}

/// Builds what [`build`] has set up for.
pub(crate) fn assemble(workspace: &Workspace, tools: &BpfTools, build: Build) -> Result<()> {
    let what = format!("building the BPF object {}", build.object);
    run::step(&what, || compile(workspace, tools, build))?;
    let profile = build.folder(workspace).join(TARGET).join("bpf");
    let built = profile.join(build.program);
    let stripped = built.with_extension("stripped");
    run::quiet(
        Command::new(&tools.strip)
            .args(["--strip-debug", "-o"])
            .args([&stripped, &built]),
    )?;
    let bytes = fs::read(&stripped).with_context(|| format!("reading {}", stripped.display()))?;
    check(&bytes).with_context(|| format!("checking {}", stripped.display()))?;
    publish(&bytes, &build.object(workspace))
}

/// Flags for all that is compiled for BPF, as cargo wants them: one per line of 0x1f.
fn rustflags(tools: &BpfTools, build: Build) -> String {
    let linker = format!("linker={}", tools.linker.display());
    let arch = format!("bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    let cpu = format!("target-cpu={}", build.cpu);
    let flags = [
        "-C",
        &linker,
        "-C",
        "link-arg=--btf",
        "-C",
        NO_ORDERED_MEMCPY,
        "-C",
        &cpu,
        "-C",
        "debuginfo=2",
        "--cfg",
        &arch,
    ];
    flags.join("\x1f")
}

/// Cargo with the target, flags and target folder of the BPF side.
pub(crate) fn cargo(workspace: &Workspace, tools: &BpfTools, build: Build, verb: &str) -> Command {
    let mut cargo = workspace.cargo();
    cargo
        .args([
            verb,
            "--package",
            "agent-ebpf",
            "--bin",
            build.program,
            "--target",
            TARGET,
        ])
        .args(["-Z", "build-std=core", "--profile", "bpf", "--target-dir"])
        .arg(build.folder(workspace))
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(tools, build))
        // `build-std` is not stable; the pinned toolchain makes it repeatable.
        .env("RUSTC_BOOTSTRAP", "1");
    cargo
}

fn compile(workspace: &Workspace, tools: &BpfTools, build: Build) -> Result<()> {
    run::loud(cargo(workspace, tools, build, "build").arg("--quiet"))
}

fn check(bytes: &[u8]) -> Result<()> {
    let file = object::File::parse(bytes).context("not an object file")?;
    for name in SECTIONS_NEEDED {
        let section = file.section_by_name(name);
        ensure!(
            section.is_some_and(|section| section.size() > 0),
            "the object has no section {name}"
        );
    }
    let outside = file
        .symbols()
        .filter(|symbol| symbol.scope() != SymbolScope::Compilation);
    for symbol in outside {
        let Some(section) = symbol.section_index() else {
            continue;
        };
        let section = file.section_by_index(section)?;
        let section = section.name().context("a section's name is not text")?;
        if !SECTIONS_UNNAMED
            .iter()
            .any(|unnamed| section.starts_with(unnamed))
        {
            check_name(symbol.name().context("a symbol's name is not text")?)?;
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    ensure!(
        name.starts_with(PREFIX),
        "`{name}` is a program or map whose name does not begin with {PREFIX}"
    );
    ensure!(
        name.len() <= NAME_BYTES_MAX,
        "`{name}` has {} bytes, but the kernel shows only {NAME_BYTES_MAX}",
        name.len()
    );
    Ok(())
}

fn publish(bytes: &[u8], to: &Path) -> Result<()> {
    let shown = to.display();
    if fs::read(to).is_ok_and(|old| old == bytes) {
        run::ok(&format!("{shown} is unchanged"));
        return Ok(());
    }
    let dir = to.parent().context("the object's path has no folder")?;
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    // A build that reads it meanwhile sees the old or the new one, never half.
    let partial = to.with_extension("partial");
    fs::write(&partial, bytes).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, to).with_context(|| format!("renaming to {shown}"))?;
    run::ok(&format!("{shown} ({} bytes)", bytes.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check, check_name, publish};

    #[test]
    fn names_are_short_and_ours() {
        assert!(check_name("gd_steer").is_ok());
        assert!(check_name("gd_twelve_bytes").is_ok());
        assert!(check_name("gd_thirteen_byte").is_err());
        assert!(check_name("steer").is_err());
    }

    #[test]
    fn an_object_without_btf_is_refused() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = check(&own).unwrap_err().to_string();
        assert_eq!(error, "the object has no section .BTF");
        assert!(check(b"text").is_err());
    }

    #[test]
    fn an_unchanged_object_is_not_touched() {
        let dir = std::env::temp_dir().join(format!("ghostd-xtask-{}", std::process::id()));
        let to = dir.join("deep/object.o");
        publish(b"one", &to).unwrap();
        let first = std::fs::metadata(&to).unwrap();
        publish(b"one", &to).unwrap();
        let second = std::fs::metadata(&to).unwrap();
        publish(b"two", &to).unwrap();
        let third = std::fs::read(&to).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let inode = |meta: &std::fs::Metadata| std::os::unix::fs::MetadataExt::ino(meta);
        assert_eq!(inode(&first), inode(&second));
        assert_eq!(third, b"two");
    }
}
