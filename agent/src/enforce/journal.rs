//! What was changed outside of a ghost's own folder, so that it can be undone.
//!
//! A line is written before each change, so a crash at any moment leaves at
//! most a line whose change was not made, and undoing that one does nothing.
//! Undone from the last line to the first.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::EnforceError;

/// Longest journal that is read: far more lines than instances.
const BYTES_MAX: u64 = 64 << 20;

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Change {
    /// A file held something else before.
    Set { path: PathBuf, was: String },
    /// A controller was off below this folder.
    Enabled { folder: PathBuf, controller: String },
    /// A number was to rise: what is above `was` is ours, up to `wanted`.
    Raised {
        path: PathBuf,
        was: u64,
        wanted: u64,
    },
}

/// Open for as long as its changes last.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    changes: Vec<Change>,
}

impl Journal {
    /// Opens the journal, and undoes what an earlier process left in it; with
    /// what could not be undone.
    pub fn open(path: &Path) -> Result<(Self, Vec<EnforceError>), EnforceError> {
        let failed = |source| EnforceError::Journal {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let options = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path);
        let file = options.map_err(failed)?;
        if file.metadata().map_err(failed)?.len() > BYTES_MAX {
            return Err(failed(io::Error::other("it is too large to be ours")));
        }
        let text = fs::read(path).map_err(failed)?;
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        // A torn last line is that of a change which was not made.
        let changes = lines.filter_map(|line| serde_json::from_slice(line).ok());
        let mut journal = Self {
            path: path.to_owned(),
            file,
            changes: changes.collect(),
        };
        let left = journal.undo();
        Ok((journal, left))
    }

    /// To be called before the change is made.
    pub(super) fn record(&mut self, change: Change) -> Result<(), EnforceError> {
        let failed = |source: io::Error| EnforceError::Journal {
            path: self.path.clone(),
            source,
        };
        let mut line = serde_json::to_vec(&change).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(failed)?;
        self.changes.push(change);
        Ok(())
    }

    /// Undoes what was changed in one folder, last change first. Its lines
    /// stay, and do nothing but the same again.
    pub fn undo_in(&mut self, folder: &Path) -> Vec<EnforceError> {
        let all = std::mem::take(&mut self.changes);
        let (of_it, rest) = all.into_iter().partition(|change| match change {
            Change::Set { path, .. } => path.parent() == Some(folder),
            Change::Enabled { .. } | Change::Raised { .. } => false,
        });
        self.changes = rest;
        let of_it: Vec<Change> = of_it;
        let undone = of_it.iter().rev().map(undo);
        undone.filter_map(Result::err).collect()
    }

    /// Undoes all, last change first. What fails is told and not tried again:
    /// somebody else has changed it in the meantime.
    pub fn undo(&mut self) -> Vec<EnforceError> {
        let mut failures = Vec::new();
        while let Some(change) = self.changes.pop() {
            failures.extend(undo(&change).err());
        }
        let emptied = self.file.set_len(0);
        failures.extend(emptied.err().map(|source| EnforceError::Journal {
            path: self.path.clone(),
            source,
        }));
        failures
    }
}

fn undo(change: &Change) -> Result<(), EnforceError> {
    match change {
        Change::Set { path, was } => write_if_there(path, was),
        Change::Enabled { folder, controller } => {
            let path = folder.join("cgroup.subtree_control");
            match write_if_there(&path, &format!("-{controller}")) {
                // Somebody else's folder below uses it now.
                Err(EnforceError::Write { source, .. })
                    if source.raw_os_error() == Some(libc::EBUSY) =>
                {
                    Ok(())
                }
                done => done,
            }
        }
        Change::Raised { path, was, wanted } => {
            let now = super::huge::number(path)?;
            let ours = now.min(*wanted).saturating_sub(*was);
            if ours == 0 {
                return Ok(());
            }
            write_if_there(path, &(now - ours).to_string())
        }
    }
}

/// What is gone needs no undoing.
fn write_if_there(path: &Path, value: &str) -> Result<(), EnforceError> {
    match write(path, value) {
        Err(EnforceError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        done => done,
    }
}

/// Writes to a file that is there: the kernel's are not made by writing.
pub(super) fn write(path: &Path, value: &str) -> Result<(), EnforceError> {
    let opened = OpenOptions::new().write(true).truncate(true).open(path);
    let written = opened.and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|source| EnforceError::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::tree::Tree;

    #[test]
    fn changes_are_undone_in_reverse_after_a_crash() {
        let tree = Tree::of(&[("a", "first"), ("pool", "3\n")]);
        let (a, pool) = (tree.path.join("a"), tree.path.join("pool"));
        let path = tree.path.join("run/journal");
        let (mut journal, left) = Journal::open(&path).unwrap();
        assert!(left.is_empty());
        for (was, then) in [("first", "second"), ("second", "third")] {
            let was = was.to_owned();
            let change = Change::Set {
                path: a.clone(),
                was,
            };
            journal.record(change).unwrap();
            write(&a, then).unwrap();
        }
        // Ten were asked for and two came; one of somebody else's since.
        let change = Change::Raised {
            path: pool.clone(),
            was: 3,
            wanted: 5,
        };
        journal.record(change).unwrap();
        write(&pool, "6").unwrap();
        // Its process ends here, while it writes another line.
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"change\":\"set\",\"pa").unwrap();

        let (_journal, left) = Journal::open(&path).unwrap();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(fs::read_to_string(&a).unwrap(), "first");
        assert_eq!(fs::read_to_string(&pool).unwrap(), "4");
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn what_is_gone_needs_no_undoing() {
        let tree = Tree::of(&[]);
        let (mut journal, _) = Journal::open(&tree.path.join("journal")).unwrap();
        let change = Change::Set {
            path: tree.path.join("gone"),
            was: "1".to_owned(),
        };
        journal.record(change).unwrap();
        assert!(journal.undo().is_empty());
        assert!(!tree.path.join("gone").exists());
    }
}
