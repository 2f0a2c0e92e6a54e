//! What drivers of virtio devices (virtio 1.2) share: start and rings.
//!
//! Owns: the order of stores that a device relies on. Rings are looked at,
//! never told of. A device that does not answer as it should ends its driver's
//! start, with a reason.

use core::sync::atomic::{Ordering, fence};

use agent_common::guest::Boot;

use crate::machine::{load, store};

/// Rings and buffers of all devices are here, above the payload and below the
/// counters. Net has the first two places, block the third.
pub(crate) const AREA: u64 = 0x18_0000;
pub(crate) const QUEUE_BYTES: u64 = 0x1_0000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// A queue's buffers, from its base on.
pub(crate) const BUFFERS: u64 = 0x4000;
pub(crate) const ENTRIES: u16 = 16;

/// In the higher half.
const FEATURE_VERSION_1: u32 = 1;
/// Of a descriptor: another follows.
pub(crate) const NEXT: u16 = 1;
/// Of a descriptor: the device writes there.
pub(crate) const DEVICE_WRITES: u16 = 2;
const QUIET: u16 = 1;

const _: () = assert!(AREA + 3 * QUEUE_BYTES <= ghost_guest::pattern::COUNTERS);

/// The registers of a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device {
    registers: u64,
}

impl Device {
    /// The first of its kind.
    pub(crate) fn find(boot: &Boot, kind: u32) -> Option<Self> {
        let devices = boot.devices.iter().take(boot.device_count as usize);
        let device = devices.into_iter().find(|device| device.kind == kind)?;
        let found = Self {
            registers: device.address,
        };
        let is_it = found.word(0) == u32::from_le_bytes(*b"virt")
            && found.word(4) == 2
            && found.word(8) == kind;
        is_it.then_some(found)
    }

    fn word(&self, offset: u64) -> u32 {
        load(self.registers + offset)
    }

    fn set(&self, offset: u64, value: u32) {
        store(self.registers + offset, value);
    }

    /// A number of its configuration.
    pub(crate) fn config<T: crate::machine::Plain>(&self, offset: u64) -> T {
        load(self.registers + 0x100 + offset)
    }

    /// Resets it and gives it queues. Which of the features it takes.
    pub(crate) fn start(&self, wanted: u32, queues: &[&Queue]) -> Result<u32, &'static str> {
        self.set(0x70, 0);
        self.set(0x70, 1);
        self.set(0x70, 3);
        self.set(0x14, 0);
        let features = self.word(0x10) & wanted;
        for (half, features) in [(0, features), (1, FEATURE_VERSION_1)] {
            self.set(0x24, half);
            self.set(0x20, features);
        }
        self.set(0x70, 11);
        if self.word(0x70) != 11 {
            return Err("a device does not take our features");
        }
        for queue in queues {
            self.set(0x30, queue.number);
            self.set(0x38, u32::from(ENTRIES));
            let parts = [
                (0x80, queue.base),
                (0x90, queue.base + AVAILABLE),
                (0xa0, queue.base + USED),
            ];
            for (register, address) in parts {
                self.set(register, address as u32);
                self.set(register + 4, (address >> 32) as u32);
            }
            self.set(0x44, 1);
        }
        self.set(0x70, 15);
        if self.word(0x70) != 15 {
            return Err("a device does not start");
        }
        Ok(features)
    }

    /// Whether it has given up on us.
    pub(crate) fn needs_reset(&self) -> bool {
        self.word(0x70) & 64 != 0
    }

    /// Tells it of what was offered, unless it looks by itself.
    pub(crate) fn notify(&self, queue: &Queue) {
        // The device looks at its flag after it has seen the ring.
        fence(Ordering::SeqCst);
        let is_quiet = load::<u16>(queue.base + USED) & QUIET != 0;
        if !is_quiet {
            self.set(0x50, queue.number);
        }
    }
}

/// Whether used buffers of a queue end a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    Wanted = 0,
    /// `VIRTQ_AVAIL_F_NO_INTERRUPT`.
    Unwanted = 1,
}

/// A queue, and how far we are in it.
#[derive(Debug)]
pub(crate) struct Queue {
    number: u32,
    pub(crate) base: u64,
    /// Entries ever offered to the device.
    offered: u16,
    /// Entries ever taken back from it.
    taken: u16,
}

impl Queue {
    /// In one of the places of the area.
    pub(crate) fn new(number: u32, place: u64, news: News) -> Self {
        let base = AREA + place * QUEUE_BYTES;
        // A ring of an earlier start says nothing about this one.
        store(base + AVAILABLE, news as u32);
        store(base + USED, 0_u32);
        Self {
            number,
            base,
            offered: 0,
            taken: 0,
        }
    }

    pub(crate) fn describe(&self, entry: u16, address: u64, bytes: u32, flags: u16) {
        let at = self.base + u64::from(entry % ENTRIES) * 16;
        store(at, address);
        store(at + 8, bytes);
        store(at + 12, flags);
        store(at + 14, (entry + 1) % ENTRIES);
    }

    /// Puts an entry into the ring, then moves the index past it.
    pub(crate) fn offer(&mut self, entry: u16) {
        let ring = self.base + AVAILABLE;
        store(ring + 4 + u64::from(self.offered % ENTRIES) * 2, entry);
        fence(Ordering::Release);
        self.offered = self.offered.wrapping_add(1);
        store(ring + 2, self.offered);
    }

    fn used(&self) -> u16 {
        load(self.base + USED + 2)
    }

    /// The entry that an offer without a look at the ring may have next.
    pub(crate) fn next(&self) -> Option<u16> {
        let is_free = self.offered.wrapping_sub(self.used()) < ENTRIES;
        is_free.then_some(self.offered % ENTRIES)
    }

    pub(crate) fn has_used(&self) -> bool {
        self.used() != self.taken
    }

    /// The next entry that the device is done with, and the bytes it wrote.
    pub(crate) fn take(&mut self) -> Option<(u16, u32)> {
        if !self.has_used() {
            return None;
        }
        // What was used is written before the index says so.
        fence(Ordering::Acquire);
        let at = self.base + USED + 4 + u64::from(self.taken % ENTRIES) * 8;
        self.taken = self.taken.wrapping_add(1);
        let entry = load::<u32>(at) % u32::from(ENTRIES);
        Some((entry as u16, load(at + 4)))
    }
}
