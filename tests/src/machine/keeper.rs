//! The keeper: makes the namespaces, starts init in them, reports its end.

use std::{
    io::Write,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

use super::protocol::{MachineSpec, Report};

pub(super) fn run(spec_text: &str) -> Result<()> {
    let spec: MachineSpec = serde_json::from_str(spec_text).context("read the machine's spec")?;
    if let Some(cgroup) = &spec.cgroup {
        let procs = cgroup.join("cgroup.procs");
        std::fs::write(&procs, std::process::id().to_string())
            .with_context(|| format!("join cgroup through {}", procs.display()))?;
    }
    let parent_pidns = std::fs::read_link("/proc/self/ns/pid")?;
    unshare(
        CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    )
    .context("make a machine's namespaces")?;
    let status = Command::new(std::env::current_exe()?)
        .args(["init", spec_text])
        .env(super::reboot::PARENT_PIDNS, parent_pidns)
        .stdin(Stdio::inherit())
        .status()
        .context("start init")?;
    say(&Report::Ended {
        signal: status.signal(),
        code: status.code(),
    });
    Ok(())
}

/// Reports to the harness. If it is gone, so are we soon: nothing to handle.
pub(super) fn say(report: &Report) {
    let Ok(mut line) = serde_json::to_vec(report) else {
        return;
    };
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(&line).and_then(|()| out.flush());
}
