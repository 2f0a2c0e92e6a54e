//! Cargo's manifests and the pages every reader looks for.

use super::{Breach, tree::Tree};

const PAGES: [&str; 5] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "README.md",
    "SPEC.md",
    "deny.toml",
];

/// Tables of a manifest that hold dependencies.
const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Manifests of the crates, with their folders.
pub(super) fn manifests(tree: &Tree) -> impl Iterator<Item = (&str, toml::Table)> {
    let is_manifest = |path: &str| path.ends_with("/Cargo.toml");
    // A manifest that is not TOML has stopped cargo before this runs.
    tree.texts()
        .filter(move |(path, _)| is_manifest(path))
        .filter_map(|(path, text)| Some((path, text.parse().ok()?)))
}

pub(super) fn lints_are_inherited(tree: &Tree) -> Vec<Breach> {
    let inherits = |manifest: &toml::Table| {
        let lints = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"));
        lints.and_then(toml::Value::as_bool) == Some(true)
    };
    let breach = |(file, _): (&str, toml::Table)| Breach {
        file: file.to_owned(),
        line: 0,
        wrong: "the crate does not inherit the lint table".to_owned(),
        mend: "add `[lints]` with `workspace = true`",
    };
    manifests(tree)
        .filter(|(_, manifest)| !inherits(manifest))
        .map(breach)
        .collect()
}

/// What a crate asks for and never names only costs build time.
pub(super) fn dependencies_are_used(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (file, manifest) in manifests(tree) {
        let folder = file.trim_end_matches("Cargo.toml");
        let sources: Vec<&str> = tree
            .rust()
            .filter(|(path, _)| path.starts_with(folder))
            .map(|(_, text)| text)
            .collect();
        for name in dependencies(&manifest) {
            let path = format!("{}::", name.replace('-', "_"));
            if !sources.iter().any(|text| text.contains(&path)) {
                breaches.push(Breach {
                    file: file.to_owned(),
                    line: 0,
                    wrong: format!("no source of the crate names its dependency `{name}`"),
                    mend: "take it out of the manifest",
                });
            }
        }
    }
    breaches
}

/// Names of all dependencies of a manifest.
pub(super) fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let of_targets = targets
        .into_iter()
        .flat_map(toml::Table::values)
        .filter_map(toml::Value::as_table);
    let tables = std::iter::once(manifest).chain(of_targets);
    let names = |table: &toml::Table| {
        let found = TABLES
            .iter()
            .filter_map(|name| table.get(*name)?.as_table());
        found
            .flat_map(toml::Table::keys)
            .cloned()
            .collect::<Vec<_>>()
    };
    tables.flat_map(names).collect()
}

pub(super) fn pages_exist(tree: &Tree) -> Vec<Breach> {
    let missing = PAGES.iter().filter(|page| !tree.has(page));
    let breach = |page: &&str| Breach {
        file: (*page).to_owned(),
        line: 0,
        wrong: "the page is missing".to_owned(),
        mend: "write it",
    };
    missing.map(breach).collect()
}

#[cfg(test)]
mod tests {
    use super::{PAGES, dependencies_are_used, lints_are_inherited, pages_exist};
    use crate::tidy::tree::Tree;

    #[test]
    fn a_crate_without_the_lint_table_is_found() {
        let good = Tree::of(&[("a/Cargo.toml", "[lints]\nworkspace = true\n")]);
        assert_eq!(lints_are_inherited(&good), []);
        for bad in [
            "[package]\n",
            "[lints]\nworkspace = false\n",
            "[lints.rust]\nx = 'deny'\n",
        ] {
            assert_eq!(
                lints_are_inherited(&Tree::of(&[("a/Cargo.toml", bad)])).len(),
                1,
                "{bad}"
            );
        }
    }

    #[test]
    fn a_dependency_that_is_not_named_is_found() {
        let manifest = "[dependencies]\nfutures-util = \"1\"\n[dev-dependencies]\nrand = \"1\"\n";
        let source = "use futures_util::Stream;";
        let tree = |test| {
            Tree::of(&[
                ("a/Cargo.toml", manifest),
                ("a/src/lib.rs", source),
                ("a/tests/x.rs", test),
                ("b/src/lib.rs", "use rand::Rng;"),
            ])
        };
        assert_eq!(dependencies_are_used(&tree("rand::random();")), []);
        assert_eq!(dependencies_are_used(&tree("")).len(), 1);
    }

    #[test]
    fn a_missing_page_is_found() {
        let pages = PAGES.map(|page| (page, ""));
        assert_eq!(pages_exist(&Tree::of(&pages)), []);
        assert_eq!(pages_exist(&Tree::of(&pages[1..])).len(), 1);
    }
}
