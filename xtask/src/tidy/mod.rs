//! House rules that no compiler and no lint knows.
//!
//! Owns: the rules, and the lists of pure files and of rooms. Each rule is a
//! function from the files of the repository to its breaches; none changes
//! anything. A breach is one line: where, what is wrong, what to do.

mod architecture;
mod purity;
mod rooms;
mod size;
mod text;
mod tokens;
mod tree;
mod workspace;

use std::{fmt, process::ExitCode};

use anyhow::Result;

use self::tree::Tree;
use crate::{test::outcome::Outcome, workspace::Workspace};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Breach {
    file: String,
    /// Counts from 1; 0 for the whole file.
    line: usize,
    wrong: String,
    mend: &'static str,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            wrong,
            mend,
        } = self;
        match line {
            0 => write!(f, "{file}: {wrong}: {mend}"),
            line => write!(f, "{file}:{line}: {wrong}: {mend}"),
        }
    }
}

type Rule = fn(&Tree) -> Vec<Breach>;

const RULES: [Rule; 14] = [
    architecture::folders_are_named,
    architecture::named_folders_exist,
    architecture::dependencies_have_reasons,
    purity::pure_files_are_pure,
    purity::list_is_current,
    rooms::rooms_are_apart,
    size::files_are_short,
    size::folders_are_shallow,
    text::nothing_is_unfinished,
    text::no_machine_paths,
    text::no_compiled_objects,
    workspace::dependencies_are_used,
    workspace::lints_are_inherited,
    workspace::pages_exist,
];

/// `cargo xtask tidy`.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let breaches = breaches(&Tree::read(workspace.root())?);
    for breach in &breaches {
        println!("{breach}");
    }
    if breaches.is_empty() {
        println!("tidy");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} breaches of the house rules", breaches.len());
    Ok(ExitCode::FAILURE)
}

/// The same as a test.
pub(crate) fn outcome(workspace: &Workspace) -> Result<Outcome> {
    let breaches = breaches(&Tree::read(workspace.root())?);
    let lines: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    let result = if lines.is_empty() {
        Ok(())
    } else {
        Err(lines.join("\n"))
    };
    Ok(Outcome::of_check("cargo xtask tidy", result))
}

fn breaches(tree: &Tree) -> Vec<Breach> {
    let mut breaches: Vec<Breach> = RULES.iter().flat_map(|rule| rule(tree)).collect();
    breaches.sort();
    breaches.dedup();
    breaches
}

#[cfg(test)]
mod tests {
    use super::Breach;

    #[test]
    fn a_breach_is_one_line() {
        let mut breach = Breach {
            file: "a.rs".to_owned(),
            line: 3,
            wrong: "something is wrong".to_owned(),
            mend: "mend it",
        };
        assert_eq!(breach.to_string(), "a.rs:3: something is wrong: mend it");
        breach.line = 0;
        assert_eq!(breach.to_string(), "a.rs: something is wrong: mend it");
    }
}
