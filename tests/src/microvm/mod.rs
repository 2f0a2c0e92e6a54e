//! ghost-vmm as a process: started, listened to, asked, ended.
//!
//! Owns: a folder for each microVM, which is gone with the value, as is the
//! process. Refuses: to know what the guest should do.

mod client;
mod kv;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;

pub use client::{Answer, Client, Memory};
pub use kv::Kv;

use crate::{clock::wait_for, host::binary, netns::NetNs, skip};

/// Milliseconds are the rule; a loaded machine takes more.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Whether microVMs can run here; if not, `test` is skipped aloud.
pub fn is_possible(test: &str) -> bool {
    let is_there = Path::new("/dev/kvm").exists();
    if !is_there {
        skip(test, "there is no /dev/kvm");
    }
    is_there
}

/// The payload that `cargo xtask build-guest` makes.
pub fn payload() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("GHOST_GUEST") {
        return Ok(path.into());
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest/ghost-guest");
    ensure!(
        built.is_file(),
        "the guest payload is not built; `cargo xtask build-guest` does it"
    );
    Ok(built)
}

/// How a microVM is started.
#[derive(Debug, Clone)]
pub struct Spec {
    pub image: PathBuf,
    pub memory_mib: u64,
    pub vcpus: u8,
    pub command_line: String,
    /// Passed as they are.
    pub more: Vec<String>,
    pub has_control: bool,
    /// Where the process is born.
    pub cgroup: Option<PathBuf>,
    /// What the program is started by; nothing if directly.
    pub wrapper: Vec<String>,
}

impl Spec {
    /// The payload, in little memory.
    pub fn new(command_line: &str) -> Result<Self> {
        Ok(Self {
            image: payload()?,
            memory_mib: 16,
            vcpus: 1,
            command_line: command_line.to_owned(),
            more: Vec::new(),
            has_control: false,
            cgroup: None,
            wrapper: Vec::new(),
        })
    }
}

/// A folder that is gone with the value.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ghost-vmm-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is a few files in the place for temporary ones.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A microVM that runs, or has ended and holds its memory.
#[derive(Debug)]
pub struct MicroVm {
    child: Child,
    events: BufReader<ChildStdout>,
    folder: Folder,
}

/// A program that goes into a cgroup before it runs.
fn in_cgroup(cgroup: Option<&Path>, program: &Path) -> Command {
    let Some(cgroup) = cgroup else {
        return Command::new(program);
    };
    let mut command = Command::new("sh");
    let script = r#"echo 0 > "$0/cgroup.procs" && exec "$@""#;
    command.args(["-c", script]).arg(cgroup).arg(program);
    command
}

/// A microVM that ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub events: Vec<Value>,
    pub console: String,
    pub said: String,
    /// Names of what the process left in its folder.
    pub left: Vec<String>,
}

impl MicroVm {
    pub fn start(spec: &Spec) -> Result<Self> {
        Self::spawn(spec, |command| Ok(command.spawn()?))
    }

    /// As [`Self::start`], in other namespaces.
    pub fn start_in(place: &NetNs, spec: &Spec) -> Result<Self> {
        Self::spawn(spec, |command| Ok(place.run(|| command.spawn())??))
    }

    fn spawn(spec: &Spec, spawn: impl FnOnce(&mut Command) -> Result<Child>) -> Result<Self> {
        let folder = Folder::new()?;
        let said = fs::File::create(folder.0.join("stderr"))?;
        let vmm = binary("GHOST_VMM_BIN", "ghost-vmm")?;
        let mut command = match spec.wrapper.split_first() {
            Some((program, more)) => {
                let mut command = Command::new(program);
                command.args(more).arg(vmm);
                command
            }
            None => in_cgroup(spec.cgroup.as_deref(), &vmm),
        };
        command
            .arg("--image")
            .arg(&spec.image)
            .args(["--memory-mib", &spec.memory_mib.to_string()])
            .args(["--vcpus", &spec.vcpus.to_string()])
            .args(["--command-line", &spec.command_line])
            .arg("--serial")
            .arg(folder.0.join("console"));
        if spec.has_control {
            command.arg("--control").arg(folder.0.join("control"));
        }
        command
            .args(&spec.more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said);
        let mut child = spawn(&mut command).context("start ghost-vmm")?;
        let stdout = child.stdout.take().context("ghost-vmm's stdout")?;
        Ok(Self {
            child,
            events: BufReader::new(stdout),
            folder,
        })
    }

    /// Starts one that ends by itself, and waits for that.
    pub fn run(spec: &Spec) -> Result<Ended> {
        Self::start(spec)?.ended()
    }

    /// The next event. Blocks until there is one or the process is gone.
    pub fn event(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.events.read_line(&mut line)?;
        if line.is_empty() {
            bail!("ghost-vmm is gone and said: {}", self.said());
        }
        serde_json::from_str(&line).with_context(|| format!("an event: {line}"))
    }

    pub fn connect(&self) -> Result<Client> {
        Client::connect(&self.control())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn control(&self) -> PathBuf {
        self.folder.0.join("control")
    }

    pub fn console(&self) -> String {
        let bytes = fs::read(self.folder.0.join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(pid, signal).with_context(|| format!("send {signal} to ghost-vmm"))
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.0.join("stderr")).unwrap_or_default()
    }

    /// Waits for the end of the process.
    pub fn ended(mut self) -> Result<Ended> {
        let status = wait_for("ghost-vmm to end", LIMIT, || {
            self.child.try_wait().transpose()
        })
        .with_context(|| format!("{}\n{}", self.console(), self.said()))??;
        let mut events = Vec::new();
        let mut line = String::new();
        while self.events.read_line(&mut line)? > 0 {
            events.push(serde_json::from_str(&line).with_context(|| line.clone())?);
            line.clear();
        }
        let names = fs::read_dir(&self.folder.0)?.map(|entry| {
            let name = entry?.file_name();
            Ok(name.to_string_lossy().into_owned())
        });
        let mut left = names.collect::<Result<Vec<String>>>()?;
        left.retain(|name| name != "stderr");
        left.sort();
        Ok(Ended {
            status,
            events,
            console: self.console(),
            said: self.said(),
            left,
        })
    }
}

impl Drop for MicroVm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Shown only if the test fails.
        let said = self.said();
        if std::thread::panicking() || !said.is_empty() {
            eprintln!("--- console:\n{}--- stderr:\n{said}---", self.console());
        }
    }
}
