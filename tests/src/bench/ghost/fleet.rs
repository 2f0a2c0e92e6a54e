//! Many suspended ghosts at once.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use ghost_guest::pattern::COUNTERS;

use super::rig::{Saved, first_store, ghost, overhead_kib, said};
use crate::{
    bench::report::{Section, Target},
    microvm::{Client, MicroVm},
};

const GHOSTS: usize = 64;
const MEMORY_MIB: u64 = 64;
/// Of guest memory that is not zero: what a small service has.
const PATTERN_BYTES: u64 = 8 << 20;

type Ghost = (MicroVm, Client);

pub(in crate::bench) fn measure() -> Result<Section> {
    let mut section = Section::new("64 suspended ghosts of 64 MiB");
    let line = format!("seed=7 bytes={PATTERN_BYTES} do=spin");
    let saved = Saved::of(ghost(MEMORY_MIB, &line)?, |memory| {
        Ok(memory.word(COUNTERS)? > 0)
    })?;
    let available = available_kib()?;
    let start = Instant::now();
    let (ghosts, each) = prepare(&saved)?;
    let all_ms = start.elapsed().as_secs_f64() * 1e3;
    let taken = available - available_kib()?;
    let overhead = ghosts
        .iter()
        .map(|(vm, _)| Ok(overhead_kib(vm.pid())? / 1024.0))
        .collect::<Result<_>>()?;
    let idle = cpu_of(&ghosts)?;
    section.row(
        "all prepared, in parallel",
        vec![all_ms],
        "ms",
        Target::None,
    );
    section.row(
        "one of them: made, filled, loaded",
        each,
        "ms",
        Target::None,
    );
    section.row(
        "of the host's memory, for each",
        vec![taken / 1024.0 / GHOSTS as f64],
        "MiB",
        Target::None,
    );
    section.row(
        "resident beyond guest memory, each",
        overhead,
        "MiB",
        Target::AtMost(5.0),
    );
    section.row(
        "CPU of all while suspended",
        vec![idle],
        "%",
        Target::AtMost(0.1),
    );
    let activated = ghosts.iter().map(activated_us).collect::<Result<_>>()?;
    section.row(
        "one activated beside the others: to its first store",
        activated,
        "us",
        Target::AtMost(300.0),
    );
    let filled = saved.bytes() as f64 / f64::from(1 << 20);
    section.note(format!(
        "each filled with {filled:.1} MiB that are not zero"
    ));
    Ok(section)
}

/// As many at once as there are CPUs; gives how long each took, in ms.
fn prepare(saved: &Saved) -> Result<(Vec<Ghost>, Vec<f64>)> {
    let made = Mutex::new(Vec::new());
    let workers = thread::available_parallelism()?.get();
    thread::scope(|scope| -> Result<()> {
        let work = |first: usize| -> Result<()> {
            for _ in (first..GHOSTS).step_by(workers) {
                let start = Instant::now();
                let ghost = saved.ghost()?;
                let ms = start.elapsed().as_secs_f64() * 1e3;
                made.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((ghost, ms));
            }
            Ok(())
        };
        let threads: Vec<_> = (0..workers)
            .map(|first| scope.spawn(move || work(first)))
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(())
    })?;
    let made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(made.len() == GHOSTS, "{} of {GHOSTS} were made", made.len());
    Ok(made.into_iter().unzip())
}

/// Activates one, and pauses it again so that it takes nothing from the next.
fn activated_us((_, client): &Ghost) -> Result<f64> {
    let (us, _) = first_store(client, MEMORY_MIB)?;
    said(client, "pause", "paused")?;
    Ok(us)
}

fn available_kib() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let line = line.context("no MemAvailable in /proc/meminfo")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Percent of one CPU that all of them take together, over a while.
fn cpu_of(ghosts: &[Ghost]) -> Result<f64> {
    const WHILE: std::time::Duration = std::time::Duration::from_secs(2);
    let ticks = || -> Result<u64> { ghosts.iter().map(|(vm, _)| ticks_of(vm.pid())).sum() };
    let before = ticks()?;
    thread::sleep(WHILE);
    let ticks = ticks()? - before;
    // USER_HZ, which the kernel has fixed at 100 for x86.
    Ok(ticks as f64 / 100.0 / WHILE.as_secs_f64() * 100.0)
}

/// User and system time of a process, in ticks.
fn ticks_of(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("an odd /proc/PID/stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let field = |at: usize| -> Result<u64> { Ok(fields.get(at).context("a short stat")?.parse()?) };
    Ok(field(11)? + field(12)?)
}
