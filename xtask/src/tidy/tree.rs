//! The files of the repository: what git tracks, or would if it were added.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::run;

#[derive(Debug, Default)]
pub(super) struct Tree {
    /// By path from the root of the repository.
    files: BTreeMap<String, Vec<u8>>,
}

impl Tree {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut git = Command::new("git");
        git.current_dir(root)
            // A checkout that another user owns is fine to look at.
            .args(["-c", "safe.directory=*", "ls-files", "-z"])
            .args(["--cached", "--others", "--exclude-standard"]);
        let list = run::quiet(&mut git).context("tidy looks at what git knows")?;
        let mut files = BTreeMap::new();
        for path in list.split('\0').filter(|path| !path.is_empty()) {
            let full = root.join(path);
            // A deleted file is still tracked, and a link has no content of its own.
            if full.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                let bytes = fs::read(&full).with_context(|| format!("reading {path}"))?;
                files.insert(path.to_owned(), bytes);
            }
        }
        Ok(Self { files })
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let own = |&(path, text): &(&str, &str)| (path.to_owned(), text.as_bytes().to_vec());
        Self {
            files: files.iter().map(own).collect(),
        }
    }

    #[cfg(test)]
    pub(super) fn with_bytes(mut self, path: &str, bytes: &[u8]) -> Self {
        self.files.insert(path.to_owned(), bytes.to_vec());
        self
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// Files that are text, or `None` for a path that is not there or is not text.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(self.files.get(path)?).ok()
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files()
            .filter_map(|(path, bytes)| Some((path, std::str::from_utf8(bytes).ok()?)))
    }

    pub(super) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }
}

/// Whether a file is a test module that stands in a file or folder of its own.
pub(super) fn is_test_module(path: &str) -> bool {
    let Some((_, below)) = path.split_once("src/") else {
        return false;
    };
    below
        .split('/')
        .any(|part| part == "tests" || part == "tests.rs")
}
