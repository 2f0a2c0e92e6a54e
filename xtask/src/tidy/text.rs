//! Words and bytes that do not belong into a repository.

use super::{Breach, tokens::Source, tree::Tree};

/// Put together here, so that this file does not breach its own rule.
const LATER: &str = concat!("FIX", "ME");

/// Folders of one machine or one person.
const MACHINE_PATHS: [&str; 3] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
];

const ELF_MAGIC: &[u8] = b"\x7fELF";

pub(super) fn nothing_is_unfinished(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut found = |file: &str, line: usize, what: &str| {
        breaches.push(Breach {
            file: file.to_owned(),
            line,
            wrong: format!("`{what}` marks what is not finished"),
            mend: "finish it, or file it as an issue and say here what holds today",
        });
    };
    for (file, text) in tree.texts() {
        for (line, number) in text.lines().zip(1..) {
            if line.contains(LATER) {
                found(file, number, LATER);
            }
        }
    }
    for (file, text) in tree.rust() {
        for path in Source::parse(text).unwrap_or_default().paths {
            let name = path.segments.last().map(String::as_str);
            if let Some(name @ ("todo" | "unimplemented")) = name
                && path.is_macro
            {
                found(file, path.line, &format!("{name}!"));
            }
        }
    }
    breaches
}

pub(super) fn no_machine_paths(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (file, text) in tree.texts() {
        for (line, number) in text.lines().zip(1..) {
            let found = MACHINE_PATHS.iter().find(|path| has_absolute(line, path));
            breaches.extend(found.map(|path| Breach {
                file: file.to_owned(),
                line: number,
                wrong: format!("`{path}` is a path of one machine"),
                mend: "use a path from the repository's root, or one that every host has",
            }));
        }
    }
    breaches
}

/// Whether `path` is in the line and is not the tail of a longer path, as in `/proc/1/root/`.
fn has_absolute(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.}>*$/".contains(c))
    })
}

pub(super) fn no_compiled_objects(tree: &Tree) -> Vec<Breach> {
    let objects = tree
        .files()
        .filter(|(_, bytes)| bytes.starts_with(ELF_MAGIC));
    let breach = |(file, _): (&str, &[u8])| Breach {
        file: file.to_owned(),
        line: 0,
        wrong: "a compiled object".to_owned(),
        mend: "take it out of git and have xtask build it",
    };
    objects.map(breach).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        LATER, MACHINE_PATHS, no_compiled_objects, no_machine_paths, nothing_is_unfinished,
    };
    use crate::tidy::tree::Tree;

    #[test]
    fn unfinished_work_is_found() {
        let comment = format!("fn f() {{}}\n// {LATER}: later\n");
        let breaches = nothing_is_unfinished(&Tree::of(&[("a.rs", &comment)]));
        assert_eq!((breaches.len(), breaches[0].line), (1, 2));
        for name in ["todo", "unimplemented", "std::todo"] {
            let text = format!("fn f() {{\n    {name}!(\"x\")\n}}");
            let breaches = nothing_is_unfinished(&Tree::of(&[("a.rs", &text)]));
            assert_eq!((breaches.len(), breaches[0].line), (1, 2), "{name}");
        }
        let good = "const TODO_MAX: u8 = 1; // todo!() is forbidden\nfn todo() { todo(); }";
        assert_eq!(nothing_is_unfinished(&Tree::of(&[("a.rs", good)])), []);
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        for path in MACHINE_PATHS {
            for text in [
                format!("see {path}x"),
                format!("\"{path}x\""),
                format!("={path}"),
            ] {
                assert_eq!(
                    no_machine_paths(&Tree::of(&[("a.md", &text)])).len(),
                    1,
                    "{text}"
                );
            }
            for text in [
                format!("/proc/1{path}x"),
                format!("{{pid}}{path}"),
                format!("<pid>{path}"),
            ] {
                assert_eq!(
                    no_machine_paths(&Tree::of(&[("a.md", &text)])),
                    [],
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn compiled_objects_are_found() {
        let tree = Tree::of(&[("a.rs", "")]).with_bytes("a.o", b"\x7fELF\x02\x01\xff\xfe");
        assert_eq!(no_compiled_objects(&tree).len(), 1);
        assert_eq!(no_compiled_objects(&Tree::of(&[("a.rs", "\\x7fELF")])), []);
    }
}
