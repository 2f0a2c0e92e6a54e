//! Any text is either a configuration or an error that can be shown.

use std::collections::BTreeSet;

use ghostd::config::{Colour, HostFacts, check_host, parse};
use proptest::prelude::*;

use super::EXAMPLE;

/// Reads the text and shows all there is to show of it.
fn exercise(text: &str) {
    match parse("any.toml", text) {
        Ok(config) => {
            let warnings = config.warnings.iter();
            warnings.for_each(|warning| assert!(!warning.render(Colour::Never).is_empty()));
            let nothing = HostFacts {
                interfaces: BTreeSet::new(),
                not_cgroup2: config
                    .instances
                    .iter()
                    .filter_map(|i| i.cgroup.clone())
                    .collect(),
            };
            // Each configuration has an uplink, and this host has none.
            assert!(check_host(&config, &nothing).is_err());
        }
        Err(errors) => {
            assert!(!errors.problems().is_empty());
            for problem in errors.problems() {
                let (line, column) = problem.position();
                assert!(line >= 1 && line <= text.lines().count().max(1));
                assert!(column >= 1);
                let shown = problem.render(Colour::Never);
                let place = format!("any.toml:{line}:{column}");
                // With an excerpt, or without one that would be too long.
                let placed = [']', ':'].map(|end| shown.contains(&format!("{place}{end}")));
                assert!(
                    text.trim().is_empty() || placed.contains(&true),
                    "{place}\n{shown}"
                );
            }
            assert!(!errors.render(Colour::Always).is_empty());
        }
    }
}

/// Pieces of which many a file is almost right.
const PIECES: &[&str] = &[
    "\n",
    "[host]",
    "[steering]",
    "[limits]",
    "[api]",
    "[[instance]]",
    "[[instance.route]]",
    "[[instance.port]]",
    "[instance]",
    "[instance.route]",
    "name",
    "uplinks",
    "routes",
    "socket",
    "service",
    "ghost",
    "primary",
    "protocol",
    "port",
    "armed",
    "cgroup",
    "drain_idle_s",
    "[reserve]",
    "[[owner]]",
    "memory",
    "priority",
    "risk",
    "\"25%\"",
    "0.5",
    "=",
    "\"eth0\"",
    "[\"eth0\"]",
    "\"10.0.0.1\"",
    "\"2001:db8::1\"",
    "\"10.0.0.2:80\"",
    "\"tcp\"",
    "80",
    "1e400",
    "-1",
    "nan",
    "inf",
    "0x7fffffffffffffffff",
    "1979-05-27",
    "true",
    "[",
    "]",
    "{",
    "}",
    ".",
    ",",
    "\"",
    "'''",
    "#",
    "\u{e9}",
    "\u{1f47b}",
    "\t",
    "\r\n",
    "\0",
    "\u{feff}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>()) {
        exercise(&text);
    }

    #[test]
    fn pieces_of_configurations(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        exercise(&pieces.concat());
        exercise(&pieces.join(" "));
    }

    #[test]
    fn the_example_with_a_few_changes(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..30usize, prop::sample::select(PIECES)), 1..4),
    ) {
        let mut text = EXAMPLE.to_owned();
        for (at, cut, piece) in changes {
            let at = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.ceil_char_boundary((at + cut).min(text.len()));
            text.replace_range(at..end, piece);
        }
        exercise(&text);
    }

    #[test]
    fn the_example_with_values_swapped(a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let mut lines: Vec<String> = EXAMPLE.lines().map(str::to_owned).collect();
        let values: Vec<usize> =
            (0..lines.len()).filter(|&n| !lines[n].starts_with('#') && lines[n].contains('=')).collect();
        let (a, b) = (values[a.index(values.len())], values[b.index(values.len())]);
        let value = lines[b].split_once('=').unwrap().1.to_owned();
        let key = lines[a].split_once('=').unwrap().0.to_owned();
        lines[a] = format!("{key}={value}");
        exercise(&lines.join("\n"));
    }
}

#[test]
fn the_example_cut_short() {
    for end in (0..=EXAMPLE.len())
        .filter(|&end| EXAMPLE.is_char_boundary(end))
        .step_by(7)
    {
        exercise(&EXAMPLE[..end]);
    }
}

#[test]
fn deep_nesting() {
    for (open, close) in [("[", "]"), ("{a=", "}"), ("a.", "")] {
        let text = format!("a = {}1{}\n", open.repeat(20_000), close.repeat(20_000));
        exercise(&text);
        exercise(&format!("{}b = 1\n", open.repeat(20_000)));
    }
}
