//! A VM with a kernel of its own, for what the host's kernel cannot do or must
//! not be asked: cgroup controllers, other kernels, Linux as a guest of KVM.
//!
//! Owns: QEMU without acceleration, Debian's kernel, and a system in memory
//! that runs one command and is gone. Refuses: networks and disks of the host;
//! nothing in the VM reaches it. Fails with the end of the VM's console.
//!
//! A test is a function that runs twice: on the host, where [`inside`] boots
//! the VM with the test's own program in it, and in the VM, where it runs the
//! body. Its assertions are made where the facts are.

mod archive;
mod content;
mod kernel;
mod modules;
mod qemu;
mod shell;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

pub use kernel::Kernel;

use self::{
    content::Content,
    qemu::{Ear, Machine},
};
use crate::host::binary;

/// A boot takes some seconds, and several times that on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(420);

/// On the kernel's command line of every VM of ours, and of no other machine.
const MARK: &str = "ghost.vm=1";

/// Where programs lie in the VM.
const PROGRAMS: &str = "/usr/bin";

/// What a VM has.
#[derive(Debug, Clone)]
pub struct Spec {
    memory_mib: u32,
    cpus: u32,
    words: Vec<String>,
    modules: Vec<&'static str>,
    programs: Vec<(PathBuf, String)>,
    files: Vec<(PathBuf, String)>,
    contents: Vec<(String, Vec<u8>)>,
    environment: Vec<(String, String)>,
    limit: Duration,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            memory_mib: 1024,
            cpus: 2,
            words: Vec::new(),
            modules: Vec::new(),
            programs: Vec::new(),
            files: Vec::new(),
            contents: Vec::new(),
            environment: Vec::new(),
            limit: LIMIT,
        }
    }
}

impl Spec {
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Words for the kernel's command line.
    #[must_use]
    pub fn kernel_words(mut self, words: &str) -> Self {
        self.words
            .extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// Loaded at boot, after what they need.
    #[must_use]
    pub fn modules(mut self, names: &[&'static str]) -> Self {
        self.modules.extend(names);
        self
    }

    /// Programs of this machine, found by name; with their libraries.
    pub fn tools(mut self, names: &[&str]) -> Result<Self> {
        for name in names {
            let to = format!("{PROGRAMS}/{name}");
            self.programs.push((content::on_path(name)?, to));
        }
        Ok(self)
    }

    /// A program of this repository; `variable` tells tests where it is.
    pub fn built(mut self, variable: &str, name: &str) -> Result<Self> {
        let to = format!("{PROGRAMS}/{name}");
        self.programs.push((binary(variable, name)?, to.clone()));
        Ok(self.environment(variable, &to))
    }

    #[must_use]
    pub fn file(mut self, from: &Path, to: &str) -> Self {
        self.files.push((from.to_owned(), to.to_owned()));
        self
    }

    /// A file that is not on this machine.
    #[must_use]
    pub fn content(mut self, to: &str, bytes: Vec<u8>) -> Self {
        self.contents.push((to.to_owned(), bytes));
        self
    }

    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Boots, runs the command, and waits for its end.
    pub fn run(self, command: &[&str]) -> Result<Outcome> {
        let folder = Folder::new()?;
        let limit = self.limit;
        let boot = self.boot(command, &folder, Ear::File)?;
        let code = boot.code(limit)?;
        let text = |name: &str| -> Result<String> {
            let bytes = fs::read(folder.0.join(name))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Outcome {
            code,
            output: text("output")?,
            console: text("console")?,
        })
    }

    /// As [`Self::run`], but its output is ours, and nobody hurries it.
    pub fn show(self, command: &[&str]) -> Result<i32> {
        const LONG: Duration = Duration::from_secs(24 * 3600);
        let folder = Folder::new()?;
        self.boot(command, &folder, Ear::Terminal)?.code(LONG)
    }

    /// A shell in the VM on this terminal.
    pub fn interact(self) -> Result<()> {
        let folder = Folder::new()?;
        self.boot(&[], &folder, Ear::Console)?.wait()
    }

    fn boot(self, command: &[&str], folder: &Folder, ear: Ear) -> Result<qemu::Boot> {
        let kernel = Kernel::find()?;
        let machine = Machine {
            kernel: &kernel,
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            words: &self.words,
            folder: &folder.0,
        };
        let mut content = Content::new()?;
        content.modules(&kernel.modules, &self.modules)?;
        for (from, to) in &self.programs {
            content.program(from, to, &folder.0)?;
        }
        for (from, to) in &self.files {
            content.copy(from, to)?;
        }
        for (to, bytes) in &self.contents {
            content.text(to, bytes);
        }
        let script = shell::script(&self.environment, command);
        content.text("/vm/command", script.as_bytes());
        if ear == Ear::Console {
            content.text("/vm/interactive", b"");
        }
        let initrd = machine.initrd();
        fs::write(&initrd, content.archive()?)
            .with_context(|| format!("write {}", initrd.display()))?;
        machine.start(ear)
    }
}

/// What became of a command in a VM.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    /// Of the command, both streams.
    pub output: String,
    /// Of the kernel.
    pub console: String,
}

/// Runs a test's body in a VM. `test` is its full name.
///
/// # Errors
///
/// If the VM does not come up, or the body fails there.
pub fn inside(test: &str, spec: Spec, body: impl FnOnce() -> Result<()>) -> Result<()> {
    const SELF: &str = "/usr/bin/the-test";
    if is_vm() {
        return body();
    }
    let mut spec = spec;
    spec.programs
        .push((std::env::current_exe()?, SELF.to_owned()));
    let spec = spec.environment("RUST_BACKTRACE", "1");
    let outcome = spec.run(&[SELF, "--exact", test, "--nocapture", "--test-threads=1"])?;
    let console = qemu::tail(&outcome.console);
    let Outcome { code, output, .. } = outcome;
    if code != 0 {
        bail!("it failed in the VM ({code})\n--- console:\n{console}\n--- output:\n{output}\n---");
    }
    // Otherwise it is not the name of a test, and nothing was tested.
    ensure!(
        output.contains("\ntest result: ok. 1 passed;"),
        "{test} did not run in the VM:\n{output}"
    );
    print!("{output}");
    Ok(())
}

/// An initial file system for a guest in a VM, or anywhere: busybox, modules
/// listed in order in `/vm/modules`, and a PID 1.
pub fn initrd(kernel: &Kernel, modules: &[&str], init: &str) -> Result<Vec<u8>> {
    let mut content = Content::new()?;
    content.modules(&kernel.modules, modules)?;
    content.text("/init", init.as_bytes());
    content.archive()
}

/// Whether this is one of our VMs.
pub fn is_vm() -> bool {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_whitespace().any(|word| word == MARK)
}

/// A folder that is gone with the value.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ghost-vm-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is some files in the place for temporary ones.
        let _ = fs::remove_dir_all(&self.0);
    }
}
