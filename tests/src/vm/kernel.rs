//! The kernel that VMs boot, as `cargo xtask setup` unpacked it.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::modules::Modules;

/// The folder, as `cargo xtask` says it.
const VARIABLE: &str = "GHOST_VM_KERNEL";
/// Where it is below the user's cache.
const PLACE: &str = "ghostd/tools/vm-kernel";

#[derive(Debug)]
pub struct Kernel {
    /// As the boot loader gets it.
    pub image: PathBuf,
    pub(super) modules: Modules,
}

impl Kernel {
    pub fn find() -> Result<Self> {
        let folder = folder()?;
        let hint = || {
            let folder = folder.display();
            format!("there is no kernel for VMs in {folder}; `cargo xtask setup` gets it")
        };
        let boot = folder.join("boot");
        let mut names = fs::read_dir(boot).with_context(hint)?.flatten();
        let is_kernel = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            name.as_encoded_bytes().starts_with(b"vmlinuz-")
        };
        let image = names.find_map(|entry| Some(entry.path()).filter(is_kernel));
        Ok(Self {
            image: image.with_context(hint)?,
            modules: Modules::find(&folder.join("lib/modules")).with_context(hint)?,
        })
    }

    /// Files of these modules and of those they need, in the order of loading.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        self.modules.in_order(names)
    }
}

fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(VARIABLE) {
        return Ok(folder.into());
    }
    let absolute = |folder: &OsStr| Path::new(folder).is_absolute();
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|folder| absolute(folder))
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join(PLACE))
}
