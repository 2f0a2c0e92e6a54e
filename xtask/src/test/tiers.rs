//! What each tier runs. Cheap and general first.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::{
    libtest::Reader,
    outcome::{Failure, Outcome},
    skips::{self, SkipFile},
};
use crate::{
    binaries::{self, Binaries, Profile, SELECTION},
    ebpf, guest, run,
    setup::{self, BpfTools},
    tidy,
    workspace::Workspace,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tier {
    /// House rules.
    Tidy,
    /// Formatting.
    Fmt,
    /// Lints, of both sides of the kernel.
    Clippy,
    /// Licences, sources, duplicates and advisories of dependencies.
    Deny,
    /// Unit and property tests beside the code.
    Unit,
    /// Against the real kernel: the daemon's rooms, then stories over network namespaces.
    E2e,
    /// In VMs with a kernel of their own.
    Vm,
}

impl Tier {
    pub(crate) const ALL: [Self; 7] = [
        Self::Tidy,
        Self::Fmt,
        Self::Clippy,
        Self::Deny,
        Self::Unit,
        Self::E2e,
        Self::Vm,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tidy => "tidy",
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Deny => "deny",
            Self::Unit => "unit",
            Self::E2e => "e2e",
            Self::Vm => "vm",
        }
    }

    /// Whether a filter of test names means anything to it.
    pub(crate) const fn has_libtest(self) -> bool {
        matches!(self, Self::Unit | Self::E2e | Self::Vm)
    }

    /// Whether the daemon is compiled, which embeds the BPF object.
    pub(crate) const fn needs_object(self) -> bool {
        !matches!(self, Self::Tidy | Self::Fmt | Self::Deny)
    }

    /// Whether it needs root and the kernel.
    pub(crate) const fn needs_machine(self) -> bool {
        self.has_libtest()
    }
}

/// The test program whose tests boot VMs.
const VM: &str = "vm";

pub(crate) struct Runner<'a> {
    pub(crate) workspace: &'a Workspace,
    /// There for each tier that needs the object.
    pub(crate) bpf: Option<BpfTools>,
    pub(crate) filter: &'a [String],
    pub(crate) skips: SkipFile,
}

impl Runner<'_> {
    pub(crate) fn run(&self, tier: Tier) -> Result<Outcome> {
        let mut outcome = match tier {
            Tier::Tidy => tidy::outcome(self.workspace)?,
            Tier::Fmt => {
                let mut cargo = self.workspace.cargo();
                check("cargo fmt", cargo.args(["fmt", "--all", "--check"]))?
            }
            Tier::Clippy => self.clippy()?,
            Tier::Deny => self.deny()?,
            Tier::Unit => self.unit()?,
            Tier::E2e => self.e2e()?,
            Tier::Vm => self.vm()?,
        };
        outcome.move_to_skipped(self.skips.take()?);
        Ok(outcome)
    }

    fn unit(&self) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for what in [["--lib", "--bins"].as_slice(), &["--doc"]] {
            let mut cargo = self.workspace.cargo();
            cargo.arg("test").args(SELECTION).args(what);
            outcome.add(self.libtest(&mut cargo, &[])?);
        }
        let mut cargo = self.workspace.cargo();
        outcome.add(self.libtest(cargo.args(["test", "--package", "xtask"]), &[])?);
        Ok(outcome)
    }

    /// One by one, because the kernel they change is shared by all of them.
    fn e2e(&self) -> Result<Outcome> {
        let mut cargo = self.workspace.cargo();
        cargo.arg("test").args(SELECTION);
        for target in test_targets(self.workspace)? {
            cargo.args(["--test", &target]);
        }
        Binaries::built(self.workspace, Profile::Dev).announce(self.workspace, &mut cargo);
        cargo.env("GHOSTD_NEXT_BIN", self.next()?);
        cargo.env("GHOST_GUEST", guest::build(self.workspace)?);
        self.libtest(&mut cargo, &["--test-threads=1"])
    }

    /// One by one, because each VM emulates as many processors as there are here.
    fn vm(&self) -> Result<Outcome> {
        setup::for_vm(self.workspace)?;
        let mut cargo = self.workspace.cargo();
        cargo.arg("test").args(SELECTION).args(["--test", VM]);
        // One suite of one crate builds no program of another.
        Binaries::build(self.workspace, Profile::Dev)?.announce(self.workspace, &mut cargo);
        cargo.env("GHOST_GUEST", guest::build(self.workspace)?);
        self.libtest(&mut cargo, &["--test-threads=1"])
    }

    /// A daemon with other BPF programs, to upgrade to.
    fn next(&self) -> Result<PathBuf> {
        let tools = self.bpf.as_ref().context("the BPF object was not built")?;
        ebpf::assemble(self.workspace, tools, ebpf::NEXT)?;
        binaries::next(self.workspace, &ebpf::NEXT.object(self.workspace))
    }

    fn clippy(&self) -> Result<Outcome> {
        let mut host = self.workspace.cargo();
        host.args([
            "clippy",
            "--quiet",
            "--workspace",
            "--exclude",
            "agent-ebpf",
        ]);
        let mut outcome = check(
            "cargo clippy",
            host.args(["--all-targets", "--", "-Dwarnings"]),
        )?;
        let tools = self.bpf.as_ref().context("the BPF object was not built")?;
        for (name, build) in [
            ("cargo clippy (BPF)", ebpf::SHIPPED),
            ("cargo clippy (BPF, floor)", ebpf::FLOOR),
        ] {
            let mut bpf = ebpf::cargo(self.workspace, tools, build, "clippy");
            outcome.add(check(name, bpf.args(["--quiet", "--", "-Dwarnings"]))?);
        }
        setup::for_guest()?;
        let mut payload = guest::cargo(self.workspace, "clippy");
        payload.args(["--quiet", "--", "-Dwarnings"]);
        outcome.add(check("cargo clippy (guest)", &mut payload)?);
        Ok(outcome)
    }

    fn deny(&self) -> Result<Outcome> {
        const OFFLINE: &str = "cargo deny";
        const ADVISORIES: &str = "cargo deny advisories";
        let own = self.workspace.tools().join("cargo-deny/bin/cargo-deny");
        let programs = [own, PathBuf::from("cargo-deny")];
        let found = programs
            .iter()
            .find(|program| run::answers(program, "--version").is_some());
        let Some(program) = found else {
            const GET: &str = "cargo-deny is not installed; get it with `cargo install cargo-deny --locked` (some minutes)";
            let mut outcome = Outcome::of_skip(OFFLINE, GET);
            outcome.add(Outcome::of_skip(ADVISORIES, GET));
            return Ok(outcome);
        };
        let deny = |arguments: &[&str]| {
            let mut deny = Command::new(program);
            deny.current_dir(self.workspace.root())
                .arg("--workspace")
                .arg("check")
                .args(arguments);
            deny
        };
        let mut outcome = check(OFFLINE, &mut deny(&["bans", "licenses", "sources"]))?;
        outcome.add(if has_advisories() {
            check(ADVISORIES, &mut deny(&["--disable-fetch", "advisories"]))?
        } else {
            Outcome::of_skip(
                ADVISORIES,
                "their database is not on this machine; get it with `cargo deny fetch db`",
            )
        });
        Ok(outcome)
    }

    /// Runs `cargo test`, showing each test as it ends.
    fn libtest(&self, cargo: &mut Command, flags: &[&str]) -> Result<Outcome> {
        let name = run::line(cargo);
        cargo
            .args(["--no-fail-fast", "--"])
            .args(flags)
            .args(self.filter);
        cargo
            .env(skips::VARIABLE, self.skips.path())
            .stdout(Stdio::piped());
        let mut child = cargo
            .spawn()
            .with_context(|| format!("cannot start `{name}`"))?;
        let stdout = child
            .stdout
            .take()
            .context("the standard output of cargo is not ours")?;
        let mut reader = Reader::default();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.with_context(|| format!("reading the output of `{name}`"))?;
            let line = String::from_utf8_lossy(&line);
            if reader.line(&line) {
                println!("{line}");
            }
        }
        let status = child
            .wait()
            .with_context(|| format!("waiting for `{name}`"))?;
        let mut outcome = reader.end();
        if !status.success() && outcome.is_good() {
            let output = format!("{status}; see its output above");
            outcome.failed.push(Failure { name, output });
        }
        Ok(outcome)
    }
}

/// Names of the test programs but that of VMs, as cargo finds them.
fn test_targets(workspace: &Workspace) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for package in ["agent-common", "agent", "tests"] {
        let folder = workspace.root().join(package).join("tests");
        let entries = fs::read_dir(&folder);
        for entry in entries.with_context(|| format!("listing {}", folder.display()))? {
            let path = entry?.path();
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            if is_source || path.join("main.rs").is_file() {
                let stem = path.file_stem().unwrap_or_default();
                names.insert(stem.to_string_lossy().into_owned());
            }
        }
    }
    names.remove(VM);
    Ok(names)
}

/// One program that says by its exit code whether all is well.
fn check(name: &str, command: &mut Command) -> Result<Outcome> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", run::line(command)))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let result = if output.status.success() {
        Ok(())
    } else {
        Err(text)
    };
    Ok(Outcome::of_check(name, result))
}

/// Whether cargo-deny has fetched the advisory database.
fn has_advisories() -> bool {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    // Each database is a folder; a lock file alone is left by a fetch that failed.
    let is_database = |entry: fs::DirEntry| entry.path().is_dir();
    let is_filled =
        |dir: &Path| fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(is_database));
    home.is_some_and(|home| is_filled(&home.join("advisory-dbs")))
}
