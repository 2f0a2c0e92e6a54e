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

/// The folder that holds the built programs.
pub(crate) struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// All programs of the daemon and of `tests/`, in one build, so that what
    /// they share is compiled once.
    pub(crate) fn build(workspace: &Workspace, profile: Profile) -> Result<Self> {
        let (folder, flags): (_, &[&str]) = match profile {
            Profile::Dev => ("debug", &[]),
            Profile::Release => ("release", &["--release"]),
        };
        let what = format!("building ghostd, ghostctl and the programs of tests/ ({folder})");
        run::step(&what, || {
            let mut cargo = workspace.cargo();
            cargo.args([
                "build",
                "--package",
                "ghostd",
                "--package",
                "ghostd-tests",
                "--bins",
            ]);
            run::loud(cargo.args(flags))
        })?;
        Ok(Self {
            dir: workspace.target().join(folder),
        })
    }

    /// Tells a program under test or a test where the daemon and its CLI are.
    pub(crate) fn announce(&self, command: &mut Command) {
        command.env("GHOSTD_BIN", self.dir.join("ghostd"));
        command.env("GHOSTCTL_BIN", self.dir.join("ghostctl"));
    }

    /// Becomes the program: its output, signals and exit code are ours. Comes
    /// back only with an error.
    pub(crate) fn become_program(&self, name: &str, arguments: &[String]) -> Result<()> {
        let program = self.dir.join(name);
        if !program.exists() {
            bail!(
                "there is no program `{name}` in tests/{}",
                list(&self.programs(name))
            );
        }
        let mut command = Command::new(&program);
        command.args(arguments);
        self.announce(&mut command);
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

fn list(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!("; there are: {}", names.join(", "))
    }
}
