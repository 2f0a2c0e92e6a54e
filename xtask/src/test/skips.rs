//! The file in which tests note that they were skipped: `name<TAB>reason`.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::outcome::Skip;

/// Name of the environment variable that tells tests the path.
pub(crate) const VARIABLE: &str = "GHOSTD_SKIPS";

pub(crate) struct SkipFile {
    path: PathBuf,
}

impl SkipFile {
    /// An empty file; what an earlier run left is gone.
    pub(crate) fn new(path: PathBuf) -> Result<Self> {
        let skips = Self { path };
        skips.remove()?;
        Ok(skips)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was noted since the last call.
    pub(crate) fn take(&self) -> Result<BTreeSet<Skip>> {
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            text => text.with_context(|| format!("reading {}", self.path.display()))?,
        };
        self.remove()?;
        Ok(parse(&text))
    }

    fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn parse(text: &str) -> BTreeSet<Skip> {
    let skip = |line: &str| {
        let (name, reason) = line
            .split_once('\t')
            .or_else(|| line.split_once(": "))
            .unwrap_or((line, "no reason given"));
        Skip {
            name: name.trim().to_owned(),
            reason: reason.trim().to_owned(),
        }
    };
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(skip)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{SkipFile, parse};

    #[test]
    fn what_was_noted_is_taken_once() {
        let name = format!("ghostd-xtask-skips-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, "left by an earlier run\n").unwrap();
        let skips = SkipFile::new(path.clone()).unwrap();
        assert!(skips.take().unwrap().is_empty());
        std::fs::write(&path, "a\tneeds root\n").unwrap();
        assert_eq!(skips.take().unwrap().len(), 1);
        assert!(skips.take().unwrap().is_empty());
        assert!(!path.exists());
    }

    #[test]
    fn lines_are_read() {
        let skips = parse("b::drain\tneeds kernel 6.3\na: no: root\n\nbare\n");
        let skips: Vec<_> = skips
            .iter()
            .map(|s| (s.name.as_str(), s.reason.as_str()))
            .collect();
        let wanted = [
            ("a", "no: root"),
            ("b::drain", "needs kernel 6.3"),
            ("bare", "no reason given"),
        ];
        assert_eq!(skips, wanted);
    }
}
