//! What can go wrong with a microVM before it runs, and with its threads.

use std::{io, os::fd::RawFd, path::PathBuf};

use super::{
    jail::Refusal,
    layout::{MEMORY_MIB_MAX, MEMORY_MIB_MIN},
    linux::KernelError,
    place::Place,
    system::SystemError,
    virtio::DiskError,
};

/// Whose fault it is, which is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// What we were given: a file, a number, a device that is not there.
    Input,
    /// The system or ourselves.
    System,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum VmmError {
    #[error(
        "memory of {0} MiB is not possible; it must be even, from {MEMORY_MIB_MIN} to {MEMORY_MIB_MAX}"
    )]
    MemorySize(u64),
    #[error("the command line has {0} bytes, at most 4096 fit")]
    CommandLine(usize),
    #[error("cannot read the image {0}")]
    ReadImage(Place, #[source] io::Error),
    #[error("the image {path} has {bytes} bytes, more than guest memory ({memory} bytes)")]
    ImageSize {
        path: Place,
        bytes: u64,
        memory: u64,
    },
    #[error("the image {path} is refused")]
    Image {
        path: Place,
        #[source]
        source: SystemError,
    },
    #[error("the initrd {0} is refused")]
    Initrd(Place, #[source] KernelError),
    #[error("the initrd {0} is for a Linux kernel, but the image is a payload")]
    NoInitrd(Place),
    #[error("cannot read the initrd {0}")]
    ReadInitrd(Place, #[source] io::Error),
    #[error("the command line is refused")]
    KernelLine(#[source] KernelError),
    #[error("cannot open the memory {0}")]
    OpenMemory(Place, #[source] io::Error),
    #[error("{0} is no memory of a guest: no file that is sealed against a change of size")]
    NotMemory(Place),
    #[error("the memory {path} has {bytes} bytes, not the {wanted} of --memory-mib")]
    MemoryCopySize {
        path: Place,
        bytes: u64,
        wanted: u64,
    },
    #[error("cannot open {path}; is KVM loaded, and may this user use it?")]
    OpenKvm {
        path: Place,
        #[source]
        source: io::Error,
    },
    #[error("{0} is no KVM device, or too old: it has API version {1}, not 12")]
    NotKvm(Place, i32),
    #[error("cannot open the serial log {0}")]
    SerialLog(Place, #[source] io::Error),
    #[error("there is a file at the control socket's place, {0}; it is left alone")]
    ControlTaken(PathBuf),
    #[error("cannot listen at the control socket {0}")]
    Control(PathBuf, #[source] io::Error),
    #[error("cannot use the tap {0}; it must exist, be a tap, and have no user")]
    Tap(String, #[source] io::Error),
    #[error("cannot make the tap {0}: there is an interface of this name; it is left alone")]
    TapTaken(String),
    #[error("cannot make the tap {0}")]
    NewTap(String, #[source] io::Error),
    #[error("cannot run in the cgroup {0}; is the folder above it a cgroup of version 2?")]
    Cgroup(PathBuf, #[source] io::Error),
    #[error("{0} is no tap, and no socket that takes its place")]
    NotTap(Place, #[source] io::Error),
    #[error("{0} is no local packet socket that can listen")]
    NotControl(Place, #[source] io::Error),
    #[error("the descriptor fd:{0} is given twice, or is standard input, output or error")]
    Descriptor(RawFd),
    #[error("the disk {path} is refused")]
    Disk {
        path: Place,
        #[source]
        source: DiskError,
    },
    #[error("there is no jail without its part `{part}`; `--jail auto` would do with less")]
    Jail {
        part: &'static str,
        #[source]
        source: Refusal,
    },
    #[error("cannot get guest memory of {bytes} bytes")]
    Memory {
        bytes: u64,
        #[source]
        source: io::Error,
    },
    #[error("cannot map guest memory of {bytes} bytes")]
    MapMemory {
        bytes: u64,
        #[source]
        source: vm_memory::mmap::FromRangesError,
    },
    #[error("cannot write {bytes} bytes to guest memory at {address:#x}")]
    WriteMemory {
        address: u64,
        bytes: usize,
        #[source]
        source: vm_memory::GuestMemoryError,
    },
    #[error("cannot read {bytes} bytes of guest memory at {address:#x}")]
    ReadMemory {
        address: u64,
        bytes: usize,
        #[source]
        source: vm_memory::GuestMemoryError,
    },
    #[error("KVM cannot {what}")]
    Kvm {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot {what}")]
    System {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("there is no place for another device")]
    TooManyDevices,
    #[error("vCPU {0} does not leave the guest")]
    Stuck(u8),
    #[error("the thread of a device died")]
    DeviceDied,
    #[error("the thread of vCPU {0} died")]
    ThreadDied(u8),
}

impl VmmError {
    pub(super) fn kvm(what: &'static str, source: kvm_ioctls::Error) -> Self {
        Self::Kvm {
            what,
            source: io::Error::from_raw_os_error(source.errno()),
        }
    }

    pub(super) fn system(what: &'static str, source: impl Into<io::Error>) -> Self {
        Self::System {
            what,
            source: source.into(),
        }
    }

    pub(super) fn blame(&self) -> Blame {
        match self {
            Self::MemorySize(_)
            | Self::CommandLine(_)
            | Self::ReadImage(..)
            | Self::ImageSize { .. }
            | Self::Image { .. }
            | Self::Initrd(..)
            | Self::NoInitrd(_)
            | Self::ReadInitrd(..)
            | Self::KernelLine(_)
            | Self::OpenMemory(..)
            | Self::NotMemory(_)
            | Self::MemoryCopySize { .. }
            | Self::OpenKvm { .. }
            | Self::NotKvm(..)
            | Self::SerialLog(..)
            | Self::Tap(..)
            | Self::NotTap(..)
            | Self::TapTaken(_)
            | Self::NewTap(..)
            | Self::Cgroup(..)
            | Self::NotControl(..)
            | Self::Descriptor(_)
            | Self::Disk { .. }
            | Self::ControlTaken(_)
            | Self::Control(..) => Blame::Input,
            Self::Memory { .. }
            | Self::MapMemory { .. }
            | Self::WriteMemory { .. }
            | Self::ReadMemory { .. }
            | Self::Jail { .. }
            | Self::Kvm { .. }
            | Self::System { .. }
            | Self::TooManyDevices
            | Self::Stuck(_)
            | Self::DeviceDied
            | Self::ThreadDied(_) => Blame::System,
        }
    }
}
