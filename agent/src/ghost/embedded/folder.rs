//! The folder of a copy: `RUN/NAME/primary` or `RUN/NAME/ghost`.
//!
//! Owns: its files and what they mean. It exists from before a process does
//! until after it is gone, so nothing is ever left that no folder names.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::fd::OwnedFd,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use agent_common::abi::Side;
use serde::{Deserialize, Serialize};

use crate::{
    ghost::{backend::side_name, error::GhostError, life::Mark},
    model::CopyId,
};

/// What a later daemon has to know, beside what the process itself says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Of the kernel that runs it; files of an earlier one name no process.
    pub(super) boot_id: String,
    pub(super) memory_bytes: u64,
    pub(super) cgroup: Option<PathBuf>,
    /// The cgroup was made for it.
    pub(super) owns_cgroup: bool,
    pub(super) disk: Option<PathBuf>,
    pub(super) epoch: u64,
    pub(super) is_torn: bool,
    pub(super) works: bool,
}

impl Record {
    pub(super) fn mark(&self) -> Mark {
        Mark {
            epoch: self.epoch,
            is_torn: self.is_torn,
            works: self.works,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn of(run: &Path, id: &CopyId) -> Self {
        Self(run.join(id.instance.as_str()).join(side_name(id.side)))
    }

    /// Of the copy of it that a drill runs.
    pub(super) fn drill(&self) -> Self {
        Self(self.0.join("drill"))
    }

    pub(super) fn is_there(&self) -> bool {
        self.0.is_dir()
    }

    /// Makes it; refuses one that is there, for a copy may live in it.
    pub(super) fn create(&self) -> Result<(), GhostError> {
        let failed = |e| GhostError::MakeFolder(self.0.clone(), e);
        // What the guest's owner typed may be in here.
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        if let Some(parent) = self.0.parent() {
            builder.recursive(true).create(parent).map_err(failed)?;
        }
        match builder.recursive(false).create(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(GhostError::Occupied(self.0.clone()))
            }
            made => made.map_err(failed),
        }
    }

    pub(super) fn control(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    pub(super) fn serial(&self) -> PathBuf {
        self.0.join("serial.log")
    }

    fn record_path(&self) -> PathBuf {
        self.0.join("record.json")
    }

    /// What the program says by itself: why it could not start.
    pub(super) fn said(&self) -> PathBuf {
        self.0.join("vmm.log")
    }

    fn pid_path(&self) -> PathBuf {
        self.0.join("pid")
    }

    pub(super) fn new_pid_file(&self) -> Result<OwnedFd, GhostError> {
        self.new_file(&self.pid_path()).map(OwnedFd::from)
    }

    pub(super) fn new_said_file(&self) -> Result<File, GhostError> {
        self.new_file(&self.said())
    }

    fn new_file(&self, path: &Path) -> Result<File, GhostError> {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let opened = options.open(path);
        opened.map_err(|e| GhostError::Write(path.to_owned(), e))
    }

    /// The process that was started last, if any was.
    pub(super) fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.pid_path())
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// In one go: a reader finds the old one or the new one.
    pub(super) fn write_record(&self, record: &Record) -> Result<(), GhostError> {
        let path = self.record_path();
        let failed = |e| GhostError::Write(path.clone(), e);
        let bytes = serde_json::to_vec(record).map_err(|e| failed(e.into()))?;
        let draft = self.0.join("record.json.new");
        // No sync: the file is about processes, which a crash ends too.
        self.new_file(&draft)?.write_all(&bytes).map_err(failed)?;
        fs::rename(&draft, &path).map_err(failed)
    }

    pub(super) fn read_record(&self) -> Result<Record, GhostError> {
        let path = self.record_path();
        let bytes = fs::read(&path).map_err(|e| GhostError::Read(path.clone(), e))?;
        serde_json::from_slice(&bytes).map_err(|e| GhostError::Record(path, e))
    }

    /// With all that is in it, and the instance's own folder if it is empty then.
    pub(super) fn remove(&self) -> Result<(), GhostError> {
        match fs::remove_dir_all(&self.0) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(GhostError::Remove(self.0.clone(), e)),
        }
        if let Some(parent) = self.0.parent() {
            // The other copy may be in it.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

/// All copies that have a folder.
pub(super) fn all(run: &Path) -> Vec<CopyId> {
    let names = fs::read_dir(run).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let copies = names.flat_map(|instance: crate::model::InstanceName| {
        [Side::Primary, Side::Ghost].map(|side| CopyId {
            instance: instance.clone(),
            side,
        })
    });
    copies.filter(|id| Folder::of(run, id).is_there()).collect()
}

/// Tells this run of the kernel from others.
pub(super) fn boot_id() -> Result<String, GhostError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(|e| GhostError::Read(path.to_owned(), e))?;
    Ok(text.trim().to_owned())
}
