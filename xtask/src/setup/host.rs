//! The machine: root, kernel, BTF and mounts.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, TRACEFS_MAGIC, statfs},
    unistd::geteuid,
};

use crate::run;

/// Oldest kernel with everything we use; Debian 12 has it.
const KERNEL_MIN: (u32, u32) = (6, 1);
const RELEASE: &str = "/proc/sys/kernel/osrelease";
const BTF: &str = "/sys/kernel/btf/vmlinux";

pub(super) fn root() -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "this needs root, for network namespaces and BPF: run it again as root, \
         for example with `sudo -E env PATH=\"$PATH\" cargo xtask ...`"
    );
    run::ok("root");
    Ok(())
}

pub(super) fn kernel() -> Result<()> {
    let release = fs::read_to_string(RELEASE).with_context(|| format!("reading {RELEASE}"))?;
    let release = release.trim();
    let Some(version) = parse_release(release) else {
        bail!("cannot read a version from the kernel release `{release}`");
    };
    let (major, minor) = KERNEL_MIN;
    ensure!(
        version >= KERNEL_MIN,
        "kernel {release} is too old: {major}.{minor} or later is needed; Debian 12 has 6.1, \
         get it with `apt-get install linux-image-amd64` and restart the machine"
    );
    run::ok(&format!("kernel {release} ({major}.{minor} or later)"));
    Ok(())
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub(super) fn btf() -> Result<()> {
    ensure!(
        Path::new(BTF).exists(),
        "{BTF} is missing: this kernel was built without CONFIG_DEBUG_INFO_BTF; \
         start a kernel that has it (Debian's do)"
    );
    run::ok("kernel BTF");
    Ok(())
}

/// File systems the daemon and the tests rely on.
pub(super) fn mounts() -> Result<()> {
    mounted("bpf", "/sys/fs/bpf", BPF_FS_MAGIC)?;
    mounted("tracefs", "/sys/kernel/tracing", TRACEFS_MAGIC)?;
    cgroup2()
}

fn mounted(kind: &str, at: &str, magic: FsType) -> Result<()> {
    let is_mounted = statfs(at).is_ok_and(|fs| fs.filesystem_type() == magic);
    let what = format!("{kind} at {at}");
    if is_mounted {
        run::ok(&what);
        return Ok(());
    }
    run::step(&format!("mounting {what}"), || {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting failed; try `mount -t {kind} {kind} {at}`"))
    })
}

/// cgroup v2 is either the whole hierarchy or lives beside v1 in `unified`.
fn cgroup2() -> Result<()> {
    const WHOLE: &str = "/sys/fs/cgroup";
    const BESIDE_V1: &str = "/sys/fs/cgroup/unified";
    let holds_v2 =
        |at: &str| statfs(at).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    if let Some(at) = [WHOLE, BESIDE_V1].into_iter().find(|at| holds_v2(at)) {
        run::ok(&format!("cgroup2 at {at}"));
        return Ok(());
    }
    let is_v1 = Path::new(WHOLE).join("memory").exists();
    let at = if is_v1 { BESIDE_V1 } else { WHOLE };
    fs::create_dir_all(at).with_context(|| format!("creating {at}"))?;
    mounted("cgroup2", at, CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::parse_release;

    #[test]
    fn releases_are_read() {
        assert_eq!(parse_release("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse_release("6.18.44-fc"), Some((6, 18)));
        assert_eq!(parse_release("7.0"), Some((7, 0)));
        assert_eq!(parse_release("linux"), None);
        assert!(parse_release("5.19.0").unwrap() < super::KERNEL_MIN);
    }
}
