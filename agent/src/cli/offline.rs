//! Without a daemon: what is pinned, listed and removed by ghostctl itself.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use agent_common::abi::names::LINK_PREFIX;

use super::{error::CliError, facts::Facts};
use crate::control::dto::{RoutesDto, StatusDto, SwitchesDto};

#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("cannot list the pins in {0}")]
    List(PathBuf, #[source] io::Error),
    #[error("cannot remove the pin {0}")]
    Remove(PathBuf, #[source] io::Error),
}

/// What is pinned under `root`; nothing if the folder is not there.
pub(super) fn pins(root: &Path) -> Result<Vec<PathBuf>, OfflineError> {
    let fail = |e| OfflineError::List(root.to_owned(), e);
    let entries = match std::fs::read_dir(root) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|e| e.map(|e| e.path())).collect();
    let mut paths = paths.map_err(fail)?;
    paths.sort();
    Ok(paths)
}

/// Removes all pins: links first, so that no program runs on half its maps'
/// names while an operator looks.
pub(super) fn clean(root: &Path) -> Result<Vec<PathBuf>, OfflineError> {
    let mut paths = pins(root)?;
    let is_link = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.as_encoded_bytes().starts_with(LINK_PREFIX.as_bytes())
    };
    paths.sort_by_key(|path| !is_link(path));
    for path in &paths {
        std::fs::remove_file(path).map_err(|e| OfflineError::Remove(path.clone(), e))?;
    }
    match std::fs::remove_dir(root) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(OfflineError::Remove(root.to_owned(), e)),
        _ => Ok(paths),
    }
}

pub(super) fn status(error: CliError, _pins: &Path) -> Result<StatusDto, CliError> {
    Err(error)
}

pub(super) fn routes(
    error: CliError,
    _pins: &Path,
    _instance: Option<&str>,
) -> Result<RoutesDto, CliError> {
    Err(error)
}

pub(super) fn switches(error: CliError, _pins: &Path) -> Result<SwitchesDto, CliError> {
    Err(error)
}

pub(super) async fn gather(_facts: &mut Facts, _pins: &Path, _gap: Duration) {}
