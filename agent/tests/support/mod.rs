//! What tests against the real kernel share: a network namespace and a pin
//! folder of their own, gone when the test ends, however it ends.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "each test binary uses a part of it"
)]

use std::{
    env, fs,
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use ghostd::{
    model::{InstanceName, Limits},
    steer::{Pins, Plane, Started, chain},
};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` as root on a thread in a new network namespace, or records
/// that it is skipped.
pub fn isolated(name: &str, test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        skip(name, "needs root");
        return;
    }
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip link set lo up");
            test();
        })
        .unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub fn skip(name: &str, reason: &str) {
    println!("skipped: {name}\t{reason}");
    if let Some(path) = env::var_os("GHOSTD_SKIPS") {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        writeln!(file, "{name}\t{reason}").unwrap();
    }
}

/// Runs a command of blank-separated words in this thread's namespaces.
pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap_or_else(|e| panic!("{command}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {text}{error}");
    text
}

/// A pair of interfaces in this thread's network namespace.
pub fn veth(a: &str, b: &str) {
    run(&format!("ip link add {a} type veth peer name {b}"));
    run(&format!("ip link set {a} up"));
    run(&format!("ip link set {b} up"));
}

/// A second network namespace.
pub struct Netns(String);

impl Netns {
    pub fn new() -> Self {
        let count = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("ghostd-test-{}-{count}", std::process::id());
        run(&format!("ip netns add {name}"));
        let netns = Self(name);
        netns.run("ip link set lo up");
        netns
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    pub fn run(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.0))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub fn start(root: &PinRoot) -> Started {
    Plane::start(root.path(), &limits(), &object()).unwrap_or_else(|e| panic!("{}", chain(&e)))
}

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// A pin root of one test.
pub struct PinRoot(PathBuf);

impl PinRoot {
    pub fn new() -> Self {
        let count = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("ghostd-test-{}-{count}", std::process::id());
        Self(Path::new("/sys/fs/bpf").join(name))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PinRoot {
    fn drop(&mut self) {
        let removed = Pins::clean(&self.0);
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

/// A cgroup of one test, below the unified hierarchy.
pub struct Cgroup(PathBuf);

impl Cgroup {
    pub fn new() -> Self {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .map(Path::new)
            .find(|p| p.join("cgroup.controllers").exists())
            .expect("cgroup v2 is mounted");
        let count = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("ghostd-test-{}-{count}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that ended a moment ago may still be counted.
        let removed = eventually(Duration::from_secs(5), || fs::remove_dir(&self.0).ok());
        if !std::thread::panicking() {
            removed.expect("the cgroup is empty");
        }
    }
}

/// Asks until there is an answer, or the deadline.
pub fn eventually<T>(within: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn limits() -> Limits {
    Limits {
        routes: 64,
        instances: 8,
        flows: 256,
        fragments: 64,
    }
}

pub fn name(text: &str) -> InstanceName {
    text.parse().unwrap()
}

/// The BPF object under test.
pub fn object() -> Vec<u8> {
    let path = env::var_os("GHOSTD_BPF_OBJECT").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../target/bpf/ghostd.bpf.o"
            ))
        },
        PathBuf::from,
    );
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
