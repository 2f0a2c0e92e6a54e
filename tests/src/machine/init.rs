//! Init: PID 1 of a machine. Mounts, serves, obeys.

use std::{io::BufRead, path::Path};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
};

use super::{
    keeper::say,
    protocol::{MachineSpec, Order, Report},
    reboot, serve,
};

pub(super) fn run(spec: &str) -> Result<()> {
    if let Err(error) = live(spec) {
        say(&Report::Failed {
            why: format!("{error:#}"),
        });
    }
    Ok(())
}

fn live(spec: &str) -> Result<()> {
    let spec: MachineSpec = serde_json::from_str(spec).context("read the machine's spec")?;
    mount_all()?;
    nix::unistd::sethostname(&spec.name).context("set the host name")?;
    if let Some((side, addresses)) = spec.serve {
        serve::start(side, &addresses)?;
    }
    say(&Report::Ready);
    // The end of input is the end of the harness, and so of this machine.
    for line in std::io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?).context("read an order")?;
        match order {
            Order::Reboot { how, who } => reboot::order(how, who)?,
        }
    }
    Ok(())
}

/// A system's usual file systems, each showing this machine's own namespaces.
fn mount_all() -> Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("make mounts private")?;
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("bpf", "/sys/fs/bpf"),
        ("tracefs", "/sys/kernel/tracing"),
        ("tmpfs", "/run"),
    ] {
        match mount(
            Some("none"),
            Path::new(target),
            Some(kind),
            MsFlags::empty(),
            none,
        ) {
            // The very same one is there already: a machine that shares the
            // network namespace of the one around it has the same sysfs.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("mount {kind} on {target}")),
        }
    }
    Ok(())
}
