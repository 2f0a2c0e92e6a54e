//! What the VM finds in its memory at boot: programs, libraries, modules, files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{archive::Archive, modules::Modules};

/// PID 1.
const INIT: &[u8] = include_bytes!("init.sh");
const BUSYBOX: &str = "/bin/busybox";

/// Where file systems are mounted, and where programs expect a folder.
const FOLDERS: [&str; 10] = [
    "/bin", "/dev", "/mnt", "/proc", "/root", "/run", "/sys", "/tmp", "/usr/bin", "/var",
];

/// Files by their path in the VM; written in one go, with all folders.
#[derive(Debug, Default)]
pub(super) struct Content {
    files: BTreeMap<String, Vec<u8>>,
}

impl Content {
    pub(super) fn new() -> Result<Self> {
        let mut content = Self::default();
        content.text("/init", INIT);
        content.copy(Path::new(BUSYBOX), BUSYBOX).with_context(
            || "the static busybox is missing; `cargo xtask setup` installs busybox-static",
        )?;
        content.text(
            "/etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        );
        content.text("/etc/group", b"root:x:0:\nnogroup:x:65534:\n");
        Ok(content)
    }

    pub(super) fn text(&mut self, to: &str, bytes: &[u8]) {
        self.files.insert(to.to_owned(), bytes.to_vec());
    }

    pub(super) fn copy(&mut self, from: &Path, to: &str) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    /// A program without its debug information, and the libraries it needs.
    ///
    /// `folder` is a place for files that are in the way of nobody.
    pub(super) fn program(&mut self, from: &Path, to: &str, folder: &Path) -> Result<()> {
        for library in libraries(from)? {
            self.copy(Path::new(&library), &library)?;
        }
        let bytes = stripped(from, folder)?;
        self.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    /// Modules with all they need, loaded in order by PID 1.
    pub(super) fn modules(&mut self, modules: &Modules, names: &[&str]) -> Result<()> {
        let mut list = String::new();
        for file in modules.in_order(names)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let to = format!("/vm/{name}");
            self.copy(&file, &to)?;
            list.push_str(&to);
            list.push('\n');
        }
        self.text("/vm/modules", list.as_bytes());
        Ok(())
    }

    pub(super) fn archive(self) -> Result<Vec<u8>> {
        let mut folders: BTreeSet<&Path> = BTreeSet::new();
        for path in self.files.keys().map(Path::new) {
            ensure!(path.is_absolute(), "{} is not absolute", path.display());
            folders.extend(path.ancestors().skip(1));
        }
        folders.extend(
            FOLDERS
                .iter()
                .flat_map(|folder| Path::new(folder).ancestors()),
        );
        let mut archive = Archive::default();
        // Sorted, so each comes after the one it is in.
        for folder in folders.iter().filter(|folder| folder.parent().is_some()) {
            archive.folder(&folder.to_string_lossy())?;
        }
        for (path, bytes) in &self.files {
            archive.file(path, bytes)?;
        }
        archive.end()
    }
}

/// Where a program is that is known by its name only.
pub(super) fn on_path(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut files = folders.map(|folder| folder.join(name));
    let found = files.find(|file| file.is_file());
    found.with_context(|| format!("there is no program `{name}` on this machine"))
}

/// Absolute paths of shared libraries and of their loader.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot start `ldd`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("not a dynamic executable") || text.contains("statically linked") {
        return Ok(Vec::new());
    }
    ensure!(output.status.success(), "ldd {}: {said}", program.display());
    let mut libraries = Vec::new();
    for line in text.lines() {
        if line.contains("not found") {
            bail!("{} needs a library: {}", program.display(), line.trim());
        }
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        libraries.extend(path.map(str::to_owned));
    }
    Ok(libraries)
}

/// Debug information is most of a program, and the VM has to unpack it.
fn stripped(program: &Path, folder: &Path) -> Result<Vec<u8>> {
    let to = folder.join("stripped");
    let status = Command::new("strip")
        .arg("--strip-debug")
        .arg("-o")
        .arg(&to)
        .arg(program)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let file = match status {
        Ok(status) if status.success() => to.as_path(),
        // A script, or there is no `strip`.
        _ => program,
    };
    fs::read(file).with_context(|| format!("read {}", file.display()))
}
