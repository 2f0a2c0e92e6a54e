//! Builds what is started: the daemon, its CLI, and the programs of `tests/`.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{run, workspace::Workspace};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build; for the demo and for tests.
    Dev,
    /// For numbers.
    Release,
}

impl Profile {
    const fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// The folder that holds the built programs.
pub(crate) struct Binaries {
    dir: PathBuf,
}

/// The crates whose programs and tests are run. One selection for all builds:
/// cargo chooses features by it, so another one would compile much of the tree
/// a second time.
pub(crate) const SELECTION: [&str; 5] = [
    "--workspace",
    "--exclude",
    "agent-ebpf",
    "--exclude",
    "xtask",
];

impl Binaries {
    pub(crate) fn build(workspace: &Workspace, profile: Profile) -> Result<Self> {
        let what = format!(
            "building ghostd, ghostctl and the programs of tests/ ({})",
            profile.folder()
        );
        run::step(&what, || {
            let mut cargo = workspace.cargo();
            cargo.arg("build").args(SELECTION).arg("--bins");
            match profile {
                Profile::Dev => {}
                Profile::Release => {
                    cargo.arg("--release");
                }
            }
            run::loud(&mut cargo)
        })?;
        Ok(Self::built(workspace, profile))
    }

    /// Those that `cargo test` builds before it runs the tests of a crate.
    pub(crate) fn built(workspace: &Workspace, profile: Profile) -> Self {
        Self {
            dir: workspace.target().join(profile.folder()),
        }
    }

    /// Tells a program under test or a test where the shipped programs and
    /// the kernel for VMs are.
    pub(crate) fn announce(&self, workspace: &Workspace, command: &mut Command) {
        command.env("GHOST_VM_KERNEL", workspace.vm_kernel());
        command.env("GHOSTD_BIN", self.dir.join("ghostd"));
        command.env("GHOSTCTL_BIN", self.dir.join("ghostctl"));
        command.env("GHOST_VMM_BIN", self.dir.join("ghost-vmm"));
    }

    /// Becomes the program: its output, signals and exit code are ours. Comes
    /// back only with an error.
    pub(crate) fn become_program(
        &self,
        workspace: &Workspace,
        name: &str,
        arguments: &[String],
    ) -> Result<()> {
        let program = self.dir.join(name);
        if !program.exists() {
            bail!(
                "there is no program `{name}` in tests/{}",
                list(&self.programs(name))
            );
        }
        let mut command = Command::new(&program);
        command.args(arguments);
        self.announce(workspace, &mut command);
        let error = command.exec();
        Err(error).with_context(|| format!("cannot start {}", program.display()))
    }

    /// Programs whose name begins as this one does, for a helpful error.
    fn programs(&self, name: &str) -> Vec<String> {
        let Some((stem, _)) = name.split_once('-') else {
            return Vec::new();
        };
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let is_program =
            |name: &String| name.starts_with(stem) && Path::new(name).extension().is_none();
        names.filter(is_program).collect()
    }
}

/// Builds the daemon around another BPF object; gives its path.
pub(crate) fn next(workspace: &Workspace, object: &Path) -> Result<PathBuf> {
    run::step("building a ghostd with other BPF programs", || {
        let mut cargo = workspace.cargo();
        cargo
            .args(["build", "--quiet", "--profile", "next"])
            .args(["--package", "ghostd", "--bin", "ghostd"])
            .env("GHOSTD_EMBED", object);
        run::loud(&mut cargo)
    })?;
    Ok(workspace.target().join("next/ghostd"))
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!("; there are: {}", names.join(", "))
    }
}
