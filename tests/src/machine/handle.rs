//! The harness's end of a machine.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::protocol::{How, MachineSpec, Order, Report, Who};
use crate::netns::NetNs;

/// Mounting, binding and starting take milliseconds; a loaded machine takes more.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// SIGHUP after a restart, SIGINT after halt and power-off.
    pub signal: Option<i32>,
}

/// A running machine; it ends on drop.
#[derive(Debug)]
pub struct Machine {
    name: String,
    keeper: Child,
    orders: Option<ChildStdin>,
    reports: Receiver<Report>,
    inside: NetNs,
}

impl Machine {
    /// Starts a machine in the namespaces of `place` and waits until it serves.
    pub fn start(place: &NetNs, spec: &MachineSpec) -> Result<Self> {
        let mut command = Command::new(machine_binary()?);
        command
            .args(["keeper", &serde_json::to_string(spec)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut keeper = place
            .run(|| command.spawn())?
            .with_context(|| format!("start machine {}", spec.name))?;
        let orders = keeper.stdin.take();
        let output = keeper.stdout.take().context("the keeper's output")?;
        // A machine makes a handful of reports; the reader may wait for us.
        let (sender, reports) = sync_channel(64);
        thread::Builder::new()
            .name(format!("reports-{}", spec.name))
            .spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let report =
                        serde_json::from_str(&line).unwrap_or(Report::Failed { why: line });
                    if sender.send(report).is_err() {
                        break;
                    }
                }
            })?;
        let mut machine = Self {
            name: spec.name.clone(),
            keeper,
            orders,
            reports,
            inside: place.clone(),
        };
        match machine.report(START_LIMIT)? {
            Report::Ready => {}
            other => bail!("machine {} said {other:?} instead of ready", spec.name),
        }
        machine.inside = place.inside(machine.init_pid()?)?;
        Ok(machine)
    }

    /// All namespaces of the machine: sockets, files and programs inside it.
    pub fn inside(&self) -> &NetNs {
        &self.inside
    }

    /// PID of init, as the harness sees it.
    pub fn init_pid(&self) -> Result<u32> {
        let keeper = self.keeper.id();
        let path = format!("/proc/{keeper}/task/{keeper}/children");
        let children = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        children
            .split_ascii_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok())
            .with_context(|| format!("machine {} has no init", self.name))
    }

    /// Has `who` in the machine call `reboot(2)`; gives the time right before.
    pub fn reboot(&mut self, how: How, who: Who) -> Result<u64> {
        let mut line = serde_json::to_vec(&Order::Reboot { how, who })?;
        line.push(b'\n');
        self.orders
            .as_mut()
            .context("the machine's input is closed")?
            .write_all(&line)
            .with_context(|| format!("give an order to {}", self.name))?;
        match self.report(START_LIMIT)? {
            Report::Rebooting { at_ns } => Ok(at_ns),
            other => bail!("machine {} said {other:?} instead of rebooting", self.name),
        }
    }

    /// Waits until the kernel has ended the machine.
    pub fn ended(&mut self, limit: Duration) -> Result<Ending> {
        match self.report(limit)? {
            Report::Ended { signal, .. } => Ok(Ending { signal }),
            other => bail!("machine {} said {other:?} instead of ending", self.name),
        }
    }

    /// Waits until a reboot call came back; gives its errno, `None` for success.
    pub fn survived(&mut self, limit: Duration) -> Result<Option<i32>> {
        match self.report(limit)? {
            Report::Survived { errno } => Ok(errno),
            other => bail!("machine {} said {other:?} instead of surviving", self.name),
        }
    }

    fn report(&mut self, limit: Duration) -> Result<Report> {
        match self.reports.recv_timeout(limit) {
            Ok(report) => Ok(report),
            Err(RecvTimeoutError::Timeout) => {
                bail!("machine {} said nothing within {limit:?}", self.name)
            }
            Err(RecvTimeoutError::Disconnected) => bail!("machine {} is gone", self.name),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The end of input ends init, and the kernel everything inside. If it
        // does not listen, the keeper is killed and init after it.
        drop(self.orders.take());
        let deadline = Instant::now() + START_LIMIT;
        let mut ended = false;
        while !ended && Instant::now() < deadline {
            match self.reports.recv_timeout(deadline - Instant::now()) {
                Ok(Report::Ended { .. }) | Err(_) => ended = true,
                Ok(_) => {}
            }
        }
        if !ended {
            let _ = self.init_pid().map(kill);
            let _ = self.keeper.kill();
        }
        let _ = self.keeper.wait();
    }
}

fn kill(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

/// Where `gdt-machine` is: named by the environment, or built beside us.
pub fn machine_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("GDT_MACHINE_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("find the test program itself")?;
    // target/debug/demo has it beside; target/debug/deps/story-1234 one up.
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder: &Path| folder.join("gdt-machine"))
        .find(|path| path.is_file())
        .with_context(|| format!("gdt-machine is not built beside {}", own.display()))
}
