//! What the daemon itself takes: memory, time while idle, time to start.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::fleet::rss;
use crate::bench::report::{Section, Target};
use crate::host::{Config, Daemon, Stage};

const STARTS: usize = 9;
const IDLE: Duration = Duration::from_secs(10);

pub(super) fn measure() -> Result<Section> {
    let mut stage = Stage::new()?;
    let pid = stage.daemon()?.pid();
    let before = cpu_ns(pid)?;
    let started = Instant::now();
    // Nothing is waited for: time has to pass.
    thread::sleep(IDLE);
    let spent = (cpu_ns(pid)? - before) as f64 / started.elapsed().as_nanos() as f64;
    let mut section = Section::new("The daemon, one instance");
    section.row("RSS", vec![rss(pid)?], "MiB", Target::AtMost(20.0));
    section.row(
        format!("CPU while idle, over {} s", IDLE.as_secs()),
        vec![spent * 100.0],
        "%",
        Target::AtMost(0.1),
    );
    let (mut fresh_ms, mut adopt_ms) = (Vec::new(), Vec::new());
    let config = stage.config.clone();
    stage.take_daemon()?.kill()?;
    for _ in 0..STARTS {
        adopt_ms.push(start(&stage, &config)?);
        stage.ghostctl(&["clean", "--yes"])?;
        fresh_ms.push(start(&stage, &config)?);
    }
    let limit = Target::AtMost(300.0);
    section.row("start to steering, nothing pinned", fresh_ms, "ms", limit);
    section.row(
        "start to healthy, adopting what is pinned",
        adopt_ms,
        "ms",
        limit,
    );
    section.note(
        "start: from spawn to the first healthy answer of the API, which comes after all is \
         attached, asked for every millisecond",
    );
    Ok(section)
}

/// Milliseconds of a start; the daemon is killed after it.
fn start(stage: &Stage, config: &Config) -> Result<f64> {
    let text = config.text();
    let started = Instant::now();
    let daemon = Daemon::start(stage.world.host(), &text)?;
    let took = started.elapsed();
    daemon.kill()?;
    Ok(took.as_secs_f64() * 1e3)
}

/// Time on a CPU of all threads of a process so far.
fn cpu_ns(pid: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let first = text.split_ascii_whitespace().next();
        total += first
            .and_then(|ns| ns.parse::<u64>().ok())
            .with_context(|| format!("no time in {}", path.display()))?;
    }
    Ok(total)
}
