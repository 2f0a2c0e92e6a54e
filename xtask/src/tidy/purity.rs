//! Pure files make choices; they touch no kernel, socket, disk, clock or chance.

use super::{
    Breach,
    tokens::{Path, Source},
    tree::{Tree, is_test_module},
};

/// Pure folders (with `/` at the end) and files.
const PURE: &[&str] = &[
    "agent-common/src/",
    "agent/src/allocate/",
    "agent/src/cli/render/",
    "agent/src/config/",
    "agent/src/control/access.rs",
    "agent/src/control/dto/",
    "agent/src/control/findings.rs",
    "agent/src/enforce/limits.rs",
    "agent/src/enforce/pressure.rs",
    "agent/src/ghost/drill/judge.rs",
    "agent/src/ghost/life.rs",
    "agent/src/ghost/life/failure.rs",
    "agent/src/ghost/life/found.rs",
    "agent/src/ghost/life/refusal.rs",
    "agent/src/model/",
    "agent/src/orchestrate/agenda.rs",
    "agent/src/orchestrate/drain.rs",
    "agent/src/orchestrate/motion.rs",
    "agent/src/orchestrate/plan/",
    "agent/src/steer/btf.rs",
    "agent/src/steer/decode.rs",
    "agent/src/steer/netlink/wire.rs",
    "agent/src/vmm/boot.rs",
    "agent/src/vmm/bus.rs",
    "agent/src/vmm/cpuid.rs",
    "agent/src/vmm/dirty.rs",
    "agent/src/vmm/end.rs",
    "agent/src/vmm/entry.rs",
    "agent/src/vmm/image.rs",
    "agent/src/vmm/layout.rs",
    "agent/src/vmm/linux/acpi.rs",
    "agent/src/vmm/linux/entry.rs",
    "agent/src/vmm/linux/error.rs",
    "agent/src/vmm/linux/kernel.rs",
    "agent/src/vmm/linux/place.rs",
    "agent/src/vmm/linux/zero_page.rs",
    "agent/src/vmm/message.rs",
    "agent/src/vmm/state/features.rs",
    "agent/src/vmm/state/fit.rs",
    "agent/src/vmm/state/header.rs",
    "agent/src/vmm/state/wire.rs",
    "agent/src/vmm/system.rs",
    "agent/src/vmm/tables.rs",
    "tests/guest/src/journal.rs",
    "tests/guest/src/line.rs",
    "tests/guest/src/pattern.rs",
    "tests/guest/src/request.rs",
    "tests/guest/src/store.rs",
    "tests/guest/src/table.rs",
    "tests/guest/src/tail.rs",
    "tests/guest/src/write.rs",
    "tests/src/demo/judgement.rs",
    "tests/src/vm/archive.rs",
    "tests/src/vm/shell.rs",
];

/// A file that may name one thing that pure files may not, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    // Only a trait of the crate that defines it lets ABI structs into its maps.
    ("agent-common/src/abi/mod.rs", "aya"),
];

/// What may not be named, and whether only as the beginning of a path.
const FORBIDDEN: &[(&[&str], Where)] = &[
    (&["tokio"], Where::Start),
    (&["aya"], Where::Start),
    (&["nix"], Where::Start),
    (&["libc"], Where::Start),
    (&["rand"], Where::Start),
    (&["std", "fs"], Where::Start),
    (&["std", "process"], Where::Start),
    (&["std", "env"], Where::Start),
    (&["std", "thread"], Where::Start),
    (&["std", "os", "unix", "net"], Where::Start),
    (&["net", "TcpStream"], Where::Anywhere),
    (&["net", "TcpListener"], Where::Anywhere),
    (&["net", "UdpSocket"], Where::Anywhere),
    (&["net", "ToSocketAddrs"], Where::Anywhere),
    (&["SystemTime", "now"], Where::Anywhere),
    (&["Instant", "now"], Where::Anywhere),
    (&["Timestamp", "now"], Where::Anywhere),
    (&["Zoned", "now"], Where::Anywhere),
];

#[derive(Debug, Clone, Copy)]
enum Where {
    Start,
    Anywhere,
}

const MEND: &str = "take the value as an argument, or move this to an I/O file";

pub(super) fn pure_files_are_pure(tree: &Tree) -> Vec<Breach> {
    let pure = tree
        .rust()
        .filter(|(path, _)| is_pure(path) && !is_test_module(path));
    let mut breaches = Vec::new();
    for (file, text) in pure {
        for path in Source::parse(text).unwrap_or_default().paths {
            let Some(what) = forbidden(&path).filter(|what| !EXCEPTIONS.contains(&(file, what)))
            else {
                continue;
            };
            let wrong = format!("a pure file names `{what}`");
            breaches.push(Breach {
                file: file.to_owned(),
                line: path.line,
                wrong,
                mend: MEND,
            });
        }
    }
    breaches
}

/// An entry of the list that stands for no file guards nothing.
pub(super) fn list_is_current(tree: &Tree) -> Vec<Breach> {
    let is_used = |entry: &str| tree.rust().any(|(path, _)| covers(entry, path));
    let stale = PURE.iter().filter(|entry| !is_used(entry));
    let breach = |entry: &&str| Breach {
        file: "xtask/src/tidy/purity.rs".to_owned(),
        line: 0,
        wrong: format!("the list of pure files has `{entry}`, which is not there"),
        mend: "give its new place, or take it out",
    };
    stale.map(breach).collect()
}

fn is_pure(path: &str) -> bool {
    PURE.iter().any(|entry| covers(entry, path))
}

fn covers(entry: &str, path: &str) -> bool {
    if entry.ends_with('/') {
        path.starts_with(entry)
    } else {
        path == entry
    }
}

fn forbidden(path: &Path) -> Option<String> {
    // A single word is a local name, not a crate.
    if path.segments.len() < 2 {
        return None;
    }
    let is_hit = |&&(segments, place): &&(&[&str], Where)| match place {
        Where::Start => path.starts_with(segments),
        Where::Anywhere => path.has(segments),
    };
    FORBIDDEN
        .iter()
        .find(is_hit)
        .map(|(segments, _)| segments.join("::"))
}

#[cfg(test)]
mod tests {
    use super::{PURE, list_is_current, pure_files_are_pure};
    use crate::tidy::tree::Tree;

    fn breaches(path: &str, text: &str) -> Vec<String> {
        let breaches = pure_files_are_pure(&Tree::of(&[(path, text)]));
        breaches.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_touches_the_world_is_found() {
        for text in [
            "use tokio::sync::oneshot;",
            "use aya::Pod;",
            "use nix::unistd::geteuid;",
            "use std::{fmt, fs};",
            "use std::net::{IpAddr, TcpStream};",
            "use std::net::{self}; fn f() { net::UdpSocket::bind(a); }",
            "fn f() { std::process::exit(1); }",
            "fn f() -> std::time::Instant { std::time::Instant::now() }",
            "use std::time::SystemTime; fn f() { SystemTime::now(); }",
            "fn f() { rand::random::<u8>(); }",
        ] {
            let found = breaches("agent/src/model/x.rs", text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with("agent/src/model/x.rs:1: a pure file names `"));
        }
    }

    #[test]
    fn what_does_not_is_fine() {
        for text in [
            "use std::net::IpAddr; use std::time::{Duration, Instant, SystemTime};",
            "fn f(now: Instant, rand: u32) -> u32 { rand }",
            "// tokio::spawn\n#[cfg(test)]\nmod tests { use std::fs::read; }",
        ] {
            assert_eq!(breaches("agent/src/model/x.rs", text), [""; 0], "{text}");
        }
    }

    #[test]
    fn only_listed_files_and_no_tests_are_judged() {
        let text = "use tokio::sync::oneshot;";
        assert_eq!(breaches("agent/src/steer/x.rs", text), [""; 0]);
        assert_eq!(breaches("agent/src/model/tests/x.rs", text), [""; 0]);
        assert_eq!(
            breaches(
                "agent-common/src/abi/mod.rs",
                "unsafe impl aya::Pod for X {}"
            ),
            [""; 0]
        );
        assert_eq!(breaches("agent-common/src/abi/mod.rs", text).len(), 1);
    }

    #[test]
    fn a_stale_entry_is_found() {
        let files: Vec<String> = PURE
            .iter()
            .map(|entry| {
                if entry.ends_with('/') {
                    format!("{entry}x.rs")
                } else {
                    (*entry).to_owned()
                }
            })
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|path| (path.as_str(), "")).collect();
        assert!(list_is_current(&Tree::of(&files)).is_empty());
        assert_eq!(list_is_current(&Tree::of(&files[1..])).len(), 1);
    }
}
