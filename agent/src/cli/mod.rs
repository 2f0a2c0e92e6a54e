//! `ghostctl`, the operator's tool.
//!
//! Owns: the command line ([`args`]), what a person reads ([`render`], [`look`]),
//! the judgement of `doctor` ([`doctor`], pure over [`facts`]), and the client
//! of the API ([`client`]). When no daemon answers it reads the pinned maps
//! itself ([`offline`]) and says so.
//!
//! Refuses: to know anything of the daemon but the API's words
//! (`control::dto`), and of steering but the pins.
//!
//! How it fails: see [`Exit`]; errors go to standard error with their causes.

pub mod args;
mod clean;
mod client;
pub mod doctor;
mod error;
pub mod facts;
mod generate;
pub mod look;
mod offline;
mod probe;
pub mod render;
mod run;
mod switch;
mod vm;

use std::process::ExitCode;

use clap::Parser;

pub use error::{CliError, Exit};

/// The whole of `ghostctl`.
pub fn main() -> ExitCode {
    let args = args::Args::parse();
    let exit = run::run(&args).unwrap_or_else(|error| {
        error.report();
        error.exit()
    });
    exit.into()
}
