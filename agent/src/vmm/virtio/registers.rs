//! The registers of a virtio-mmio device (virtio 1.2, section 4.2.2).
//!
//! A driver may write anything anywhere at any time. What the order of the
//! specification does not allow is ignored.

use virtio_queue::{Queue, QueueT as _};
use vm_memory::GuestMemoryMmap;

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
/// What a driver may set.
const STATUS_DRIVER: u32 = 0xff & !STATUS_NEEDS_RESET;

const INTERRUPT_USED: u32 = 1;
const INTERRUPT_CONFIG: u32 = 2;

/// What the device has to do after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// There is something in this queue.
    Notified(u32),
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
    interrupts: u32,
}

impl Registers {
    pub(super) fn new(kind: u32, offered: u64, config: Vec<u8>, queues: Vec<Queue>) -> Self {
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
            interrupts: 0,
        }
    }

    /// A queue, once the driver has said that it is ready, and until it is broken.
    pub(super) fn running_queue(&mut self, index: usize) -> Option<&mut Queue> {
        if !self.is_running() {
            return None;
        }
        self.queues.get_mut(index)
    }

    /// Buffers were given back to the driver.
    pub(super) fn tell_used(&mut self) {
        self.interrupts |= INTERRUPT_USED;
    }

    /// Nothing can be done for this driver until it has reset the device.
    pub(super) fn break_off(&mut self) {
        self.status |= STATUS_NEEDS_RESET;
        self.interrupts |= INTERRUPT_CONFIG;
    }

    fn is_running(&self) -> bool {
        self.status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET) == STATUS_DRIVER_OK
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
            0x060 => self.interrupts,
            0x070 => self.status,
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8], memory: &GuestMemoryMmap) -> Effect {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return Effect::Nothing;
        };
        let value = u32::from_le_bytes(bytes);
        match offset {
            0x014 => self.offered_half = value,
            0x020 => self.accept(value),
            0x024 => self.accepted_half = value,
            0x030 => self.queue = value,
            0x050 if self.is_running() => return Effect::Notified(value),
            0x064 => self.interrupts &= !value,
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

    fn set_status(&mut self, value: u32, memory: &GuestMemoryMmap) -> Effect {
        if value == 0 {
            self.reset();
            return Effect::Nothing;
        }
        let was_running = self.is_running();
        let mut status = (value & STATUS_DRIVER) | (self.status & STATUS_NEEDS_RESET);
        let is_new = |bit: u32| status & bit & !self.status != 0;
        let has_started = is_new(STATUS_DRIVER_OK);
        if is_new(STATUS_FEATURES_OK) && !self.is_acceptable() {
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

    fn is_acceptable(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & FEATURE_VERSION_1 != 0
    }

    fn reset(&mut self) {
        self.accepted = 0;
        self.offered_half = 0;
        self.accepted_half = 0;
        self.queue = 0;
        self.status = 0;
        self.interrupts = 0;
        for queue in &mut self.queues {
            queue.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use virtio_queue::{Queue, QueueT as _};
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::{Effect, Registers};

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap()
    }

    fn device() -> Registers {
        let queues = vec![Queue::new(16).unwrap(), Queue::new(16).unwrap()];
        Registers::new(1, 1 << 5, vec![1, 2, 3, 4, 5, 6], queues)
    }

    fn word(device: &Registers, offset: u64) -> u32 {
        let mut data = [0; 4];
        device.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// As a driver does it, up to and with the status that starts the device.
    fn start(device: &mut Registers, features_high: u32, table: u32) -> Effect {
        let memory = memory();
        let mut write = |offset, value: u32| device.write(offset, &value.to_le_bytes(), &memory);
        for (offset, value) in [
            (0x70, 1),
            (0x70, 3),
            (0x24, 1),
            (0x20, features_high),
            (0x70, 11),
        ] {
            assert_eq!(write(offset, value), Effect::Nothing);
        }
        for queue in 0..2 {
            for (offset, value) in [
                (0x30, queue),
                (0x38, 16),
                (0x80, table),
                (0x90, 0x2000),
                (0xa0, 0x3000),
                (0x44, 1),
            ] {
                assert_eq!(write(offset, value), Effect::Nothing);
            }
        }
        write(0x70, 15)
    }

    #[test]
    fn a_driver_that_does_it_right_starts_the_device() {
        let mut device = device();
        assert_eq!(word(&device, 0), u32::from_le_bytes(*b"virt"));
        assert_eq!(word(&device, 8), 1);
        assert!(device.running_queue(0).is_none());
        assert_eq!(start(&mut device, 1, 0x1000), Effect::Started);
        assert_eq!(word(&device, 0x70), 15);
        assert!(device.running_queue(1).is_some());
        let notify = device.write(0x50, &1_u32.to_le_bytes(), &memory());
        assert_eq!(notify, Effect::Notified(1));
        device.write(0x70, &[0; 4], &memory());
        assert_eq!(word(&device, 0x70), 0);
        assert!(device.running_queue(0).is_none());
    }

    #[test]
    fn a_driver_of_the_old_kind_is_not_started() {
        let mut device = device();
        assert_eq!(start(&mut device, 0, 0x1000), Effect::Nothing);
        assert_eq!(word(&device, 0x70), 7 | 64, "features refused, needs reset");
        assert!(device.running_queue(0).is_none());
    }

    #[test]
    fn a_feature_that_was_not_offered_is_refused() {
        let mut device = device();
        assert_eq!(start(&mut device, 3, 0x1000), Effect::Nothing);
        assert_eq!(word(&device, 0x70) & 8, 0);
    }

    #[test]
    fn a_queue_outside_of_memory_stops_the_device() {
        let mut device = device();
        assert_eq!(start(&mut device, 1, 0xffff_f000), Effect::Nothing);
        assert_eq!(word(&device, 0x70) & 64, 64);
        assert!(device.running_queue(0).is_none());
    }

    #[test]
    fn configuration_is_read_in_any_width() {
        let device = device();
        let mut data = [9; 8];
        device.read(0x100, &mut data);
        assert_eq!(data, [1, 2, 3, 4, 5, 6, 0, 0]);
        let mut data = [9; 2];
        device.read(0x104, &mut data);
        assert_eq!(data, [5, 6]);
        device.read(0xfff, &mut data);
        assert_eq!(data, [0, 0]);
    }

    proptest! {
        #[test]
        fn no_driver_makes_it_panic(
            accesses in prop::collection::vec(
                (any::<bool>(), 0_u64..0x120, prop::collection::vec(any::<u8>(), 0..9)), 1..300
            )
        ) {
            let memory = memory();
            let mut device = device();
            for (is_write, offset, mut data) in accesses {
                if is_write {
                    device.write(offset, &data, &memory);
                } else {
                    device.read(offset, &mut data);
                }
            }
            let status = word(&device, 0x70);
            if device.running_queue(0).is_some() {
                prop_assert_eq!(status & (4 | 8 | 64), 12);
            }
        }
    }
}
