//! The state of devices, to be taken from one microVM to another.
//!
//! Pure. What comes in is not trusted: whatever a device could not have been
//! in is refused by name, before anything of the device changes.

use serde::{Deserialize, Serialize};
use virtio_queue::QueueState;

/// A device as its driver sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::vmm) struct DeviceState {
    /// Device type.
    pub(super) kind: u32,
    /// What the driver reads of the device: an Ethernet address, a capacity.
    pub(super) config: Vec<u8>,
    pub(super) offered: u64,
    pub(super) accepted: u64,
    pub(super) offered_half: u32,
    pub(super) accepted_half: u32,
    pub(super) queue: u32,
    pub(super) status: u32,
    pub(super) interrupts: u32,
    pub(super) queues: Vec<RingState>,
}

/// A queue, with what is next in both of its rings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::vmm) struct RingState {
    pub(super) size_max: u16,
    pub(super) size: u16,
    pub(super) is_ready: bool,
    pub(super) next_available: u16,
    pub(super) next_used: u16,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

impl From<QueueState> for RingState {
    fn from(state: QueueState) -> Self {
        let QueueState {
            max_size,
            next_avail,
            next_used,
            // Never offered.
            event_idx_enabled: _,
            size,
            ready,
            desc_table,
            avail_ring,
            used_ring,
        } = state;
        Self {
            size_max: max_size,
            size,
            is_ready: ready,
            next_available: next_avail,
            next_used,
            descriptors: desc_table,
            available: avail_ring,
            used: used_ring,
        }
    }
}

impl RingState {
    pub(super) fn size_max(&self) -> u16 {
        self.size_max
    }

    pub(super) fn to_queue(&self) -> QueueState {
        let &Self {
            size_max,
            size,
            is_ready,
            next_available,
            next_used,
            descriptors,
            available,
            used,
        } = self;
        QueueState {
            max_size: size_max,
            next_avail: next_available,
            next_used,
            event_idx_enabled: false,
            size,
            ready: is_ready,
            desc_table: descriptors,
            avail_ring: available,
            used_ring: used,
        }
    }
}

/// Why a state cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub(in crate::vmm) enum StateError {
    #[error("the state has {theirs} devices, this microVM has {ours}")]
    Devices { theirs: usize, ours: usize },
    #[error("device {device} of the state is of type {theirs}, here it is of type {ours}")]
    Kind {
        device: usize,
        theirs: u32,
        ours: u32,
    },
    #[error("device {device} cannot take over its state")]
    Device {
        device: usize,
        #[source]
        source: DeviceError,
    },
    #[error("the serial port cannot take over its state: it has {0} bytes of input, more than fit")]
    SerialInput(usize),
    #[error("the serial log cannot be handed on")]
    SerialLog(#[source] std::io::Error),
}

/// Why a device cannot take over a state.
#[derive(Debug, thiserror::Error)]
pub(in crate::vmm) enum DeviceError {
    #[error("its configuration is {theirs:02x?}, here it is {ours:02x?}")]
    Config { theirs: Vec<u8>, ours: Vec<u8> },
    #[error("its driver took features {accepted:#x}, of which {offered:#x} are offered")]
    Accepted { accepted: u64, offered: u64 },
    #[error("its status is {0:#x}, which no driver can bring about")]
    Status(u32),
    #[error("its interrupt status is {0:#x}, which no device has")]
    Interrupts(u32),
    #[error("it has {theirs} queues, here there are {ours}")]
    Queues { theirs: usize, ours: usize },
    #[error("queue {queue} is of up to {theirs} entries, here of up to {ours}")]
    QueueSize {
        queue: usize,
        theirs: u16,
        ours: u16,
    },
    #[error("queue {queue} has a size or place that no queue has")]
    Queue {
        queue: usize,
        #[source]
        source: virtio_queue::Error,
    },
    #[error("queue {0} is in use, but not ready or not in memory")]
    QueuePlace(usize),
}
