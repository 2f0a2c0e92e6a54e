//! Hands the BPF object to the crate: `agent/src/steer/object.rs` embeds it.
//!
//! The object is built by `cargo xtask build-ebpf`, not here: it needs its own
//! target, linker and flags, and a build script that starts cargo again would
//! wait for its own build lock. `GHOSTD_EMBED` names another object, relative
//! to the repository; the test of an upgrade builds a daemon with one.

use std::{env, fs, path::Path};

fn main() {
    let object = env::var("GHOSTD_EMBED").unwrap_or_else(|_| "target/bpf/ghostd.bpf.o".to_owned());
    let built = Path::new(&variable("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(object);
    let wanted = Path::new(&variable("OUT_DIR")).join("ghostd.bpf.o");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=GHOSTD_EMBED");
    println!("cargo::rerun-if-changed={}", built.display());
    if !built.exists() {
        println!("cargo::error=the BPF object is not built yet: run `cargo xtask build-ebpf` once");
    } else if let Err(error) = fs::copy(&built, &wanted) {
        println!("cargo::error=copying {}: {error}", built.display());
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo always sets {name} for build scripts"))
}
