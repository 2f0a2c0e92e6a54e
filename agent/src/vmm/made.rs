//! Files that this process has made, and takes away again.

use std::{fs, io, path::PathBuf};

/// For how long a file is ours to take away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Until the guest runs; from then on it is somebody's.
    Running,
    /// Until the process ends.
    End,
}

/// What is taken away when this goes.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<(PathBuf, Until)>);

impl Made {
    pub(super) fn add(&mut self, path: PathBuf, until: Until) {
        self.0.push((path, until));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Somebody else takes it away.
    pub(super) fn forget(mut self) {
        self.0.clear();
    }

    /// The guest runs.
    pub(super) fn running(mut self) -> Self {
        self.0.retain(|&(_, until)| until == Until::End);
        self
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for (path, _) in &self.0 {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                eprintln!("cannot remove {}: {error}", path.display());
            }
        }
    }
}
