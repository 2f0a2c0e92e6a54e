//! The cgroup v2 folder of a copy.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::ghost::error::GhostError;

/// A process leaves its cgroup shortly after it has ended.
const EMPTY_LIMIT: Duration = Duration::from_secs(5);
const EMPTY_LOOK: Duration = Duration::from_millis(1);

/// Makes it, if it is not there. Folders above it are made too, and stay.
pub(super) fn make(path: &Path) -> Result<(), GhostError> {
    let failed = |e| GhostError::MakeCgroup(path.to_owned(), e);
    fs::create_dir_all(path).map_err(failed)
}

/// Whoever writes `0` to it is a member.
pub(super) fn door(path: &Path) -> Result<OwnedFd, GhostError> {
    let procs = path.join("cgroup.procs");
    let opened = File::options().write(true).open(&procs);
    let opened = opened.map_err(|e| GhostError::Write(procs, e))?;
    Ok(opened.into())
}

/// One that is gone is removed.
pub(super) fn remove(path: &Path) -> Result<(), GhostError> {
    let deadline = Instant::now() + EMPTY_LIMIT;
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(EMPTY_LOOK);
            }
            Err(e) => return Err(GhostError::Remove(path.to_owned(), e)),
        }
    }
}
