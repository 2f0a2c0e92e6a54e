//! Debian packages, and what stands for them on other systems.

use std::{
    collections::BTreeSet,
    env,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

use crate::run;

/// A Debian package, and the file that shows it is there on a system without dpkg.
pub(super) struct Package {
    name: String,
    probe: Probe,
}

enum Probe {
    Program(&'static str),
    File(String),
}

fn program(name: &str, program: &'static str) -> Package {
    Package {
        name: name.to_owned(),
        probe: Probe::Program(program),
    }
}

fn file(name: String, file: String) -> Package {
    Package {
        name,
        probe: Probe::File(file),
    }
}

/// bpf-linker links LLVM and Polly; cargo needs a C compiler to link at all.
pub(super) fn building(llvm: u32) -> Vec<Package> {
    let prefix = super::linker::llvm_prefix(llvm);
    vec![
        program("gcc", "cc"),
        file("libc6-dev".to_owned(), "/usr/include/stdio.h".to_owned()),
        file("libzstd-dev".to_owned(), "/usr/include/zstd.h".to_owned()),
        file(
            format!("llvm-{llvm}-dev"),
            format!("{prefix}/include/llvm-c/Core.h"),
        ),
        file(
            format!("libpolly-{llvm}-dev"),
            format!("{prefix}/lib/libPolly.a"),
        ),
    ]
}

/// What demo, tests and benchmarks start.
pub(super) fn running() -> Vec<Package> {
    vec![
        program("bpftool", "bpftool"),
        program("curl", "curl"),
        program("ethtool", "ethtool"),
        program("git", "git"),
        program("iproute2", "ip"),
        program("nftables", "nft"),
        program("procps", "sysctl"),
        program("tcpdump", "tcpdump"),
    ]
}

/// What a VM is made of, beside its kernel.
pub(super) fn vm() -> Vec<Package> {
    vec![
        program("binutils", "strip"),
        program("busybox-static", "busybox"),
        program("qemu-system-x86", "qemu-system-x86_64"),
    ]
}

/// Installs those that are missing; without root, says how.
pub(super) fn install(purpose: &str, packages: &[Package]) -> Result<()> {
    let is_debian = run::answers("dpkg-query", "--version").is_some();
    let missing = if is_debian {
        missing_of_dpkg(packages)?
    } else {
        missing_by_probe(packages)
    };
    let names: Vec<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    if missing.is_empty() {
        run::ok(&format!("packages {purpose}: {}", names.join(" ")));
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_debian {
        bail!(
            "this is not a Debian system, so packages are not installed here; \
             missing are what Debian calls: {list}"
        );
    }
    let command = format!("apt-get update && apt-get install -y --no-install-recommends {list}");
    if !geteuid().is_root() {
        bail!("packages are missing; as root, run `{command}`");
    }
    run::step(&format!("installing packages {purpose}: {list}"), || {
        run::quiet(apt().arg("update")).with_context(|| {
            format!("cannot read the package lists (is there a network?); then run `{command}`")
        })?;
        run::quiet(
            apt()
                .args(["install", "-y", "--no-install-recommends"])
                .args(&missing),
        )
        .with_context(|| format!("cannot install; see the lines above, then run `{command}`"))
    })?;
    Ok(())
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

fn missing_of_dpkg(packages: &[Package]) -> Result<Vec<String>> {
    // Exit status 1 only says that some package is unknown, which is the question.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status} ${Package}\n"])
        .args(packages.iter().map(|package| &package.name))
        .stderr(Stdio::null())
        .output()
        .context("cannot start `dpkg-query`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let installed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .collect();
    let missing = packages.iter().map(|package| &package.name);
    Ok(missing
        .filter(|name| !installed.contains(name.as_str()))
        .cloned()
        .collect())
}

fn missing_by_probe(packages: &[Package]) -> Vec<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |package: &Package| match &package.probe {
        Probe::File(file) => Path::new(file).exists(),
        Probe::Program(program) => env::split_paths(&path).any(|dir| dir.join(program).exists()),
    };
    packages
        .iter()
        .filter(|package| !is_there(package))
        .map(|p| p.name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{file, missing_by_probe, program};

    #[test]
    fn probes_find_what_is_there_and_name_what_is_not() {
        let packages = [
            program("dash", "sh"),
            program("nothing", "a-program-that-no-system-has"),
            file("passwd".to_owned(), "/etc/passwd".to_owned()),
            file("void".to_owned(), "/nowhere/void.h".to_owned()),
        ];
        assert_eq!(missing_by_probe(&packages), ["nothing", "void"]);
    }
}
