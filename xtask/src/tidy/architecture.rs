//! ARCHITECTURE.md names what is there, and nothing that is not.
//!
//! A folder is named as `` `agent/src/` ``; a dependency has a row whose
//! first cell is `` `name` ``, under a heading with the word "Dependencies".

use std::collections::BTreeSet;

use super::{
    Breach,
    tree::{Tree, is_test_module},
    workspace::{dependencies, manifests},
};

const PAGE: &str = "ARCHITECTURE.md";

pub(super) fn folders_are_named(tree: &Tree) -> Vec<Breach> {
    let page = page(tree);
    let named: BTreeSet<&str> = quoted(page).map(|(name, _)| name).collect();
    let sources = tree.rust().filter(|(path, _)| !is_test_module(path));
    let folders: BTreeSet<&str> = sources
        .filter_map(|(path, _)| path.rfind('/').map(|end| &path[..=end]))
        .collect();
    let missing = folders.into_iter().filter(|folder| !named.contains(folder));
    let breach = |folder| Breach {
        file: PAGE.to_owned(),
        line: 0,
        wrong: format!("the folder `{folder}` is not named"),
        mend: "say what it holds and what it must not know",
    };
    missing.map(breach).collect()
}

pub(super) fn named_folders_exist(tree: &Tree) -> Vec<Breach> {
    let crates: BTreeSet<&str> = manifests(tree)
        .filter_map(|(path, _)| path.strip_suffix("Cargo.toml"))
        .collect();
    let is_ours = |name: &str| name.ends_with('/') && crates.iter().any(|c| name.starts_with(c));
    let is_there = |name: &str| tree.files().any(|(path, _)| path.starts_with(name));
    let gone = quoted(page(tree)).filter(|(name, _)| is_ours(name) && !is_there(name));
    let breach = |(folder, line)| Breach {
        file: PAGE.to_owned(),
        line,
        wrong: format!("the folder `{folder}` is named but is not there"),
        mend: "take it out, or give its new name",
    };
    gone.map(breach).collect()
}

pub(super) fn dependencies_have_reasons(tree: &Tree) -> Vec<Breach> {
    let ours: BTreeSet<String> = manifests(tree)
        .filter_map(|(_, m)| crate_name(&m))
        .collect();
    let used: BTreeSet<String> = manifests(tree)
        .flat_map(|(_, manifest)| dependencies(&manifest))
        .filter(|name| !ours.contains(name))
        .collect();
    let rows = reasons(page(tree));
    let told: BTreeSet<&str> = rows.iter().map(|&(name, _)| name).collect();
    let mut breaches = Vec::new();
    for name in used.iter().filter(|name| !told.contains(name.as_str())) {
        breaches.push(Breach {
            file: PAGE.to_owned(),
            line: 0,
            wrong: format!("the dependency `{name}` has no line"),
            mend: "say in one line why it and not another",
        });
    }
    for &(name, line) in rows.iter().filter(|(name, _)| !used.contains(*name)) {
        breaches.push(Breach {
            file: PAGE.to_owned(),
            line,
            wrong: format!("`{name}` is not a dependency"),
            mend: "take its line out",
        });
    }
    breaches
}

fn page(tree: &Tree) -> &str {
    tree.text(PAGE).unwrap_or_default()
}

/// What stands in backquotes, with its line.
fn quoted(page: &str) -> impl Iterator<Item = (&str, usize)> {
    let in_line = |(line, number)| {
        let parts = str::split(line, '`').enumerate();
        parts
            .filter(|(at, _)| at % 2 == 1)
            .map(move |(_, name)| (name, number))
    };
    page.lines().zip(1..).flat_map(in_line)
}

/// Names in the first cells of the table of dependencies, with their lines.
fn reasons(page: &str) -> Vec<(&str, usize)> {
    let mut is_inside = false;
    let mut rows = Vec::new();
    for (line, number) in page.lines().zip(1..) {
        if line.starts_with('#') {
            is_inside = line.contains("Dependencies");
        }
        let cell = line
            .strip_prefix("| `")
            .and_then(|rest| rest.split_once("` |"));
        if let Some((name, reason)) = cell
            && is_inside
            && reason.trim_matches(['|', ' ']).contains(' ')
        {
            rows.push((name, number));
        }
    }
    rows
}

fn crate_name(manifest: &toml::Table) -> Option<String> {
    Some(manifest.get("package")?.get("name")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{dependencies_have_reasons, folders_are_named, named_folders_exist};
    use crate::tidy::tree::Tree;

    const MANIFEST: &str = "[package]\nname = \"a\"\n[dependencies]\nserde = \"1\"\nb = { path = \"../b\" }\n\
         [target.'cfg(unix)'.dev-dependencies]\nlibc = \"0.2\"\n";

    const OTHER: &str = "[package]\nname = \"b\"\n";

    fn tree<'a>(page: &'a str, more: &[(&'a str, &'a str)]) -> Tree {
        let mut files = vec![
            ("ARCHITECTURE.md", page),
            ("a/Cargo.toml", MANIFEST),
            ("b/Cargo.toml", OTHER),
        ];
        files.extend(more);
        Tree::of(&files)
    }

    #[test]
    fn every_folder_with_sources_is_named() {
        let files = [("a/src/room/x.rs", ""), ("a/src/room/tests/y.rs", "")];
        assert_eq!(
            folders_are_named(&tree("`a/src/room/`: a room", &files)),
            []
        );
        assert_eq!(
            folders_are_named(&tree("a/src/room/ and `a/src/`", &files)).len(),
            1
        );
    }

    #[test]
    fn every_named_folder_is_there() {
        let files = [("a/src/room/x.rs", "")];
        let page = "`a/src/room/`, `/sys/fs/bpf/`, `other/`";
        assert_eq!(named_folders_exist(&tree(page, &files)), []);
        let breaches = named_folders_exist(&tree("x\n`a/src/gone/`", &files));
        assert_eq!((breaches.len(), breaches[0].line), (1, 2));
    }

    #[test]
    fn every_dependency_has_a_reason_and_every_reason_a_dependency() {
        let good = "## Dependencies\n| `serde` | reads documents |\n| `libc` | numbers of system calls |\n";
        assert_eq!(dependencies_have_reasons(&tree(good, &[])), []);
        let without = "## Dependencies\n| `serde` | |\n| `libc` | numbers of system calls |\n";
        assert_eq!(dependencies_have_reasons(&tree(without, &[])).len(), 1);
        let elsewhere = good.replace("Dependencies", "Rooms");
        assert_eq!(dependencies_have_reasons(&tree(&elsewhere, &[])).len(), 2);
        let stale = format!("{good}| `rand` | no longer used |\n");
        let breaches = dependencies_have_reasons(&tree(&stale, &[]));
        assert_eq!((breaches.len(), breaches[0].line), (1, 4));
    }
}
