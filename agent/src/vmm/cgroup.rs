//! The cgroup that the process moves into before it opens anything.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::statfs::{CGROUP2_SUPER_MAGIC, statfs},
};

/// Makes the folder if it is not there; its owner removes it. What is above
/// it must be there, and a cgroup of version 2.
pub(super) fn join(folder: &Path) -> io::Result<()> {
    let above: PathBuf = folder.components().collect();
    let above = above.parent().ok_or(Errno::EINVAL)?;
    // Elsewhere a plain folder would be made, and a plain file.
    if statfs(above)?.filesystem_type() != CGROUP2_SUPER_MAGIC {
        return Err(Errno::EMEDIUMTYPE.into());
    }
    let made = match fs::create_dir(folder) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let joined = fs::write(folder.join("cgroup.procs"), "0");
    if joined.is_err() && made {
        // Of no use to anybody, and empty.
        let _ = fs::remove_dir(folder);
    }
    joined
}
