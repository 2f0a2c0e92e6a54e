//! `cargo xtask bench steer`: the data plane and the daemon in numbers.
//!
//! Owns: what is measured, how, and against which targets. Refuses: to fail
//! because a target was missed, for numbers depend on the machine; ratios are
//! of values from one run, taken in turns. Fails when something could not be
//! measured, and says what.

mod daemon;
mod fleet;
mod frames;
mod live;
mod packets;
mod pins;
mod report;
mod rig;
mod routes;
mod sample;
mod store;
mod tables;
mod throws;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};

use report::{Report, Section};

type Measure = fn() -> Result<Section>;

/// Sections by name, in order.
const SECTIONS: [(&str, Measure); 6] = [
    ("packets", packets::measure),
    ("live", live::measure),
    ("routes", routes::measure),
    ("fleet", fleet::measure),
    ("throws", throws::measure),
    ("daemon", daemon::measure),
];

const USAGE: &str = "usage: cargo xtask bench steer [packets] [live] [routes] [fleet] [throws] [daemon] [--json [FILE]]";

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
    fn parse(words: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self::default();
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => {
                    let file = words.next_if(|next| !is_section(next));
                    parsed.json = Some(file.map_or(Json::Stdout, |f| Json::File(f.into())));
                }
                name if is_section(name) => parsed.sections.push(word),
                other => bail!("`{other}` is not known\n{USAGE}"),
            }
        }
        Ok(parsed)
    }

    fn wants(&self, name: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|wanted| wanted == name)
    }
}

fn is_section(word: &str) -> bool {
    SECTIONS.iter().any(|(name, _)| *name == word)
}

pub fn run(words: impl Iterator<Item = String>) -> Result<()> {
    let arguments = Arguments::parse(words)?;
    ensure!(
        nix::unistd::geteuid().is_root(),
        "benchmarks load BPF programs and make network namespaces: run them as root"
    );
    let mut report = Report {
        machine: machine()?,
        sections: Vec::new(),
    };
    for (name, measure) in SECTIONS {
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
