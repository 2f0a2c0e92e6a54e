//! What can go wrong with copies.

use std::{io, path::PathBuf};

use crate::model::CopyId;

#[derive(Debug, thiserror::Error)]
pub(crate) enum GhostError {
    #[error("cannot make the folder {0}")]
    MakeFolder(PathBuf, #[source] io::Error),
    #[error("cannot remove {0}")]
    Remove(PathBuf, #[source] io::Error),
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("cannot read {0}: it is no record of this ghostd")]
    Record(PathBuf, #[source] serde_json::Error),
    #[error("{0} is there already; a copy lives in it, or `ghostctl instance destroy` is due")]
    Occupied(PathBuf),
    #[error("cannot make the cgroup {0}")]
    MakeCgroup(PathBuf, #[source] io::Error),
    #[error("cannot start {0}")]
    Start(PathBuf, #[source] io::Error),
    #[error("cannot start {copy}: {said}")]
    Refused { copy: CopyId, said: String },
    #[error("{copy} gave no sign of life within {seconds} s")]
    Silent { copy: CopyId, seconds: u64 },
    #[error("cannot reach {copy}")]
    Connect {
        copy: CopyId,
        #[source]
        source: io::Error,
    },
    #[error("cannot {what} {copy}")]
    Talk {
        what: &'static str,
        copy: CopyId,
        #[source]
        source: io::Error,
    },
    #[error("cannot {what} {copy}: {why}")]
    Answer {
        what: &'static str,
        copy: CopyId,
        why: String,
    },
    #[error("cannot map the memory of {copy}")]
    Map {
        copy: CopyId,
        #[source]
        source: vm_memory::mmap::MmapRegionError,
    },
    #[error("cannot take page {page} of {copy} over")]
    Page {
        copy: CopyId,
        page: u64,
        #[source]
        source: vm_memory::VolatileMemoryError,
    },
    #[error("{copy} has {found} bytes of memory, not {expected}")]
    MemorySize {
        copy: CopyId,
        found: u64,
        expected: u64,
    },
    #[error("no cut of {0} was begun")]
    NoCut(CopyId),
    #[error("cannot end {copy} (pid {pid})")]
    End {
        copy: CopyId,
        pid: u32,
        #[source]
        source: io::Error,
    },
    #[error("cannot connect a copy")]
    Link(#[source] super::link::LinkError),
    #[error("cannot wait for the copies of an instance")]
    Wait(#[source] io::Error),
    #[error("{0}")]
    Switch(String),
    #[error("cannot see what the plan gives to a ghost: {0}")]
    Plan(String),
    #[error("cannot drill {copy}")]
    Drill {
        copy: CopyId,
        #[source]
        source: Box<GhostError>,
    },
    #[error("cannot make a network for a drill")]
    Cord(#[source] io::Error),
    #[error("it has no network: it needs an [[instance.port]] and the key `mac` of [instance.vm]")]
    NoNetwork,
    #[error(
        "`host_addresses` of [instance.vm] has no {family} address from which {addr} could be asked",
        family = super::drill::family(*addr)
    )]
    NoSource { addr: std::net::IpAddr },
    #[error("there is no [instance.vm.health]")]
    NoQuestion,
    #[error("the primary is gone; its ghost is needed for more than a drill")]
    Interrupted,
    #[error("there is no {0}")]
    NoCopy(&'static str),
}

impl GhostError {
    /// The error and its causes.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}
