//! Cgroups that come and go.
//!
//! The kernel knows an instance by the id of its cgroup, which is there from
//! the moment the directory is. So directories are watched, not polled: an
//! instance may reboot right after it started.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use tokio::io::unix::AsyncFd;

use super::{
    error::SteerError,
    sys::{self, Watched},
};

/// Id of a cgroup v2 directory, which is its inode; `None` if there is none.
pub fn cgroup_id(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// News of directories.
#[derive(Debug)]
pub struct CgroupNews {
    inotify: AsyncFd<Watched<Inotify>>,
    folders: BTreeSet<PathBuf>,
    /// Names whose coming and going is news: those of the wanted directories
    /// and of all above them.
    names: BTreeSet<OsString>,
}

impl CgroupNews {
    /// To be called within a tokio runtime.
    pub(super) fn open() -> Result<Self, SteerError> {
        let open = || -> io::Result<AsyncFd<Watched<Inotify>>> {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            sys::readable(inotify)
        };
        Ok(Self {
            inotify: open().map_err(SteerError::Watch)?,
            folders: BTreeSet::new(),
            names: BTreeSet::new(),
        })
    }

    /// Watches for `paths`, and for nothing else any more. To be called again
    /// after news: a directory that came may bring the next one.
    pub fn watch<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) -> Result<(), SteerError> {
        let mut wanted = BTreeSet::new();
        self.names.clear();
        for path in paths {
            self.names.extend(path.iter().map(OsString::from));
            let above = path.ancestors().skip(1);
            wanted.extend(above.into_iter().find(|p| p.is_dir()).map(Path::to_owned));
        }
        if wanted == self.folders {
            return Ok(());
        }
        // Anew, which is simpler than to take single watches back, and rare.
        let fresh = Self::open()?;
        self.inotify = fresh.inotify;
        self.folders.clear();
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        for folder in wanted {
            match self.inotify.get_ref().0.add_watch(&folder, flags) {
                Ok(_) => drop(self.folders.insert(folder)),
                // Gone in between: the next look finds the one above it.
                Err(Errno::ENOENT) => {}
                Err(e) => return Err(SteerError::Watch(e.into())),
            }
        }
        Ok(())
    }

    /// Resolves when a name that matters came or went. Cancel safe: what was
    /// not read stays.
    pub async fn wait(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable_mut().await?;
            match ready.get_inner().0.read_events() {
                Ok(events) => {
                    // No name: a folder itself went, and its watch with it, or
                    // news were lost. All watches are set anew.
                    if events.iter().any(|e| e.name.is_none()) {
                        self.folders.clear();
                        return Ok(());
                    }
                    let mut names = events.iter().filter_map(|e| e.name.as_ref());
                    if names.any(|name| self.names.contains(name)) {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(e) => return Err(e.into()),
            }
        }
    }
}
