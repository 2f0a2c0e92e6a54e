//! Files below a folder of their own, in place of `/`.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

pub(super) struct Tree {
    pub(super) path: PathBuf,
}

impl Tree {
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ghostd-enforce-{}-{number}", std::process::id());
        let tree = Self {
            path: std::env::temp_dir().join(name),
        };
        for (name, text) in files {
            let path = tree.path.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        tree
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
