//! The registers of a virtio-mmio device (virtio 1.2, section 4.2.2).
//!
//! A driver may write anything anywhere at any time. What the order of the
//! specification does not allow is ignored.

use std::sync::Arc;

use virtio_queue::{Queue, QueueT as _};

use super::{
    interrupt::{self, Interrupt},
    state::{DeviceError, DeviceState, RingState},
};
use crate::vmm::memory::GuestRam;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"GHST");

/// Where a device's own configuration begins.
const CONFIG: u64 = 0x100;

/// Without it a driver is one of an older kind, which we do not speak to.
pub(super) const FEATURE_VERSION_1: u64 = 1 << 32;

const STATUS_DRIVER_OK: u32 = 4;
const STATUS_FEATURES_OK: u32 = 8;
const STATUS_NEEDS_RESET: u32 = 64;
const STATUS_ALL: u32 = 0xff;
/// What a driver may set.
const STATUS_DRIVER: u32 = STATUS_ALL & !STATUS_NEEDS_RESET;

/// Registers that need no device, and so nobody to wait for.
pub(super) const NOTIFY: u64 = 0x050;
pub(super) const INTERRUPT_STATUS: u64 = 0x060;
pub(super) const INTERRUPT_ACKNOWLEDGE: u64 = 0x064;

/// What the device has to do after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// Queues may be used from now on.
    Started,
}

#[derive(Debug)]
pub(super) struct Registers {
    kind: u32,
    offered: u64,
    config: Vec<u8>,
    queues: Vec<Queue>,
    accepted: u64,
    offered_half: u32,
    accepted_half: u32,
    queue: u32,
    status: u32,
    interrupt: Arc<Interrupt>,
}

impl Registers {
    pub(super) fn new(
        kind: u32,
        offered: u64,
        config: Vec<u8>,
        queues: Vec<Queue>,
        interrupt: Arc<Interrupt>,
    ) -> Self {
        Self {
            kind,
            offered: offered | FEATURE_VERSION_1,
            config,
            queues,
            accepted: 0,
            offered_half: 0,
            accepted_half: 0,
            queue: 0,
            status: 0,
            interrupt,
        }
    }

    /// Whether the driver has taken this feature.
    pub(super) fn has(&self, feature: u64) -> bool {
        self.accepted & feature != 0
    }

    /// A queue, once the driver has said that it is ready, and until it is broken.
    pub(super) fn running_queue(&mut self, index: usize) -> Option<&mut Queue> {
        if !self.is_running() {
            return None;
        }
        self.queues.get_mut(index)
    }

    pub(super) fn save(&self) -> DeviceState {
        DeviceState {
            kind: self.kind,
            config: self.config.clone(),
            offered: self.offered,
            accepted: self.accepted,
            offered_half: self.offered_half,
            accepted_half: self.accepted_half,
            queue: self.queue,
            status: self.status,
            interrupts: self.interrupt.status(),
            queues: self.queues.iter().map(|q| q.state().into()).collect(),
        }
    }

    /// All of it, or nothing.
    pub(super) fn restore(
        &mut self,
        state: &DeviceState,
        memory: &GuestRam,
    ) -> Result<(), DeviceError> {
        let queues = self.check(state, memory)?;
        // What the driver was told is what it may still take.
        self.offered &= state.offered;
        self.accepted = state.accepted;
        self.offered_half = state.offered_half;
        self.accepted_half = state.accepted_half;
        self.queue = state.queue;
        self.status = state.status;
        self.interrupt.restore(state.interrupts);
        self.queues = queues;
        Ok(())
    }

    /// Whether a driver of this device can have brought it there.
    pub(super) fn check(
        &self,
        state: &DeviceState,
        memory: &GuestRam,
    ) -> Result<Vec<Queue>, DeviceError> {
        if state.config != self.config {
            return Err(DeviceError::Config {
                theirs: state.config.clone(),
                ours: self.config.clone(),
            });
        }
        let is_agreed = state.status & STATUS_FEATURES_OK != 0;
        if is_agreed && !self.is_acceptable(state.accepted) {
            return Err(DeviceError::Accepted {
                accepted: state.accepted,
                offered: self.offered,
            });
        }
        let is_running = is_running(state.status);
        if state.status & !STATUS_ALL != 0 || (is_running && !is_agreed) {
            return Err(DeviceError::Status(state.status));
        }
        if state.interrupts & !(interrupt::USED | interrupt::CONFIG) != 0 {
            return Err(DeviceError::Interrupts(state.interrupts));
        }
        self.check_queues(&state.queues, is_running, memory)
    }

    fn check_queues(
        &self,
        states: &[RingState],
        are_running: bool,
        memory: &GuestRam,
    ) -> Result<Vec<Queue>, DeviceError> {
        if states.len() != self.queues.len() {
            return Err(DeviceError::Queues {
                theirs: states.len(),
                ours: self.queues.len(),
            });
        }
        let mut queues = Vec::new();
        for (queue, (state, own)) in states.iter().zip(&self.queues).enumerate() {
            if state.size_max() != own.max_size() {
                return Err(DeviceError::QueueSize {
                    queue,
                    theirs: state.size_max(),
                    ours: own.max_size(),
                });
            }
            let made = Queue::try_from(state.to_queue())
                .map_err(|source| DeviceError::Queue { queue, source })?;
            if are_running && !made.is_valid(memory) {
                return Err(DeviceError::QueuePlace(queue));
            }
            queues.push(made);
        }
        Ok(queues)
    }

    /// Nothing can be done for this driver until it has reset the device.
    pub(super) fn break_off(&mut self) {
        self.status |= STATUS_NEEDS_RESET;
        self.interrupt.raise(interrupt::CONFIG);
    }

    fn is_running(&self) -> bool {
        is_running(self.status)
    }

    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(at) = offset.checked_sub(CONFIG) {
            let from = usize::try_from(at).unwrap_or(usize::MAX);
            let config = self.config.get(from..).unwrap_or_default();
            let bytes = config.iter().copied().chain(std::iter::repeat(0));
            data.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
            return;
        }
        let value = if data.len() == 4 {
            self.word(offset)
        } else {
            0
        };
        let bytes = value.to_le_bytes().into_iter().chain(std::iter::repeat(0));
        data.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    }

    fn word(&self, offset: u64) -> u32 {
        let half = |features: u64, half: u32| match half {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let queue = self.queues.get(self.queue as usize);
        match offset {
            0x000 => MAGIC,
            0x004 => VERSION,
            0x008 => self.kind,
            0x00c => VENDOR,
            0x010 => half(self.offered, self.offered_half),
            0x034 => queue.map_or(0, |queue| u32::from(queue.max_size())),
            0x044 => queue.map_or(0, |queue| u32::from(queue.ready())),
            INTERRUPT_STATUS => self.interrupt.status(),
            0x070 => self.status,
            // The length of a shared memory that is not there.
            0x0b0 | 0x0b4 => u32::MAX,
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8], memory: &GuestRam) -> Effect {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return Effect::Nothing;
        };
        let value = u32::from_le_bytes(bytes);
        match offset {
            0x014 => self.offered_half = value,
            0x020 => self.accept(value),
            0x024 => self.accepted_half = value,
            0x030 => self.queue = value,
            INTERRUPT_ACKNOWLEDGE => self.interrupt.acknowledge(value),
            0x070 => return self.set_status(value, memory),
            _ => self.set_queue(offset, value),
        }
        Effect::Nothing
    }

    fn accept(&mut self, value: u32) {
        if self.status & STATUS_FEATURES_OK != 0 {
            return;
        }
        let (low, high) = (self.accepted as u32, (self.accepted >> 32) as u32);
        let (low, high) = match self.accepted_half {
            0 => (value, high),
            1 => (low, value),
            _ => (low, high),
        };
        self.accepted = u64::from(low) | (u64::from(high) << 32);
    }

    fn set_queue(&mut self, offset: u64, value: u32) {
        if self.status & STATUS_DRIVER_OK != 0 {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue as usize) else {
            return;
        };
        match offset {
            // What does not fit is ignored by the queue, or found when it is started.
            0x038 => queue.set_size(u16::try_from(value).unwrap_or(0)),
            0x044 => queue.set_ready(value == 1),
            0x080 => queue.set_desc_table_address(Some(value), None),
            0x084 => queue.set_desc_table_address(None, Some(value)),
            0x090 => queue.set_avail_ring_address(Some(value), None),
            0x094 => queue.set_avail_ring_address(None, Some(value)),
            0x0a0 => queue.set_used_ring_address(Some(value), None),
            0x0a4 => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32, memory: &GuestRam) -> Effect {
        if value == 0 {
            self.reset();
            return Effect::Nothing;
        }
        let was_running = self.is_running();
        let mut status = (value & STATUS_DRIVER) | (self.status & STATUS_NEEDS_RESET);
        let is_new = |bit: u32| status & bit & !self.status != 0;
        let has_started = is_new(STATUS_DRIVER_OK);
        if is_new(STATUS_FEATURES_OK) && !self.is_acceptable(self.accepted) {
            status &= !STATUS_FEATURES_OK;
        }
        // Only a reset takes back what was said.
        self.status |= status;
        if !has_started || was_running {
            return Effect::Nothing;
        }
        let is_valid = self.status & STATUS_FEATURES_OK != 0
            && self.queues.iter().all(|queue| queue.is_valid(memory));
        if is_valid {
            return Effect::Started;
        }
        self.break_off();
        Effect::Nothing
    }

    fn is_acceptable(&self, features: u64) -> bool {
        features & !self.offered == 0 && features & FEATURE_VERSION_1 != 0
    }

    fn reset(&mut self) {
        self.accepted = 0;
        self.offered_half = 0;
        self.accepted_half = 0;
        self.queue = 0;
        self.status = 0;
        self.interrupt.reset();
        for queue in &mut self.queues {
            queue.reset();
        }
    }
}

fn is_running(status: u32) -> bool {
    status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET) == STATUS_DRIVER_OK
}
