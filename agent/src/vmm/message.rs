//! What is said on the control socket and on standard output, as JSON.
//!
//! Each message is one packet, or one line. Names are part of the interface.

use serde::{Deserialize, Serialize};

use super::{bus::Strays, end::End, virtio::Counts};

/// Longer commands are refused; none of ours comes near.
pub(super) const COMMAND_BYTES_MAX: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Command {
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
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(super) enum Answer {
    Status {
        #[serde(flatten)]
        state: State,
        vcpus: u8,
        memory_bytes: u64,
        serial_lost_bytes: u64,
        strays: StrayCounts,
        #[serde(skip_serializing_if = "Option::is_none")]
        net: Option<NetCounts>,
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
    Refused {
        why: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(super) enum State {
    Running,
    Paused,
    Ended(Reason),
}

/// Where a part of guest memory is in the memfd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RegionView {
    pub(super) address: u64,
    pub(super) bytes: u64,
    pub(super) file_offset: u64,
}

/// Frames, and what became of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct NetCounts {
    received: u64,
    sent: u64,
    receive_dropped: u64,
    send_dropped: u64,
    broken: u64,
}

impl From<Counts> for NetCounts {
    fn from(counts: Counts) -> Self {
        let Counts {
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

/// Accesses that no device answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct StrayCounts {
    port_reads: u64,
    port_writes: u64,
    memory_reads: u64,
    memory_writes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event {
    Started {
        pid: u32,
        vcpus: u8,
        memory_bytes: u64,
    },
    Paused,
    Resumed,
    Ended {
        vcpu: Option<u8>,
        #[serde(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub(super) enum Reason {
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
pub(super) fn decode(packet: &[u8]) -> Result<Command, String> {
    if packet.len() > COMMAND_BYTES_MAX {
        return Err(format!("a command has at most {COMMAND_BYTES_MAX} bytes"));
    }
    serde_json::from_slice(packet).map_err(|error| error.to_string())
}

/// One packet or line, without an end.
pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    // Fails only for maps with odd keys, of which there are none.
    serde_json::to_vec(message).unwrap_or_default()
}
