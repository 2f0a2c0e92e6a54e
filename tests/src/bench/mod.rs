//! Benchmarks: `cargo xtask bench steer`, `cargo xtask bench ghost`.
//!
//! Owns: what is measured, how, and against which targets. Refuses: to fail
//! because a target was missed, for numbers depend on the machine; ratios are
//! of values from one run, taken in turns. Fails when something could not be
//! measured, and says what.

mod ghost;
mod mapping;
mod report;
mod sample;
mod steer;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};

use report::{Report, Section};

type Measure = fn() -> Result<Section>;

/// Benchmarks that are started together.
struct Suite {
    name: &'static str,
    /// By name, in order.
    sections: &'static [(&'static str, Measure)],
}

/// What was asked for.
#[derive(Debug, Default)]
struct Arguments {
    /// Empty is all.
    sections: Vec<String>,
    json: Option<Json>,
}

#[derive(Debug)]
enum Json {
    /// Instead of the table.
    Stdout,
    /// Beside it.
    File(PathBuf),
}

impl Arguments {
    fn parse(suite: &Suite, words: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self::default();
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => {
                    let file = words.next_if(|next| !suite.has(next));
                    parsed.json = Some(file.map_or(Json::Stdout, |f| Json::File(f.into())));
                }
                name if suite.has(name) => parsed.sections.push(word),
                other => bail!("`{other}` is not known\n{}", suite.usage()),
            }
        }
        Ok(parsed)
    }

    fn wants(&self, name: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|wanted| wanted == name)
    }
}

impl Suite {
    fn has(&self, word: &str) -> bool {
        self.sections.iter().any(|(name, _)| *name == word)
    }

    fn usage(&self) -> String {
        let sections = self.sections.iter().map(|(name, _)| format!(" [{name}]"));
        let sections: String = sections.collect();
        format!(
            "usage: cargo xtask bench {}{sections} [--json [FILE]]",
            self.name
        )
    }
}

/// The data plane and the daemon.
pub fn steer(words: impl Iterator<Item = String>) -> Result<()> {
    run(&steer::SUITE, words)
}

/// MicroVMs.
pub fn ghost(words: impl Iterator<Item = String>) -> Result<()> {
    run(&ghost::SUITE, words)
}

fn run(suite: &Suite, words: impl Iterator<Item = String>) -> Result<()> {
    let arguments = Arguments::parse(suite, words)?;
    ensure!(
        nix::unistd::geteuid().is_root(),
        "benchmarks load BPF programs, make network namespaces and microVMs: run them as root"
    );
    let mut report = Report {
        machine: machine()?,
        sections: Vec::new(),
    };
    for &(name, measure) in suite.sections {
        if arguments.wants(name) {
            eprintln!("  ...   measuring {name}");
            let section = measure().with_context(|| format!("measuring {name}"))?;
            report.sections.push(section);
        }
    }
    match arguments.json {
        None => print!("{report}"),
        Some(Json::Stdout) => println!("{:#}", report.json()),
        Some(Json::File(path)) => {
            print!("{report}");
            fs::write(&path, format!("{:#}\n", report.json()))
                .with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Kernel and processor: without them numbers say nothing.
fn machine() -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cpus = std::thread::available_parallelism()?;
    Ok(format!("kernel {}, {cpus} x {model}", kernel.trim()))
}
