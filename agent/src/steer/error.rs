//! What can go wrong with the kernel side, and how bad it is.

use std::{io, path::PathBuf};

use crate::model::SlotIndex;

/// What the daemon does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Passes by itself: try again at the next tick.
    Retry,
    /// Part of the work cannot be done: say so, and go on with the rest.
    Degrade,
    /// Nothing sensible is left to do.
    Fatal,
}

#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    #[error("{0} is not on a BPF file system; mount one: `mount -t bpf bpf /sys/fs/bpf`")]
    NotBpffs(PathBuf),
    #[error("cannot make or open the pin folder {0}")]
    PinRoot(PathBuf, #[source] io::Error),
    #[error(
        "nothing is pinned at {0}: no ghostd has run here since the last boot or `ghostctl clean`"
    )]
    NoPins(PathBuf),
    #[error("cannot open the pin {0}")]
    OpenPin(PathBuf, #[source] io::Error),
    #[error("cannot pin {0}")]
    Pin(PathBuf, #[source] io::Error),
    #[error("cannot remove the pin {0}")]
    Unpin(PathBuf, #[source] io::Error),
    #[error(
        "the maps pinned at {root} have ABI version {found}, this ghostd has {expected}; \
         `ghostctl clean` removes them (steering stops until ghostd starts again)"
    )]
    AbiVersion {
        root: PathBuf,
        found: u32,
        expected: u32,
    },
    #[error(
        "pinned map {map} has {what} {found}, this configuration needs {expected}; \
         set matching limits, or remove the pins with `ghostctl clean` \
         (steering stops until ghostd starts again)"
    )]
    MapShape {
        map: &'static str,
        what: &'static str,
        found: u32,
        expected: u32,
    },
    #[error("cannot {what} map {map}")]
    Map {
        what: &'static str,
        map: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("slot {0:?} is beyond the switches there are")]
    NoSlot(SlotIndex),
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("cannot find the kernel's field offsets in /sys/kernel/btf/vmlinux")]
    Btf(#[from] super::btf::BtfError),
    #[error("cannot find out how deep ghostd's PID namespace is nested")]
    PidLevel(#[source] io::Error),
    #[error("cannot load the BPF object")]
    Load(#[source] Box<aya::EbpfError>),
    #[error(
        "cannot take foreign XDP program {program} off {interface}: several links hold it on interfaces with index {ifindex}, of different network namespaces; find the right one with `bpftool link show`, then `bpftool link detach id ID`"
    )]
    ForeignLinks {
        interface: String,
        program: u32,
        ifindex: u32,
    },
    #[error("the BPF object has no program {0}")]
    NoProgram(&'static str),
    #[error("cannot start a thread to load BPF program {name}")]
    Thread {
        name: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot load BPF program {program}")]
    Program {
        program: &'static str,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    #[error("there is no interface {0}")]
    NoInterface(String),
    #[error(
        "interface {interface} carries a foreign XDP program, {}; \
         detach it, or set `replace_foreign = true`",
        named(.name.as_deref(), *.id)
    )]
    ForeignXdp {
        interface: String,
        /// `None` without the right to ask, which is CAP_SYS_ADMIN.
        name: Option<String>,
        id: u32,
    },
    #[error("cannot {what} on interface {interface}")]
    Attach {
        what: &'static str,
        interface: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot attach {program} to tracepoint {tracepoint}{hint}")]
    Tracepoint {
        program: &'static str,
        tracepoint: &'static str,
        hint: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot watch for cgroups that come and go")]
    Watch(#[source] io::Error),
    #[error("the kernel does not answer {0} over netlink")]
    Netlink(&'static str, #[source] io::Error),
    #[error("the kernel threw this switch at the same moment, which stands; look, and try again")]
    Raced,
}

fn named(name: Option<&str>, id: u32) -> String {
    match name {
        Some(name) => format!("`{name}` (id {id})"),
        None => format!("id {id} (`bpftool prog show id {id}` names it)"),
    }
}

impl SteerError {
    pub fn class(&self) -> Class {
        match self {
            Self::Netlink(..) | Self::Raced | Self::NoInterface(_) => Class::Retry,
            Self::ForeignXdp { .. }
            | Self::ForeignLinks { .. }
            | Self::Attach { .. }
            | Self::Tracepoint { .. }
            | Self::Btf(_)
            | Self::PidLevel(_)
            | Self::NoSlot(_)
            | Self::Watch(_)
            | Self::Unpin(..)
            | Self::Map { .. } => Class::Degrade,
            Self::NotBpffs(_)
            | Self::PinRoot(..)
            | Self::NoPins(_)
            | Self::OpenPin(..)
            | Self::Pin(..)
            | Self::AbiVersion { .. }
            | Self::MapShape { .. }
            | Self::Read(..)
            | Self::Load(_)
            | Self::NoProgram(_)
            | Self::Thread { .. }
            | Self::Program { .. } => Class::Fatal,
        }
    }
}
