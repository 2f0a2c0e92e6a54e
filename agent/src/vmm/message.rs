//! What is said on the control socket and on standard output, as JSON.
//!
//! Each message is one packet, or one line. Names are part of the interface.

use serde::{Deserialize, Serialize};

use super::{
    bus::Strays,
    end::End,
    virtio::{BlockCounts, NetCounts as Frames},
};

/// Longer commands are refused; none of ours comes near.
pub(crate) const COMMAND_BYTES_MAX: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Command {
    /// How the guest is.
    Status {},
    /// The guest's memory: the answer carries the memfd.
    Memory {},
    /// Let no vCPU run and no device write to memory.
    Pause {},
    /// Go on.
    Resume {},
    /// End the guest, and the process.
    Stop {},
    /// State of vCPUs and devices of a paused guest, without its memory: the
    /// answer carries it as a sealed memfd.
    Save {},
    /// Take over the state in the memfd that comes with this command. Only
    /// for a guest that is paused; its memory has been filled by then.
    Load {},
    /// Let a paused guest go on as another incarnation: sets its generation
    /// id and its clocks, then runs it.
    Activate {
        /// 128 bits, fresh for each activation; 32 hexadecimal digits.
        generation: String,
    },
    /// Take the frames that wait for a paused guest out of its tap, for the
    /// copy that goes on in its place: the answer carries them in a memfd.
    TakeFrames {},
    /// Frames, from the answer to `take-frames` of another copy, that this
    /// paused guest gets before any others.
    GiveFrames {},
    /// Begin to record which pages and blocks are written. Idempotent.
    Track {},
    /// Pages and blocks written since tracking began or the last one that was
    /// released: the answer carries a memfd with the page map, then the block
    /// map. May be asked of a running guest, and is exact for a paused one.
    Dirty {
        /// What was harvested with this sequence number has arrived for good
        /// and is forgotten; 0 forgets nothing.
        release: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum Answer {
    Status {
        #[serde(flatten)]
        state: State,
        vcpus: u8,
        memory_bytes: u64,
        serial_lost_bytes: u64,
        strays: StrayCounts,
        #[serde(skip_serializing_if = "Option::is_none")]
        net: Option<NetCounts>,
        #[serde(skip_serializing_if = "Option::is_none")]
        disk: Option<DiskCounts>,
        /// Missing if the process is not jailed.
        #[serde(skip_serializing_if = "Option::is_none")]
        jail: Option<Box<JailView>>,
    },
    Memory {
        bytes: u64,
        regions: Vec<RegionView>,
    },
    Paused {
        /// From the command until the last vCPU was out of the guest.
        pause_us: u64,
    },
    Resumed,
    Stopping,
    Saved {
        bytes: u64,
    },
    Loaded,
    Activated {
        /// From the command until the last vCPU was let into the guest.
        activate_us: u64,
    },
    /// How many; each is 4 bytes of length, little-endian, and the frame
    /// behind a virtio-net header.
    Frames {
        frames: u64,
    },
    Given {
        frames: u64,
    },
    Tracking,
    Dirty {
        /// Names this harvest in the next `release`; from 1.
        sequence: u64,
        /// Bits set in the page map: one for each 4 KiB of the memfd's offsets, lowest bit first.
        pages: u64,
        page_map_bytes: u64,
        /// Bits set in the block map: one for each 4 KiB of the disk. It begins
        /// where the page map ends.
        blocks: u64,
        block_map_bytes: u64,
    },
    Refused {
        why: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum State {
    Running,
    Paused,
    /// Paused, with no state yet: it was given another's memory, and waits for `load`.
    Blank,
    /// A state was loaded by half; it can only be stopped.
    Broken {
        why: String,
    },
    Ended(Reason),
}

/// Where a part of guest memory is in the memfd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RegionView {
    pub(crate) address: u64,
    pub(crate) bytes: u64,
    pub(crate) file_offset: u64,
}

/// What holds the process, should its guest take it over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JailView {
    pub(crate) uid: u32,
    /// Names of parts.
    pub(crate) in_force: Vec<String>,
    /// Parts that this system does not give; none with `--jail on`.
    pub(crate) missing: Vec<MissingView>,
    /// The version of landlock's interface that the kernel has.
    pub(crate) landlock_abi: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MissingView {
    pub(crate) part: String,
    pub(crate) why: String,
}

/// Frames, and what became of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetCounts {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) receive_dropped: u64,
    pub(crate) send_dropped: u64,
    pub(crate) broken: u64,
}

impl From<Frames> for NetCounts {
    fn from(counts: Frames) -> Self {
        let Frames {
            received,
            sent,
            receive_dropped,
            send_dropped,
            broken,
        } = counts;
        Self {
            received,
            sent,
            receive_dropped,
            send_dropped,
            broken,
        }
    }
}

/// Requests to the disk, and what became of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskCounts {
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) flushes: u64,
    pub(crate) failed: u64,
    pub(crate) broken: u64,
}

impl From<BlockCounts> for DiskCounts {
    fn from(counts: BlockCounts) -> Self {
        let BlockCounts {
            read_bytes,
            written_bytes,
            flushes,
            failed,
            broken,
        } = counts;
        Self {
            read_bytes,
            written_bytes,
            flushes,
            failed,
            broken,
        }
    }
}

/// Accesses that no device answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StrayCounts {
    pub(crate) port_reads: u64,
    pub(crate) port_writes: u64,
    pub(crate) memory_reads: u64,
    pub(crate) memory_writes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    Started {
        pid: u32,
        vcpus: u8,
        memory_bytes: u64,
        /// Missing if the process is not jailed.
        #[serde(skip_serializing_if = "Option::is_none")]
        jail: Option<JailView>,
    },
    Paused,
    Resumed,
    Ended {
        vcpu: Option<u8>,
        #[serde(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub(crate) enum Reason {
    Reset { port: u16, value: u8 },
    PowerOff,
    TripleFault,
    Halted,
    SystemEvent { kind: u32 },
    InternalError { suberror: u32, details: Vec<u64> },
    EntryFailed { hardware_reason: u64 },
    Unexpected { exit: String },
    RunFailed { errno: i32 },
    Ordered,
}

impl From<&End> for Reason {
    fn from(end: &End) -> Self {
        match end.clone() {
            End::Reset { port, value } => Self::Reset { port, value },
            End::PowerOff => Self::PowerOff,
            End::TripleFault => Self::TripleFault,
            End::Halted => Self::Halted,
            End::SystemEvent { kind } => Self::SystemEvent { kind },
            End::InternalError { suberror, details } => Self::InternalError { suberror, details },
            End::EntryFailed { reason } => Self::EntryFailed {
                hardware_reason: reason,
            },
            End::Unexpected { exit } => Self::Unexpected { exit },
            End::RunFailed { errno } => Self::RunFailed { errno },
            End::Ordered => Self::Ordered,
        }
    }
}

impl From<Strays> for StrayCounts {
    fn from(strays: Strays) -> Self {
        let Strays {
            port_reads,
            port_writes,
            memory_reads,
            memory_writes,
        } = strays;
        Self {
            port_reads,
            port_writes,
            memory_reads,
            memory_writes,
        }
    }
}

/// A command, or why it is none.
pub(crate) fn decode(packet: &[u8]) -> Result<Command, String> {
    if packet.len() > COMMAND_BYTES_MAX {
        return Err(format!("a command has at most {COMMAND_BYTES_MAX} bytes"));
    }
    serde_json::from_slice(packet).map_err(|error| error.to_string())
}

/// One packet or line, without an end.
pub(crate) fn encode(message: &impl Serialize) -> Vec<u8> {
    // Fails only for maps with odd keys, of which there are none.
    serde_json::to_vec(message).unwrap_or_default()
}
