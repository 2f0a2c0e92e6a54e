//! QEMU as a process: one boot from memory, with a deadline.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{MARK, kernel::Kernel};
use crate::clock::wait_for;

const QEMU: &str = "qemu-system-x86_64";

/// Lines of the kernel's messages that are shown with a failure.
const TAIL_LINES: usize = 60;

/// What a machine consists of.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) memory_mib: u32,
    pub(super) cpus: u32,
    /// For the kernel, beside our own words.
    pub(super) words: &'a [String],
    pub(super) folder: &'a Path,
}

/// Who hears the command that the VM runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ear {
    File,
    /// What the command says goes to our standard output as well.
    Terminal,
    /// The console is our terminal, both ways.
    Console,
}

impl Machine<'_> {
    pub(super) fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }

    pub(super) fn start(&self, ear: Ear) -> Result<Boot> {
        let to_file = |name: &str| format!("file:{}", self.folder.join(name).display());
        let (console, output) = match ear {
            Ear::File => (to_file("console"), to_file("output")),
            Ear::Terminal => (to_file("console"), "stdio".to_owned()),
            Ear::Console => ("mon:stdio".to_owned(), "null".to_owned()),
        };
        // A kernel that panics restarts at once, which ends QEMU.
        let mut line = format!("console=ttyS0 panic=-1 cgroup_no_v1=all {MARK}");
        if ear == Ear::Console {
            line.push_str(" quiet");
        }
        for word in self.words {
            line.push(' ');
            line.push_str(word);
        }
        let said = fs::File::create(self.folder.join("said"))?;
        let mut command = Command::new(QEMU);
        command
            .args(["-machine", "q35", "-accel", "tcg,thread=multi"])
            .args(["-cpu", "max", "-smp", &self.cpus.to_string()])
            .args(["-m", &self.memory_mib.to_string()])
            .args(["-nodefaults", "-nic", "none", "-display", "none"])
            .arg("-no-reboot")
            .args(["-serial", &console, "-serial", &output])
            .args(["-serial", &to_file("code")])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.initrd())
            .args(["-append", &line])
            .stderr(said);
        if ear != Ear::Console {
            command.stdin(Stdio::null());
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {QEMU}; `cargo xtask setup` installs it"))?;
        Ok(Boot {
            child,
            folder: self.folder.to_owned(),
        })
    }
}

/// A VM that runs. It ends with the value.
#[derive(Debug)]
pub(super) struct Boot {
    child: Child,
    folder: PathBuf,
}

impl Boot {
    /// The exit code of the command that it ran.
    pub(super) fn code(mut self, limit: Duration) -> Result<i32> {
        let ended = wait_for("the VM to end", limit, || self.child.try_wait().transpose());
        let status = ended.with_context(|| self.story())??;
        let code = self.text("code");
        match code.trim().parse() {
            Ok(code) => Ok(code),
            Err(_) => bail!(
                "the VM ended ({status}) without a result: {}{}",
                code.trim(),
                self.story()
            ),
        }
    }

    /// Until a person has had enough.
    pub(super) fn wait(mut self) -> Result<()> {
        self.child.wait()?;
        Ok(())
    }

    fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All that is known of it.
    fn story(&self) -> String {
        let tail = tail(&self.text("console"));
        let (output, said) = (self.text("output"), self.text("said"));
        format!("\n--- console:\n{tail}\n--- output:\n{output}\n--- QEMU:\n{said}\n---")
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}
