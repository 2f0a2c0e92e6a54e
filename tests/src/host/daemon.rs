//! ghostd as a process: started, watched, killed.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{sys::signal::Signal, unistd::Pid};

use super::{Api, CONFIG_PATH, SOCKET_PATH};
use crate::{clock::wait_for, netns::NetNs};

/// Promised are 300 ms; a loaded machine and a debug build take more.
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A ghostd that ended, and what it said.
#[derive(Debug)]
pub struct Exit {
    pub status: ExitStatus,
    pub said: String,
}

/// A running ghostd. On drop it is killed; steering stays, as after a crash.
#[derive(Debug)]
pub struct Daemon {
    host: NetNs,
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Writes the configuration and starts ghostd; returns when it is healthy.
    pub fn start(host: &NetNs, config: &str) -> Result<Self> {
        Self::start_as(&ghostd_binary()?, host, config)
    }

    /// As [`Self::start`], from another binary: a new version, say.
    pub fn start_as(binary: &std::path::Path, host: &NetNs, config: &str) -> Result<Self> {
        write_config(host, config)?;
        let mut daemon = Self::spawn(binary, host)?;
        let api = Api::on(host);
        let started = wait_for("ghostd to be healthy", START_LIMIT, || {
            if let Ok(Some(status)) = daemon.child.try_wait() {
                return Some(Err(anyhow!("ghostd ended at once: {status}")));
            }
            api.get("/v1/health").ok().map(Ok)
        });
        match started {
            Ok(Ok(_)) => Ok(daemon),
            Ok(Err(error)) => {
                let said = daemon.end_reading();
                bail!("{error}\n{said}")
            }
            Err(late) => bail!("{late}\n{}", daemon.said()),
        }
    }

    /// Starts ghostd where it is expected to refuse; waits for its end.
    pub fn refused(host: &NetNs, config: &str) -> Result<Exit> {
        write_config(host, config)?;
        let mut daemon = Self::spawn(&ghostd_binary()?, host)?;
        daemon.wait()
    }

    fn spawn(binary: &std::path::Path, host: &NetNs) -> Result<Self> {
        let mut command = Command::new(binary);
        command
            .args(["run", "--config", CONFIG_PATH])
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = host
            .run(|| command.spawn())?
            .with_context(|| format!("start {}", binary.display()))?;
        let output = child.stderr.take().context("ghostd's stderr")?;
        let said = Arc::new(Mutex::new(String::new()));
        let reader = std::thread::Builder::new()
            .name("ghostd-log".into())
            .spawn({
                let said = Arc::clone(&said);
                move || {
                    for line in BufReader::new(output).lines().map_while(Result::ok) {
                        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                        said.push_str(&line);
                        said.push('\n');
                    }
                }
            })?;
        Ok(Self {
            host: host.clone(),
            child,
            said,
            reader: Some(reader),
        })
    }

    pub fn api(&self) -> Api {
        Api::on(&self.host)
    }

    /// PID as the harness sees it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn said(&self) -> String {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// `kill -9`, as an OOM killer would.
    pub fn kill(mut self) -> Result<Exit> {
        self.child.kill().context("kill ghostd")?;
        self.wait()
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(mut self) -> Result<Exit> {
        self.signal(Signal::SIGTERM)?;
        self.wait()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(pid, signal).with_context(|| format!("send {signal} to ghostd"))
    }

    /// Waits for an end that something else has brought about. A host's PID
    /// namespace ends only after ghostd, which is a child of the harness, has
    /// been waited for.
    pub fn gone(mut self) -> Result<Exit> {
        self.wait()
    }

    fn wait(&mut self) -> Result<Exit> {
        let status = wait_for("ghostd to end", STOP_LIMIT, || {
            self.child.try_wait().transpose()
        })
        .with_context(|| self.said())??;
        let said = self.end_reading();
        Ok(Exit { status, said })
    }

    fn end_reading(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.said()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- ghostd said:\n{}---", self.said());
        }
    }
}

fn write_config(host: &NetNs, config: &str) -> Result<()> {
    host.run(|| std::fs::write(CONFIG_PATH, config))?
        .with_context(|| format!("write {CONFIG_PATH} on the host"))
}

/// Runs `ghostctl` on the host and waits for its end.
pub fn ghostctl(host: &NetNs, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(ghostctl_binary()?);
    command
        .args(["--socket", SOCKET_PATH])
        .args(arguments)
        .stdin(Stdio::null());
    host.run(|| command.output())?
        .with_context(|| format!("run ghostctl {arguments:?}"))
}

pub fn ghostd_binary() -> Result<PathBuf> {
    binary("GHOSTD_BIN", "ghostd")
}

pub fn ghostctl_binary() -> Result<PathBuf> {
    binary("GHOSTCTL_BIN", "ghostctl")
}

/// Named by the environment, or built beside the test program.
pub fn binary(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let beside = crate::machine::machine_binary()?.with_file_name(name);
    if beside.is_file() {
        return Ok(beside);
    }
    bail!("{name} is not built and {variable} is not set; `cargo xtask test` does both")
}
