//! Small files in shallow folders.

use super::{
    Breach,
    tokens::Source,
    tree::{Tree, is_test_module},
};

/// Lines of a file that are not tests.
const LINES_MAX: usize = 500;

/// Folders below `src`.
const DEPTH_MAX: usize = 2;

pub(super) fn files_are_short(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (file, text) in tree.rust().filter(|(path, _)| !is_test_module(path)) {
        let source = Source::parse(text).unwrap_or_default();
        let tests: usize = source
            .tests
            .iter()
            .map(|lines| lines.end() - lines.start() + 1)
            .sum();
        let lines = text.lines().count() - tests;
        if lines > LINES_MAX {
            breaches.push(Breach {
                file: file.to_owned(),
                line: 0,
                wrong: format!("{lines} lines without tests, at most {LINES_MAX} are allowed"),
                mend: "split it where a reader would look for the parts",
            });
        }
    }
    breaches
}

pub(super) fn folders_are_shallow(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (file, _) in tree.rust() {
        let Some((_, below)) = file.split_once("src/") else {
            continue;
        };
        let folders = below
            .split('/')
            .rev()
            .skip(1)
            .filter(|&part| part != "tests")
            .count();
        if folders > DEPTH_MAX {
            breaches.push(Breach {
                file: file.to_owned(),
                line: 0,
                wrong: format!("{folders} folders below src, at most {DEPTH_MAX} are allowed"),
                mend: "lift it up",
            });
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::{files_are_short, folders_are_shallow};
    use crate::tidy::tree::Tree;

    fn file(code: usize, tests: usize) -> String {
        let inner = "    // line\n".repeat(tests.saturating_sub(3));
        format!(
            "{}#[cfg(test)]\nmod tests {{\n{inner}}}\n",
            "fn f() {}\n".repeat(code)
        )
    }

    #[test]
    fn lines_are_counted_without_tests() {
        let short = file(500, 300);
        assert_eq!(files_are_short(&Tree::of(&[("a/src/x.rs", &short)])), []);
        let long = file(501, 0);
        assert_eq!(
            files_are_short(&Tree::of(&[("a/src/x.rs", &long)])).len(),
            1
        );
        assert_eq!(
            files_are_short(&Tree::of(&[("tests/tests/x.rs", &long)])).len(),
            1
        );
        assert_eq!(
            files_are_short(&Tree::of(&[("a/src/x/tests/y.rs", &long)])),
            []
        );
    }

    #[test]
    fn depth_is_counted_below_src() {
        for good in [
            "a/src/x.rs",
            "a/src/b/c/x.rs",
            "a/src/b/c/tests/x.rs",
            "a/b/c/d/e.rs",
        ] {
            assert_eq!(folders_are_shallow(&Tree::of(&[(good, "")])), [], "{good}");
        }
        assert_eq!(
            folders_are_shallow(&Tree::of(&[("a/src/b/c/d/x.rs", "")])).len(),
            1
        );
    }
}
