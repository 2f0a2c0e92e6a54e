//! One daemon for each pin root.
//!
//! A file system of BPF pins takes no locks, so the lock is a file under
//! `/run`, named after the pin root. The kernel drops it with the process.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

const FOLDER: &str = "/run/ghostd";

/// Whoever may read a file may lock it, and then keep ghostd from starting.
const MODE: u32 = 0o600;

#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    #[error("cannot open the lock {0}")]
    Open(PathBuf, #[source] io::Error),
    #[error("another ghostd (pid {pid}) owns {pins}; it holds {lock}")]
    Taken {
        pid: String,
        pins: PathBuf,
        lock: PathBuf,
    },
    #[error("cannot lock {0}")]
    Lock(PathBuf, #[source] io::Error),
}

/// Held until dropped, or until the process ends however it ends.
pub(super) fn take(pins: &Path) -> Result<Flock<File>, LockError> {
    let path = path(pins);
    let open = || -> io::Result<File> {
        fs::create_dir_all(FOLDER)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE)
            .open(&path)
            .and_then(|file| {
                // An earlier version made it readable.
                file.set_permissions(Permissions::from_mode(MODE))?;
                Ok(file)
            })
    };
    let file = open().map_err(|e| LockError::Open(path.clone(), e))?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            // Only to name it; an unreadable file still says that it is taken.
            let _ = file.read_to_string(&mut pid);
            return Err(LockError::Taken {
                pid: pid.trim().to_owned(),
                pins: pins.to_owned(),
                lock: path,
            });
        }
        Err((_, e)) => return Err(LockError::Lock(path, e.into())),
    };
    let write = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut lock).map_err(|e| LockError::Open(path, e))?;
    Ok(lock)
}

fn path(pins: &Path) -> PathBuf {
    let name = pins.to_string_lossy();
    let name = name.trim_matches('/').replace('/', "-");
    Path::new(FOLDER).join(format!("{name}.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pin_root_has_a_lock_of_its_own() {
        assert_eq!(
            path(Path::new("/sys/fs/bpf/ghostd")),
            Path::new("/run/ghostd/sys-fs-bpf-ghostd.lock")
        );
    }
}
