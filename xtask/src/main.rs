//! `cargo xtask`: everything that is done to this repository, in one place.
//!
//! Owns: set-up of the machine, the build of the BPF object, and how tests,
//! demo and benchmarks are started. Refuses: to know what any of these test or
//! show; that is in `tests/`. Fails with one error chain that names what is
//! missing and the command that gets it.

mod ebpf;
mod run;
mod setup;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Set up, build, test and show ghostd"
)]
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
        Task::BuildEbpf => ebpf::build(&workspace)?,
    }
    Ok(ExitCode::SUCCESS)
}
