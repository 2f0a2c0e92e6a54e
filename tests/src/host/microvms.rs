//! A host with instances that ghostd runs itself, and what there is of them:
//! counted from outside, in the host's own namespaces.

use std::{collections::BTreeSet, fs, path::Path, process::Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Cgroup, Config, LIMIT, Stage, ghostctl, http::Request};
use crate::{
    clock::wait_for,
    microvm::{self, Folder},
};

/// The instance that ghostd runs.
pub const VM: &str = "vm-1";

/// The standard stage with one microVM more. Fields end in this order.
#[derive(Debug)]
pub struct Hosted {
    pub stage: Stage,
    cgroup: Cgroup,
    folder: Folder,
}

/// Everything of copies that could be left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// Command lines of `ghost-vmm` processes.
    pub processes: Vec<String>,
    /// Interfaces of the host.
    pub interfaces: BTreeSet<String>,
    /// Folders of copies.
    pub folders: Vec<String>,
    /// Cgroups beside the instance's, and it.
    pub cgroups: Vec<String>,
    /// Descriptors of the daemon that are guest memory.
    pub memories: usize,
    /// Pinned objects.
    pub pins: Vec<String>,
    /// Files beside the disk.
    pub files: Vec<String>,
}

impl Hosted {
    /// A payload with this command line; `more` is added to `[instance.vm]`.
    pub fn new(command_line: &str, more: &str) -> Result<Self> {
        Self::with(command_line, more, |_| ())
    }

    pub fn with(command_line: &str, more: &str, change: impl FnOnce(&mut Config)) -> Result<Self> {
        let image = microvm::payload()?.canonicalize()?;
        let folder = Folder::new()?;
        let stage = Stage::with(|_| ())?;
        let cgroup = Cgroup::new(stage.world.host())?;
        let mut hosted = Self {
            stage,
            cgroup,
            folder,
        };
        hosted.stage.config.extra = hosted.section(&image, command_line, more);
        change(&mut hosted.stage.config);
        hosted.stage.take_daemon()?.terminate()?;
        hosted.stage.start_daemon()?;
        Ok(hosted)
    }

    fn section(&self, image: &Path, command_line: &str, more: &str) -> String {
        // A sub-folder, so that what ghostd makes is ghostd's to remove.
        let cgroup = self.cgroup.path().join("vm");
        format!(
            "\n[[instance]]\nname = {VM:?}\ncgroup = {cgroup:?}\naffinity = \"none\"\n\
             [instance.vm]\nimage = {image:?}\nmemory_mib = 16\ncommand_line = {command_line:?}\n{more}\n"
        )
    }

    /// A folder of this stage's own, for disks and images.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn ghostctl(&self, arguments: &[&str]) -> Result<Output> {
        ghostctl(self.stage.world.host(), arguments)
    }

    /// `ghostctl instance|ghost VERB vm-1` that has to succeed; what it says.
    pub fn order(&self, what: &str, verb: &str) -> Result<Value> {
        let output = self.ghostctl(&["-o", "json", what, verb, VM])?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{what} {verb}: {complaint}");
        serde_json::from_slice(&output.stdout).context("what ghostctl says")
    }

    /// The same, where it has to be refused; what it complains.
    pub fn refused(&self, what: &str, verb: &str) -> Result<String> {
        let output = self.ghostctl(&[what, verb, VM])?;
        ensure!(output.status.code() == Some(1), "{what} {verb}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub fn show(&self) -> Result<Value> {
        let api = self.stage.daemon()?.api();
        api.get(&format!("/v1/instances/{VM}"))
    }

    /// Waits until a copy is in a state.
    pub fn wait_state(&self, copy: &str, state: &str) -> Result<Value> {
        let what = format!("the {copy} to be {state}");
        let found = wait_for(&what, LIMIT, || {
            let shown = self.show().ok()?;
            (shown[copy]["state"] == state).then_some(shown)
        });
        found.with_context(|| format!("{:?}", self.show()))
    }

    pub fn console(&self, copy: &str) -> Result<String> {
        let path = format!("/v1/instances/{VM}/console?copy={copy}");
        let response = self.stage.daemon()?.api().call(&Request::get(&path))?;
        ensure!(response.status == 200, "console: {}", response.text());
        Ok(response.text().to_owned())
    }

    /// A file of a copy's cgroup, if there is one.
    pub fn cgroup_file(&self, copy: &str, file: &str) -> Result<Option<String>> {
        let folder = self.cgroup.path();
        let path = match copy {
            "ghost" => folder.join("vm.ghost").join(file),
            _ => folder.join("vm").join(file),
        };
        let read = move || fs::read_to_string(path).ok();
        self.stage.world.host().run(read)
    }

    pub fn traces(&self) -> Result<Traces> {
        let daemon = self.stage.daemon().ok().map(super::Daemon::pid);
        let cgroup = self.cgroup.path();
        let folder = self.folder.path();
        let look = || Traces {
            processes: processes(),
            interfaces: names(Path::new("/sys/class/net")).into_iter().collect(),
            folders: folders(Path::new("/run/ghostd/vm")),
            cgroups: names(cgroup)
                .into_iter()
                .filter(|n| n.starts_with("vm"))
                .collect(),
            memories: daemon.map_or(0, memories),
            pins: names(Path::new("/sys/fs/bpf/ghostd")),
            files: names(folder),
        };
        let mut traces = self.stage.world.host().run(look)?;
        traces.interfaces = self
            .stage
            .world
            .host()
            .interfaces()?
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        Ok(traces)
    }

    /// Waits until there is what there was.
    pub fn wait_traces(&self, before: &Traces) -> Result<()> {
        let found = wait_for("nothing to be left behind", LIMIT, || {
            (self.traces().ok()? == *before).then_some(())
        });
        found.with_context(|| format!("left: {:?}\nbefore: {before:?}", self.traces()))
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        // Copies outlive the daemon. The PID namespace would end them too,
        // but not before their cgroup is to be removed.
        let _ = self.ghostctl(&["instance", "destroy", VM]);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn folders(run: &Path) -> Vec<String> {
    let instances = names(run).into_iter();
    instances
        .flat_map(|name| {
            let copies = names(&run.join(&name));
            std::iter::once(name.clone())
                .chain(copies.into_iter().map(move |c| format!("{name}/{c}")))
        })
        .collect()
}

/// Of the host's PID namespace: /proc there shows no others.
fn processes() -> Vec<String> {
    let pids = names(Path::new("/proc")).into_iter();
    let pids = pids.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    pids.filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains("ghost-vmm --image"))
        .collect()
}

/// The daemon's PID is the harness's; its descriptors are looked for by all of
/// /proc, where both have an entry.
fn memories(_daemon: u32) -> usize {
    let pids = names(Path::new("/proc")).into_iter();
    let pids = pids.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    let is_daemon = |pid: &String| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "ghostd")
    };
    let mut found = 0;
    for pid in pids.filter(is_daemon) {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        found += maps.lines().filter(|line| line.contains("memfd:")).count();
    }
    found
}
