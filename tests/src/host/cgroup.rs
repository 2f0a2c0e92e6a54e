//! A cgroup v2 directory that exists as long as a value does.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{clock::wait_for, netns::NetNs};

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "gdt-";

/// Processes leave a cgroup shortly after they have ended.
const EMPTY_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Cgroup {
    place: NetNs,
    path: PathBuf,
}

impl Cgroup {
    /// Makes a directory, named after this process. `place` is inside a
    /// machine, where cgroup v2 is always at `/sys/fs/cgroup`.
    pub fn new(place: &NetNs) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let path = Path::new(ROOT).join(name);
        place.run(sweep)?;
        place
            .run(|| std::fs::create_dir(&path))?
            .with_context(|| format!("make cgroup {}", path.display()))?;
        let place = place.clone();
        Ok(Self { place, path })
    }

    /// As seen on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let gone = wait_for("a cgroup to empty", EMPTY_LIMIT, || {
            let removed = self.place.run(|| std::fs::remove_dir(&self.path));
            matches!(removed, Ok(Ok(()))).then_some(())
        });
        if gone.is_err() {
            eprintln!("cgroup {} could not be removed", self.path.display());
        }
    }
}

/// Removes what test processes left that were killed. Another sweep may be
/// quicker, and directories in use refuse: neither matters.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(ROOT) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|n| n.strip_prefix(PREFIX))
            .and_then(|n| n.split('-').next())
            .and_then(|pid| pid.parse::<i32>().ok());
        // /proc here shows the machine's processes only; a signal 0 would too.
        // The name is unique to its owner, and a live owner's is never empty
        // for longer than a moment.
        if owner.is_some_and(|pid| pid.unsigned_abs() != std::process::id()) {
            let _ = stale(&entry.path()).then(|| std::fs::remove_dir(entry.path()));
        }
    }
}

/// Empty, and older than any test makes one before it fills it.
fn stale(path: &Path) -> bool {
    let age = path.metadata().and_then(|m| m.modified()).ok();
    age.and_then(|at| at.elapsed().ok())
        .is_some_and(|age| age > Duration::from_secs(3600))
}
