//! What a ghost costs that is there and does not run.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Result, ensure};

use super::rig::{self, ghost};
use crate::{
    bench::{
        report::{Section, Target},
        sample::{in_turns, net},
    },
    host::binary,
};

const MEMORY_MIB: u64 = 64;
const ROUNDS: usize = 30;
/// Of overhead: it hardly differs.
const OVERHEAD_ROUNDS: usize = 5;

enum Case {
    /// The program starts, and ends at once.
    Process,
    /// Memory of that size is mapped and given to nobody.
    Mapping,
    Ghost {
        is_jailed: bool,
    },
}

pub(in crate::bench) fn measure() -> Result<Section> {
    let mut section = Section::new("A ghost is made, 64 MiB");
    let cases = [
        Case::Process,
        Case::Mapping,
        Case::Ghost { is_jailed: false },
        Case::Ghost { is_jailed: true },
    ];
    let values = in_turns(&cases, ROUNDS, |case| match case {
        Case::Process => process_us(),
        Case::Mapping => rig::mapping_us(MEMORY_MIB),
        Case::Ghost { is_jailed } => created_us(*is_jailed),
    })?;
    let [process, mapping, bare, jailed] = values.as_slice() else {
        anyhow::bail!("four cases were measured");
    };
    let beyond = |made: &[f64]| net(&net(made, process), mapping);
    section.row(
        "ghost-vmm --version, a process",
        process.clone(),
        "us",
        Target::None,
    );
    section.row("memory is mapped", mapping.clone(), "us", Target::None);
    section.row(
        "not jailed: from spawn to `started`",
        bare.clone(),
        "us",
        Target::None,
    );
    section.row(
        "jailed: from spawn to `started`",
        jailed.clone(),
        "us",
        Target::None,
    );
    section.row(
        "not jailed, beyond process and mapping",
        beyond(bare),
        "us",
        Target::AtMost(1000.0),
    );
    section.row(
        "jailed, beyond process and mapping",
        beyond(jailed),
        "us",
        Target::AtMost(1000.0),
    );
    let overhead = (0..OVERHEAD_ROUNDS)
        .map(|_| overhead_mib())
        .collect::<Result<_>>()?;
    section.row(
        "resident beyond guest memory",
        overhead,
        "MiB",
        Target::AtMost(5.0),
    );
    section.note("processes are timed from outside, output read; cases take turns");
    section.note("resident: RssAnon and RssFile of the process; guest memory is a memfd, RssShmem");
    Ok(section)
}

fn process_us() -> Result<f64> {
    let program = binary("GHOST_VMM_BIN", "ghost-vmm")?;
    let start = Instant::now();
    let status = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status()?;
    let took = start.elapsed();
    ensure!(status.success(), "ghost-vmm --version: {status}");
    Ok(took.as_secs_f64() * 1e6)
}

fn created_us(is_jailed: bool) -> Result<f64> {
    let mut spec = ghost(MEMORY_MIB, "say=ready")?;
    let jail = if is_jailed { "on" } else { "off" };
    spec.more.extend(["--jail".to_owned(), jail.to_owned()]);
    let (_ghost, took_us) = rig::start(&spec)?;
    Ok(took_us)
}

fn overhead_mib() -> Result<f64> {
    let (vm, _) = rig::start(&ghost(MEMORY_MIB, "say=ready")?)?;
    Ok(rig::overhead_kib(vm.pid())? / 1024.0)
}
