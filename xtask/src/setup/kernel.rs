//! Debian's kernel for VMs: unpacked beside the other tools, not installed.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{run, workspace::Workspace};

/// Depends on the latest kernel of this release.
const META: &str = "linux-image-amd64";
/// What that kernel has to be, so that all machines test the same.
const SERIES: &str = "linux-image-6.1.";
/// In the folder once it is complete; holds the package's name.
const DONE: &str = "package";

/// Gets it once; another one is had by removing the folder.
pub(super) fn get(workspace: &Workspace) -> Result<()> {
    let home = workspace.vm_kernel();
    if let Ok(package) = fs::read_to_string(home.join(DONE)) {
        run::ok(&format!("kernel for VMs: {}", package.trim()));
        return Ok(());
    }
    let tools = workspace.tools();
    fs::create_dir_all(tools).with_context(|| format!("creating {}", tools.display()))?;
    // Two checkouts may be set up at the same time: the second waits, then finds it.
    let lock_path = home.with_extension("lock");
    let lock = fs::File::create(&lock_path)
        .with_context(|| format!("creating {}", lock_path.display()))?;
    lock.lock()
        .with_context(|| format!("locking {}", lock_path.display()))?;
    if home.join(DONE).exists() {
        return Ok(());
    }
    run::step("getting Debian's kernel for VMs (70 MB, once)", || {
        let partial = home.with_extension("partial");
        for old in [&partial, &home] {
            if old.exists() {
                fs::remove_dir_all(old).with_context(|| format!("removing {}", old.display()))?;
            }
        }
        fs::create_dir(&partial).with_context(|| format!("creating {}", partial.display()))?;
        unpack(&partial)?;
        fs::rename(&partial, &home).with_context(|| format!("renaming to {}", home.display()))
    })
}

fn unpack(folder: &Path) -> Result<()> {
    let depends = run::quiet(Command::new("apt-cache").args(["depends", META]))?;
    let Some(package) = package(&depends) else {
        bail!("{META} depends on no {SERIES}*; VMs need the kernel of Debian 12:\n{depends}");
    };
    run::quiet(
        Command::new("apt-get")
            .current_dir(folder)
            .args(["download", package]),
    )
    .context("cannot get the kernel (is there a network? is the package list old?)")?;
    let mut files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let file = file.context("apt-get has put no package where it was told to")?;
    run::quiet(Command::new("dpkg-deb").arg("-x").arg(&file).arg(folder))?;
    fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    ensure!(folder.join("boot").is_dir(), "{package} has no /boot");
    fs::write(folder.join(DONE), package).context("noting which kernel it is")
}

fn package(depends: &str) -> Option<&str> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(SERIES))
}

#[cfg(test)]
mod tests {
    use super::package;

    #[test]
    fn the_kernel_is_found_in_what_apt_says() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(package(text), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(
            package("linux-image-amd64\n  Depends: linux-image-7.0\n"),
            None
        );
    }
}
