//! Cargo's manifests and the pages every reader looks for.

use super::{Breach, tree::Tree};

const PAGES: [&str; 5] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "README.md",
    "SPEC.md",
    "deny.toml",
];

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
    use super::{PAGES, lints_are_inherited, pages_exist};
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
    fn a_missing_page_is_found() {
        let pages = PAGES.map(|page| (page, ""));
        assert_eq!(pages_exist(&Tree::of(&pages)), []);
        assert_eq!(pages_exist(&Tree::of(&pages[1..])).len(), 1);
    }
}
