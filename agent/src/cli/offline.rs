//! Without a daemon: what is pinned, read, moved and removed by ghostctl itself.
//!
//! Everything ghostctl knows of the kernel is here. Reading says on standard
//! error why it was needed, so that nobody takes it for the daemon's word.

use std::{
    collections::BTreeSet,
    error::Error,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    error::{CliError, Exit},
    facts::Facts,
};
use crate::{
    control::{
        dto::{OutcomeDto, RoutesDto, Source, StatusDto, SwitchesDto},
        findings,
    },
    model::{SlotIndex, Snapshot},
    orchestrate::command::{Answer, Command},
    steer::{Pins, SteerError},
};

#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("cannot list the pins in {0}")]
    List(PathBuf, #[source] io::Error),
    #[error("cannot read what is pinned in {0}")]
    Read(PathBuf, #[source] SteerError),
    #[error("cannot remove what is pinned in {0}")]
    Clean(PathBuf, #[source] SteerError),
}

/// Stores to the pinned switches directly.
pub(super) fn carry_out(command: &Command, root: &Path) -> Result<OutcomeDto, CliError> {
    let pins = Pins::open(root).map_err(|e| OfflineError::Read(root.to_owned(), e))?;
    match pins.command(command, std::process::id()) {
        Ok(Answer::Unchanged) => Ok(OutcomeDto::Unchanged),
        Ok(Answer::Done | Answer::Snapshot(_) | Answer::Planned(_) | Answer::Armed(_)) => {
            Ok(OutcomeDto::Done)
        }
        Err(refusal) => Err(CliError::Refused(refusal.into())),
    }
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

/// Removes all pins, and tells which.
pub(super) fn clean(root: &Path) -> Result<Vec<PathBuf>, OfflineError> {
    if pins(root)?.is_empty() {
        return Ok(Vec::new());
    }
    Pins::clean(root).map_err(|e| OfflineError::Clean(root.to_owned(), e))
}

pub(super) fn status(error: CliError, root: &Path) -> Result<StatusDto, CliError> {
    instead_of_daemon(error, root).map(|seen| status_of(&seen))
}

pub(super) fn routes(
    error: CliError,
    root: &Path,
    instance: Option<&str>,
) -> Result<RoutesDto, CliError> {
    let seen = instead_of_daemon(error, root)?;
    match instance {
        Some(name) if !seen.instances.iter().any(|i| i.name == name) => {
            Err(CliError::UnknownInstance(name.to_owned()))
        }
        instance => Ok(RoutesDto::of(&seen, instance)),
    }
}

pub(super) fn switches(error: CliError, root: &Path) -> Result<SwitchesDto, CliError> {
    instead_of_daemon(error, root).map(|seen| SwitchesDto::from(&seen))
}

/// For `doctor`: two readings, or the finding that there can be none.
pub(super) async fn gather(facts: &mut Facts, root: &Path, gap: Duration) {
    if !facts.pinned {
        return;
    }
    let twice = async {
        let before = read(root)?;
        tokio::time::sleep(gap).await;
        Ok::<_, OfflineError>((before, read(root)?))
    };
    match twice.await {
        Ok((before, after)) => {
            let routes = [&before, &after].map(|seen| RoutesDto::of(seen, None));
            facts.routes = Some(routes.into());
            facts.status = Some(status_of(&after));
        }
        Err(error) => facts.pins_trouble = Some(chain(&error)),
    }
}

/// Armed instances that no cgroup leads to. Nothing without the right to look.
pub(super) fn cgroup_unknown(root: &Path) -> Vec<String> {
    let looked = Pins::open(root).and_then(|pins| Ok((pins.snapshot()?, pins.actual()?)));
    let Ok((seen, actual)) = looked else {
        return Vec::new();
    };
    let known: BTreeSet<SlotIndex> = actual.cgroups.values().copied().collect();
    let armed = seen.instances.iter().filter(|i| i.switch.armed);
    let unknown = armed.filter(|i| !known.contains(&i.slot));
    unknown.map(|i| i.name.clone()).collect()
}

fn status_of(seen: &Snapshot) -> StatusDto {
    StatusDto::of(Source::Pins, None, seen, findings::of_snapshot(seen))
}

fn read(root: &Path) -> Result<Snapshot, OfflineError> {
    let seen = Pins::open(root).and_then(|pins| pins.snapshot());
    seen.map_err(|e| OfflineError::Read(root.to_owned(), e))
}

/// Only where no daemon answers: what one refused is not looked up behind its back.
fn instead_of_daemon(error: CliError, root: &Path) -> Result<Snapshot, CliError> {
    if error.exit() != Exit::Unreachable || pins(root).is_ok_and(|pins| pins.is_empty()) {
        return Err(error);
    }
    match read(root) {
        Ok(seen) => {
            error.report();
            eprintln!("   read from the pins in {} instead", root.display());
            Ok(seen)
        }
        Err(offline) => {
            error.report();
            Err(CliError::NeitherWay(offline))
        }
    }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
