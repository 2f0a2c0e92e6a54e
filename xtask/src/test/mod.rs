//! Runs all checks and tests, and counts them.
//!
//! Owns: the order of the tiers and the last line, which is exactly
//! `N passed, N failed, N skipped`. Nothing is skipped silently. Fails with
//! the exit code if anything failed, and at once if set-up fails.

mod libtest;
pub(crate) mod outcome;
mod skips;
mod tiers;

use std::{process::ExitCode, time::Instant};

use anyhow::Result;

use self::{outcome::Outcome, skips::SkipFile, tiers::Runner};
use crate::{ebpf, setup, workspace::Workspace};

pub(crate) use self::tiers::Tier;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only this tier; may be given several times.
    #[arg(long, value_enum, value_name = "NAME")]
    tier: Vec<Tier>,
    /// Part of a test's name, or flags for the test programs. Without --tier,
    /// only tiers that have named tests run.
    #[arg(last = true)]
    filter: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let tiers = chosen(arguments);
    if tiers.iter().any(|tier| tier.needs_machine()) {
        setup::for_running()?;
    }
    let bpf = if tiers.iter().any(|tier| tier.needs_object()) {
        Some(ebpf::build(workspace)?)
    } else {
        None
    };
    std::fs::create_dir_all(workspace.target())?;
    let skips = SkipFile::new(workspace.target().join("skips"))?;
    let runner = Runner {
        workspace,
        bpf,
        filter: &arguments.filter,
        skips,
    };
    let mut total = Outcome::default();
    let mut times = Vec::new();
    for tier in tiers {
        println!("== {}", tier.name());
        let start = Instant::now();
        let outcome = runner.run(tier)?;
        times.push((tier.name(), start.elapsed()));
        let (failed, skipped) = (outcome.failed.len(), outcome.skipped.len());
        println!(
            "== {}: {} ok, {failed} not, {skipped} left out",
            tier.name(),
            outcome.passed
        );
        total.add(outcome);
    }
    println!("{}", total.report(&times));
    Ok(if total.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn chosen(arguments: &Arguments) -> Vec<Tier> {
    let has_filter = !arguments.filter.is_empty();
    let is_chosen = |tier: &Tier| {
        if arguments.tier.is_empty() {
            !has_filter || tier.has_libtest()
        } else {
            arguments.tier.contains(tier)
        }
    };
    Tier::ALL.into_iter().filter(is_chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Tier, chosen};

    #[test]
    fn a_filter_leaves_the_tiers_with_named_tests() {
        let arguments = |tier: &[Tier], filter: &[&str]| Arguments {
            tier: tier.to_vec(),
            filter: filter.iter().map(|&word| word.to_owned()).collect(),
        };
        assert_eq!(chosen(&arguments(&[], &[])), Tier::ALL);
        assert_eq!(
            chosen(&arguments(&[], &["x"])),
            [Tier::Unit, Tier::E2e, Tier::Vm]
        );
        assert_eq!(
            chosen(&arguments(&[Tier::E2e, Tier::Fmt], &[])),
            [Tier::Fmt, Tier::E2e]
        );
    }
}
