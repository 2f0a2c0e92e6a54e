//! `cargo xtask`: everything that is done to this repository, in one place.
//!
//! Owns: set-up of the machine, the build of the BPF object and of the guest
//! payload, house rules, and
//! how tests, demo and benchmarks are started. Refuses: to know what any of
//! these test or show; that is in `tests/`. Fails with one error chain that
//! names what is missing and the command that gets it.

mod binaries;
mod ebpf;
mod guest;
mod run;
mod setup;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    binaries::{Binaries, Profile},
    workspace::Workspace,
};

/// Set up, build, test and show ghostd.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Get everything that building and running needs; repeats nothing.
    Setup,
    /// Build the BPF object that the daemon embeds.
    BuildEbpf,
    /// Build the guest payload that tests run in microVMs.
    BuildGuest,
    /// Show the main job: an instance reboots, its traffic moves to the ghost and back.
    Demo {
        /// Passed to the demo.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run all checks and tests.
    Test(test::Arguments),
    /// A VM with Debian's kernel and this tree's programs: a shell in it, or one command.
    Vm {
        /// The command and its arguments.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Measure; `steer` is the data plane, `ghost` microVMs.
    Bench {
        /// Which benchmark.
        name: String,
        /// Passed to the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Check the house rules that no compiler knows.
    Tidy,
    /// What continuous integration runs: `.ci/run`, which is `test`.
    Ci,
}

fn main() -> ExitCode {
    match run(&Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match task {
        Task::Setup => setup::everything(&workspace)?,
        Task::BuildEbpf => {
            ebpf::build(&workspace)?;
        }
        Task::BuildGuest => {
            let payload = guest::build(&workspace)?;
            run::ok(&payload.display().to_string());
        }
        Task::Demo { arguments } => start(&workspace, Start::Demo, "demo", arguments)?,
        Task::Test(arguments) => return test::run(&workspace, arguments),
        Task::Vm { command } => {
            setup::for_vm(&workspace)?;
            start(&workspace, Start::Vm, "vm", command)?;
        }
        Task::Bench { name, arguments } => {
            start(
                &workspace,
                Start::Bench,
                &format!("bench-{name}"),
                arguments,
            )?;
        }
        Task::Tidy => return tidy::run(&workspace),
        Task::Ci => run::replace(std::process::Command::new(workspace.root().join(".ci/run")))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Why a program of `tests/` is started.
#[derive(Clone, Copy)]
enum Start {
    Demo,
    Bench,
    Vm,
}

/// Does all that is needed before a program of `tests/` can run, then becomes it.
fn start(workspace: &Workspace, why: Start, name: &str, arguments: &[String]) -> Result<()> {
    setup::for_running()?;
    let tools = ebpf::build(workspace)?;
    guest::build(workspace)?;
    let profile = match why {
        Start::Demo | Start::Vm => Profile::Dev,
        Start::Bench => {
            ebpf::assemble(workspace, &tools, ebpf::FLOOR)?;
            Profile::Release
        }
    };
    Binaries::build(workspace, profile)?.become_program(workspace, name, arguments)
}
