//! Why a saved state is not taken, or could not be made.

use std::io;

use super::header::VERSION;
use crate::vmm::virtio;

#[derive(Debug, thiserror::Error)]
pub(in crate::vmm) enum StateError {
    #[error("this is no saved state: it does not begin as one")]
    Foreign,
    #[error("saved state has version {0}, this ghost-vmm knows {VERSION}")]
    Version(u32),
    #[error("the header of the saved state is damaged")]
    Header,
    #[error("the saved state is cut off: {have} bytes are there, {need} are needed")]
    Truncated { have: u64, need: u64 },
    #[error("the saved state has {have} bytes, its header says {said}")]
    Trailing { have: u64, said: u64 },
    #[error("a saved state of {bytes} bytes is too large, {bytes_max} is the most")]
    TooLarge { bytes: u64, bytes_max: u64 },
    #[error("the saved state is damaged: its checksum does not match")]
    Body,
    #[error("the saved state cannot be understood")]
    Malformed(#[source] postcard::Error),
    #[error("the saved state has {0} bytes that nothing accounts for")]
    Leftover(usize),
    #[error("cannot write the saved state")]
    Encode(#[source] postcard::Error),
    #[error("the saved state is of {saved} vCPUs, this microVM has {have}")]
    Vcpus { saved: usize, have: usize },
    #[error("the saved state is of {saved} bytes of memory, this microVM has {have}")]
    Memory { saved: u64, have: u64 },
    #[error("the saved state {saved} an interrupt controller, this microVM {have}")]
    Interrupts {
        saved: &'static str,
        have: &'static str,
    },
    #[error("vCPU {cpu} of the saved state has {count} CPUID leaves, more than KVM takes")]
    Leaves { cpu: usize, count: usize },
    #[error("the saved guest uses a processor of {saved}, this host's is of {have}")]
    Vendor { saved: String, have: String },
    #[error(
        "this host lacks a CPU feature that the saved guest may use: leaf {leaf:#x}.{index}, {register} bit {bit}"
    )]
    Feature {
        leaf: u32,
        index: u32,
        register: &'static str,
        bit: u32,
    },
    #[error("the saved guest has {saved} {what}, this host {have}")]
    Narrow {
        what: &'static str,
        saved: u32,
        have: u32,
    },
    #[error(
        "the saved guest's time stamp counter runs at {saved} kHz, this host's at {have} kHz, and KVM cannot scale it"
    )]
    TscKhz { saved: u32, have: u32 },
    #[error("vCPU {0} has run already with other CPU features than the saved ones")]
    HasRun(usize),
    #[error("the devices of the saved state do not fit")]
    Devices(#[source] virtio::StateError),
    #[error("KVM cannot {what} of vCPU {cpu}")]
    Vcpu {
        cpu: u8,
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("KVM does not take {value:#x} for register {index:#x} of vCPU {cpu}")]
    Msr { cpu: u8, index: u32, value: u64 },
    #[error("cannot {what} the file of the saved state")]
    File {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("KVM cannot {0} the interrupt controllers")]
    Chips(&'static str, #[source] io::Error),
    #[error("no file came with the command")]
    NoFile,
    #[error("vCPU {0} does not answer")]
    Silent(u8),
}
