//! Network namespaces that exist as long as a value does.
//!
//! A namespace is held by a file descriptor and has no name anywhere, so the
//! kernel removes it, with all its interfaces, when the last holder is gone:
//! on drop, on a panic, and also when the test process is killed.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// Namespaces a thread can enter. Cheap to clone: clones share the descriptors.
#[derive(Debug, Clone)]
pub struct NetNs {
    name: String,
    net: Arc<File>,
    mount: Option<Arc<File>>,
    pid: Option<Arc<File>>,
}

impl NetNs {
    /// A new, empty network namespace with its loopback up.
    pub fn new(name: &str) -> Result<Self> {
        let made = std::thread::scope(|scope| {
            scope
                .spawn(|| -> Result<File> {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    Ok(File::open("/proc/thread-self/ns/net")?)
                })
                .join()
        });
        let net = made
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .with_context(|| format!("make network namespace {name} (needs root)"))?;
        let ns = Self {
            name: name.to_owned(),
            net: Arc::new(net),
            mount: None,
            pid: None,
        };
        ns.quieten()?;
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// The same network, seen from inside the mount and PID namespaces of `pid`.
    pub(crate) fn inside(&self, pid: u32) -> Result<Self> {
        let open = |kind: &str| {
            let path = format!("/proc/{pid}/ns/{kind}");
            File::open(&path).with_context(|| format!("open {path}"))
        };
        Ok(Self {
            mount: Some(Arc::new(open("mnt")?)),
            pid: Some(Arc::new(open("pid")?)),
            ..self.clone()
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path that names this namespace to tools, as long as we live.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd()).into()
    }

    /// Runs `work` on a thread of its own inside. Sockets it makes stay inside.
    /// Programs it starts do too, and are born into the PID namespace, if any.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let joined = std::thread::scope(|scope| {
            scope
                .spawn(|| -> Result<T> {
                    self.enter()?;
                    Ok(work())
                })
                .join()
        });
        joined
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .with_context(|| format!("enter the namespaces of {}", self.name))
    }

    /// Enters on the calling thread, which is to be a dedicated one.
    fn enter(&self) -> Result<()> {
        if let Some(mount) = &self.mount {
            // The kernel wants a root directory that no other thread shares.
            unshare(CloneFlags::CLONE_FS)?;
            setns(mount.as_fd(), CloneFlags::CLONE_NEWNS)?;
        }
        setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET)?;
        if let Some(pid) = &self.pid {
            setns(pid.as_fd(), CloneFlags::CLONE_NEWPID)?;
        }
        Ok(())
    }

    /// Runs a program inside to its end and gives its standard output.
    pub fn command(&self, command: &mut Command) -> Result<String> {
        let output = self
            .run(|| command.output())?
            .with_context(|| format!("start {}", command.get_program().display()))?;
        ensure!(
            output.status.success(),
            "{command:?} in {}: {}: {}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `ip` with blank-separated arguments.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.command(Command::new("ip").args(arguments.split_ascii_whitespace()))
    }

    /// Stores a value below `/proc/sys/net`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.run(|| std::fs::write(&path, value))?
            .with_context(|| format!("write `{value}` to {path} in {}", self.name))
    }

    /// Indices of the interfaces inside, by name.
    pub fn interfaces(&self) -> Result<Vec<(String, u32)>> {
        let look = || -> nix::Result<Vec<(String, u32)>> {
            let found = nix::net::if_::if_nameindex()?;
            let named =
                |i: &nix::net::if_::Interface| (i.name().to_string_lossy().into_owned(), i.index());
            Ok(found.iter().map(named).collect())
        };
        Ok(self.run(look)??)
    }

    /// Kernel index of an interface inside.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        self.run(|| nix::net::if_::if_nametoindex(interface))?
            .with_context(|| format!("no interface {interface} in {}", self.name))
    }

    /// No address probing, no router discovery, no source checks: tests state
    /// every address and route themselves.
    fn quieten(&self) -> Result<()> {
        for scope in ["all", "default"] {
            self.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
            self.sysctl(&format!("ipv6/conf/{scope}/accept_ra"), "0")?;
            self.sysctl(&format!("ipv6/conf/{scope}/router_solicitations"), "0")?;
            self.sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
        }
        Ok(())
    }
}
