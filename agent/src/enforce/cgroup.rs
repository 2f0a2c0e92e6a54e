//! Limits of a copy's cgroup v2 folder: written, and read back.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    EnforceError,
    capacity::read,
    journal::{Change, Journal, write},
    limits::Setting,
};
use crate::model::NotInForce;

const CONTROLLERS: &str = "cgroup.controllers";
const BELOW: &str = "cgroup.subtree_control";

/// What became of the limits of one copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub in_force: Vec<Setting>,
    pub not_in_force: Vec<NotInForce>,
}

/// Brings the settings into force as far as the host can. Controllers are
/// enabled in the folders above at need, which the journal undoes; so are the
/// settings themselves, unless the folder is gone by then.
///
/// Fails only if the folder is not there, or the journal cannot be written.
pub fn apply(
    folder: &Path,
    settings: &[Setting],
    journal: &mut Journal,
) -> Result<Report, EnforceError> {
    read(&folder.join(CONTROLLERS))?;
    let above = above(folder);
    let mut report = Report::default();
    let mut lacking: Vec<(&str, String)> = Vec::new();
    let wanted: BTreeSet<&str> = settings.iter().map(Setting::controller).collect();
    for controller in wanted {
        if let Some(why) = enable(controller, folder, &above, journal)? {
            lacking.push((controller, why));
        }
    }
    for setting in settings {
        let lack = lacking
            .iter()
            .find(|(name, _)| *name == setting.controller());
        let why = match lack {
            Some((_, why)) => Some(why.clone()),
            None => set(folder, setting, journal)?,
        };
        match why {
            None => report.in_force.push(setting.clone()),
            Some(why) => report.not_in_force.push(NotInForce {
                file: setting.file,
                why,
            }),
        }
    }
    report.not_in_force.extend(hollow(&above, settings));
    report
        .in_force
        .retain(|setting| !report.not_in_force.iter().any(|n| n.file == setting.file));
    Ok(report)
}

/// The folders above, from the root of the hierarchy down.
fn above(folder: &Path) -> Vec<PathBuf> {
    let folders = folder.ancestors().skip(1);
    let folders = folders.take_while(|above| above.join(CONTROLLERS).exists());
    let mut folders: Vec<PathBuf> = folders.map(Path::to_owned).collect();
    folders.reverse();
    folders
}

fn has(path: &Path, controller: &str) -> Result<bool, EnforceError> {
    let text = read(path)?;
    Ok(text.split_whitespace().any(|name| name == controller))
}

/// Why the controller cannot be used in this folder, if it cannot.
fn enable(
    controller: &str,
    folder: &Path,
    above: &[PathBuf],
    journal: &mut Journal,
) -> Result<Option<String>, EnforceError> {
    if has(&folder.join(CONTROLLERS), controller)? {
        return Ok(None);
    }
    for parent in above {
        let offered = parent.join(CONTROLLERS);
        if !has(&offered, controller)? {
            let offered = offered.display();
            return Ok(Some(format!("no {controller} controller in {offered}")));
        }
        let below = parent.join(BELOW);
        if has(&below, controller)? {
            continue;
        }
        journal.record(Change::Enabled {
            folder: parent.clone(),
            controller: controller.to_owned(),
        })?;
        if let Err(error) = write(&below, &format!("+{controller}")) {
            return Ok(Some(in_words(&error)));
        }
    }
    // Not below a root, or the kernel said yes and did nothing.
    let is_there = has(&folder.join(CONTROLLERS), controller)?;
    let offered = folder.join(CONTROLLERS);
    Ok((!is_there).then(|| format!("no {controller} controller in {}", offered.display())))
}

/// Why the setting is not in force, if it is not.
fn set(
    folder: &Path,
    setting: &Setting,
    journal: &mut Journal,
) -> Result<Option<String>, EnforceError> {
    let path = folder.join(setting.file);
    let was = match fs::read_to_string(&path) {
        Ok(was) => was,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Some(format!("there is no {}", path.display())));
        }
        Err(error) => return Ok(Some(format!("cannot read {}: {error}", path.display()))),
    };
    if setting.is_shown_as(&was) {
        return Ok(None);
    }
    let was = was.trim().to_owned();
    journal.record(Change::Set {
        path: path.clone(),
        was,
    })?;
    if let Err(error) = write(&path, &setting.value) {
        return Ok(Some(in_words(&error)));
    }
    let shown = read(&path)?;
    let is_taken = setting.is_shown_as(&shown);
    Ok((!is_taken).then(|| {
        let (path, shown) = (path.display(), shown.trim().escape_debug());
        format!(
            "wrote `{}` to {path}, and it shows `{shown}`",
            setting.value
        )
    }))
}

/// `memory.min` protects nothing below a folder that protects less.
fn hollow(above: &[PathBuf], settings: &[Setting]) -> Option<NotInForce> {
    let file = "memory.min";
    let wanted = settings.iter().find(|setting| setting.file == file)?;
    let wanted: u64 = wanted.value.parse().ok().filter(|wanted| *wanted > 0)?;
    let mut inner = above.iter().filter(|above| above.join(file).exists());
    let less = |above: &&PathBuf| -> bool {
        let text = fs::read_to_string(above.join(file)).unwrap_or_default();
        text.trim().parse::<u64>().is_ok_and(|has| has < wanted)
    };
    let above = inner.find(less)?;
    let path = above.join(file);
    Some(NotInForce {
        file,
        why: format!("{} is less", path.display()),
    })
}

fn in_words(error: &EnforceError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::{limits::of_primary, tree::Tree};

    fn journal(tree: &Tree) -> Journal {
        Journal::open(&tree.path.join("run/journal")).unwrap().0
    }

    #[test]
    fn a_missing_controller_is_named() {
        let tree = Tree::of(&[
            ("cg/cgroup.controllers", "hugetlb\n"),
            ("cg/cgroup.subtree_control", "\n"),
            ("cg/vm/cgroup.controllers", "\n"),
        ]);
        let folder = tree.path.join("cg/vm");
        let report = apply(&folder, &of_primary(1 << 20), &mut journal(&tree)).unwrap();
        assert!(report.in_force.is_empty());
        let said: Vec<String> = report
            .not_in_force
            .iter()
            .map(ToString::to_string)
            .collect();
        let root = tree.path.join("cg/cgroup.controllers");
        let expected = format!(
            "not in force: memory.min (no memory controller in {})",
            root.display()
        );
        assert_eq!(said[0], expected);
        assert_eq!(said.len(), 2);
    }

    #[test]
    fn what_is_set_is_undone_and_hollow_protection_is_told() {
        let tree = Tree::of(&[
            ("cg/cgroup.controllers", "memory pids\n"),
            ("cg/slice/cgroup.controllers", "memory pids\n"),
            ("cg/slice/memory.min", "4096\n"),
            ("cg/slice/vm/cgroup.controllers", "memory pids\n"),
            ("cg/slice/vm/memory.min", "0\n"),
            ("cg/slice/vm/pids.max", "max\n"),
        ]);
        let folder = tree.path.join("cg/slice/vm");
        let mut journal = journal(&tree);
        let report = apply(&folder, &of_primary(1 << 20), &mut journal).unwrap();
        assert_eq!(report.in_force.len(), 1);
        assert_eq!(report.in_force[0].file, "pids.max");
        assert!(
            report.not_in_force[0]
                .why
                .ends_with("slice/memory.min is less")
        );
        let is = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(
            (is("memory.min"), is("pids.max")),
            ("1048576".into(), "64".into())
        );
        assert!(journal.undo().is_empty());
        assert_eq!(
            (is("memory.min"), is("pids.max")),
            ("0".into(), "max".into())
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let tree = Tree::of(&[]);
        let error = apply(&tree.path.join("vm"), &of_primary(1), &mut journal(&tree));
        assert!(error.unwrap_err().to_string().starts_with("cannot read "));
    }
}
