//! I/O rooms never import each other; the driver joins them.

use super::{
    Breach,
    tokens::Source,
    tree::{Tree, is_test_module},
};

/// Rooms below the driver, each of which knows no other.
const IO_ROOMS: &[&str] = &["config", "control", "enforce", "steer", "vmm"];

const SOURCES: &str = "agent/src/";

pub(super) fn rooms_are_apart(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (file, text) in tree.rust().filter(|(path, _)| !is_test_module(path)) {
        let Some(room) = room_of(file) else {
            continue;
        };
        for path in Source::parse(text).unwrap_or_default().paths {
            let named = match path.segments.as_slice() {
                [first, second, ..] if first == "crate" => second,
                _ => continue,
            };
            if named != room && IO_ROOMS.contains(&named.as_str()) {
                breaches.push(Breach {
                    file: file.to_owned(),
                    line: path.line,
                    wrong: format!("the room `{room}` imports the room `{named}`"),
                    mend: "let the driver hand over what it needs, as a noun of `model`",
                });
            }
        }
    }
    breaches
}

fn room_of(file: &str) -> Option<&str> {
    let (first, _) = file.strip_prefix(SOURCES)?.split_once(['/', '.'])?;
    IO_ROOMS.contains(&first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::rooms_are_apart;
    use crate::tidy::tree::Tree;

    fn count(path: &str, text: &str) -> usize {
        rooms_are_apart(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn a_room_that_imports_another_is_found() {
        assert_eq!(
            count("agent/src/control/api.rs", "use crate::steer::Pins;"),
            1
        );
        assert_eq!(
            count(
                "agent/src/control/api.rs",
                "use crate::{model::X, steer::Pins};"
            ),
            1
        );
        assert_eq!(
            count(
                "agent/src/steer/a/b.rs",
                "fn f() { crate::config::load(); }"
            ),
            1
        );
    }

    #[test]
    fn its_own_room_nouns_and_the_driver_are_free() {
        assert_eq!(
            count(
                "agent/src/steer/x.rs",
                "use crate::{model::X, steer::Pins};"
            ),
            0
        );
        assert_eq!(
            count("agent/src/orchestrate/driver.rs", "use crate::steer::Pins;"),
            0
        );
        assert_eq!(
            count(
                "agent/src/cli/look.rs",
                "use crate::{control::Dto, steer::Pins};"
            ),
            0
        );
        assert_eq!(
            count(
                "agent/src/control/x.rs",
                "#[cfg(test)]\nuse crate::steer::Pins;"
            ),
            0
        );
    }
}
