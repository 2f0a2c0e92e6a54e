//! Kernel modules, and what each of them needs loaded before it.
//!
//! A module names its needs in its `.modinfo` section, so no index is needed
//! that only an installed kernel has.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

#[derive(Debug)]
pub(crate) struct Modules {
    files: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// All below this folder.
    pub(crate) fn find(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder);
            for entry in entries.with_context(|| format!("list {}", folder.display()))? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "ko") {
                    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                    files.insert(plain(&stem), path);
                }
            }
        }
        Ok(Self { files })
    }

    /// These and all they need, in an order in which they can be loaded. A
    /// module that this kernel has built in has no file, and is refused.
    pub(crate) fn in_order(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut order = Vec::new();
        for name in names {
            self.add(name, &mut order, &mut Vec::new())?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<PathBuf>, path: &mut Vec<String>) -> Result<()> {
        let name = plain(name);
        let file = self.files.get(&name);
        let file = file.with_context(|| format!("this kernel has no module {name}"))?;
        if order.contains(file) {
            return Ok(());
        }
        ensure!(!path.contains(&name), "module {name} needs itself");
        path.push(name);
        let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        for need in needs(&bytes) {
            self.add(&need, order, path)?;
        }
        path.pop();
        order.push(file.clone());
        Ok(())
    }
}

/// File names and module names differ in this only.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// Entries of `.modinfo` end with a zero each.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let value = value.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(value);
    let names = text.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::needs;

    #[test]
    fn needs_are_read_from_a_module() {
        let module = b"\x7fELF...license=GPL\0depends=kvm,irqbypass\0retpoline=Y\0";
        assert_eq!(needs(module), ["kvm", "irqbypass"]);
        assert!(needs(b"...\0depends=\0name=kvm\0").is_empty());
        assert!(needs(b"nothing").is_empty());
    }
}
