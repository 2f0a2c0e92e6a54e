//! Each `.toml` beside this file has a `.txt`: what is shown for it.

use std::{collections::BTreeSet, env, fs, path::Path};

use ghostd::config::{Colour, HostFacts, Problem, check_host, parse};

/// Compares, or rewrites, and returns how many files there were.
fn each(folder: &str, show: impl Fn(&str, &str) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/config")
        .join(folder);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        seen += 1;
        let name = path.file_name().unwrap().to_str().unwrap();
        let shown = show(name, &fs::read_to_string(&path).unwrap());
        let golden = path.with_extension("txt");
        if env::var_os("BLESS").is_some() {
            fs::write(&golden, shown).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != shown {
            wrong.push(format!("{}:\n{shown}", golden.display()));
        }
    }
    assert!(seen > 0, "{} is empty", folder.display());
    assert!(
        wrong.is_empty(),
        "{} differ; BLESS=1 rewrites them\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn list(problems: &[Problem]) -> String {
    let shown = problems.iter().map(|problem| {
        assert!(problem.is_warning());
        format!(
            "{}\n{}\n",
            problem.one_line(),
            problem.render(Colour::Never)
        )
    });
    shown.collect()
}

#[test]
fn mistakes_are_shown() {
    each("bad", |name, text| match parse(name, text) {
        Ok(_) => panic!("{name} is accepted"),
        Err(errors) => errors.render(Colour::Never),
    });
}

#[test]
fn oddities_are_shown() {
    each("odd", |name, text| match parse(name, text) {
        Ok(config) => list(&config.warnings),
        Err(errors) => panic!("{}", errors.render(Colour::Never)),
    });
}

#[test]
fn what_the_host_lacks_is_shown() {
    let facts = HostFacts {
        interfaces: ["lo", "ens1", "br0", "vnet0"].map(str::to_owned).into(),
        not_cgroup2: BTreeSet::from(["/sys/fs/cgroup/memory/db1".into()]),
    };
    each("host", |name, text| {
        let config = parse(name, text).unwrap_or_else(|e| panic!("{}", e.render(Colour::Never)));
        match check_host(&config, &facts) {
            Ok(warnings) => list(&warnings),
            Err(errors) => errors.render(Colour::Never),
        }
    });
}

#[test]
fn colours_only_on_request() {
    let errors = parse("x.toml", "[host]\nnmae = 1\n").unwrap_err();
    assert!(!errors.render(Colour::Never).contains('\u{1b}'));
    assert!(errors.render(Colour::Always).contains('\u{1b}'));
}

#[test]
fn a_file_cannot_send_controls_to_the_terminal() {
    let text = "[host]\nname = \"\\u001b[2J\"\n\u{1b}]0;owned\u{7} = \u{9b}1\n";
    for text in [text, &text.replace('\u{1b}', "a").replace('\u{7}', "b")] {
        let shown = parse("\u{1b}x.toml", text)
            .unwrap_err()
            .render(Colour::Never);
        assert!(
            shown.chars().all(|c| c == '\n' || !c.is_control()),
            "{shown:?}"
        );
    }
}

#[test]
fn only_a_screenful_of_errors_is_shown() {
    let text: String = (0..50).map(|n| format!("unknown{n} = 1\n")).collect();
    let errors = parse("x.toml", &text).unwrap_err();
    assert_eq!(errors.problems().len(), ghostd::config::PROBLEMS_SHOWN_MAX);
    // Fifty keys, and that there is no [steering].
    assert_eq!(
        errors.to_string(),
        "x.toml has 51 errors, the first 20 are shown"
    );
}
