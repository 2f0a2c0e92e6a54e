//! A driver for virtio-net (virtio 1.2) that looks at its queues.
//!
//! Owns: one area of memory with rings and buffers of both queues, and the
//! order of stores that the device relies on. A device that does not answer as
//! it should ends the guest, with a line on the console.

use core::sync::atomic::{Ordering, fence};

use agent_common::guest::Boot;
use smoltcp::{
    phy::{self, DeviceCapabilities, Medium},
    time::Instant,
};

use crate::machine::{copy_from, copy_to, load, store};

/// Rings and buffers are here, above the payload and below the counters.
pub(crate) const AREA: u64 = 0x18_0000;
const QUEUE_BYTES: u64 = 0x1_0000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const BUFFERS: u64 = 0x4000;
const BUFFER_BYTES: u64 = 2048;
const ENTRIES: u16 = 16;

const RECEIVE: u64 = 0;
const TRANSMIT: u64 = 1;

const HEADER_BYTES: usize = 12;
const FRAME_BYTES_MAX: usize = 1514;

const NET: u32 = 1;
const FEATURE_MAC: u32 = 1 << 5;
/// In the higher half.
const FEATURE_VERSION_1: u32 = 1;
const DEVICE_WRITES: u16 = 2;
const QUIET: u16 = 1;

const _: () = assert!(BUFFERS + ENTRIES as u64 * BUFFER_BYTES <= QUEUE_BYTES);
const _: () = assert!(HEADER_BYTES + FRAME_BYTES_MAX <= BUFFER_BYTES as usize);
const _: () = assert!(AREA + 2 * QUEUE_BYTES <= ghost_guest::pattern::COUNTERS);

/// The device, and how far we are in each of its rings.
pub(crate) struct Driver {
    registers: u64,
    pub(crate) mac: [u8; 6],
    received: u16,
    given: u16,
    sent: u16,
}

impl Driver {
    /// Starts the network device, if there is one and it is as we know it.
    pub(crate) fn start(boot: &Boot) -> Result<Self, &'static str> {
        let devices = boot.devices.iter().take(boot.device_count as usize);
        let device = devices.into_iter().find(|device| device.kind == NET);
        let registers = device.ok_or("there is no network device")?.address;
        let word = |offset| load::<u32>(registers + offset);
        let set = |offset, value: u32| store(registers + offset, value);
        if word(0) != u32::from_le_bytes(*b"virt") || word(4) != 2 || word(8) != NET {
            return Err("what should be the network device is another");
        }
        set(0x70, 0);
        set(0x70, 1);
        set(0x70, 3);
        for (half, features) in [(0, FEATURE_MAC), (1, FEATURE_VERSION_1)] {
            set(0x24, half);
            set(0x20, features);
        }
        set(0x70, 11);
        if word(0x70) != 11 {
            return Err("the network device does not take our features");
        }
        for queue in [RECEIVE, TRANSMIT] {
            let base = base(queue);
            set(0x30, queue as u32);
            set(0x38, u32::from(ENTRIES));
            for (register, address) in [(0x80, base), (0x90, base + AVAILABLE), (0xa0, base + USED)]
            {
                set(register, address as u32);
                set(register + 4, (address >> 32) as u32);
            }
            set(0x44, 1);
        }
        let mut driver = Self {
            registers,
            mac: core::array::from_fn(|at| load(registers + 0x100 + at as u64)),
            received: 0,
            given: 0,
            sent: 0,
        };
        for entry in 0..ENTRIES {
            describe(RECEIVE, entry, BUFFER_BYTES as u32, DEVICE_WRITES);
            driver.give(entry);
        }
        set(0x70, 15);
        if word(0x70) != 15 {
            return Err("the network device does not start");
        }
        Ok(driver)
    }

    /// Gives a receive buffer to the device.
    fn give(&mut self, entry: u16) {
        offer(RECEIVE, self.given, entry);
        self.given = self.given.wrapping_add(1);
        self.notify(RECEIVE);
    }

    fn notify(&self, queue: u64) {
        // The device looks at its flag after it has seen the ring.
        fence(Ordering::SeqCst);
        let is_quiet = load::<u16>(base(queue) + USED) & QUIET != 0;
        if !is_quiet {
            store(self.registers + 0x50, queue as u32);
        }
    }

    /// The next frame that came in.
    fn take(&mut self, frame: &mut Frame) -> bool {
        if used_index(RECEIVE) == self.received {
            return false;
        }
        // What was used is written before the index says so.
        fence(Ordering::Acquire);
        let at = base(RECEIVE) + USED + 4 + u64::from(self.received % ENTRIES) * 8;
        let (entry, length) = (load::<u32>(at), load::<u32>(at + 4));
        let entry = (entry % u32::from(ENTRIES)) as u16;
        let length = (length as usize).saturating_sub(HEADER_BYTES);
        frame.length = length.min(FRAME_BYTES_MAX);
        let from = buffer(RECEIVE, entry) + HEADER_BYTES as u64;
        if let Some(to) = frame.bytes.get_mut(..frame.length) {
            copy_from(from, to);
        }
        self.received = self.received.wrapping_add(1);
        self.give(entry);
        true
    }

    fn can_send(&self) -> bool {
        self.sent.wrapping_sub(used_index(TRANSMIT)) < ENTRIES
    }

    fn send(&mut self, frame: &[u8]) {
        let entry = self.sent % ENTRIES;
        let buffer = buffer(TRANSMIT, entry);
        copy_to(buffer, &[0; HEADER_BYTES]);
        copy_to(buffer + HEADER_BYTES as u64, frame);
        describe(TRANSMIT, entry, (HEADER_BYTES + frame.len()) as u32, 0);
        offer(TRANSMIT, self.sent, entry);
        self.sent = self.sent.wrapping_add(1);
        self.notify(TRANSMIT);
    }
}

fn base(queue: u64) -> u64 {
    AREA + queue * QUEUE_BYTES
}

fn buffer(queue: u64, entry: u16) -> u64 {
    base(queue) + BUFFERS + u64::from(entry) * BUFFER_BYTES
}

fn describe(queue: u64, entry: u16, bytes: u32, flags: u16) {
    let at = base(queue) + u64::from(entry) * 16;
    store(at, buffer(queue, entry));
    store(at + 8, bytes);
    store(at + 12, flags);
    store(at + 14, 0_u16);
}

/// Puts an entry into the ring at this position, then moves the index past it.
fn offer(queue: u64, position: u16, entry: u16) {
    let ring = base(queue) + AVAILABLE;
    store(ring + 4 + u64::from(position % ENTRIES) * 2, entry);
    fence(Ordering::Release);
    store(ring + 2, position.wrapping_add(1));
}

fn used_index(queue: u64) -> u16 {
    load(base(queue) + USED + 2)
}

pub(crate) struct Frame {
    bytes: [u8; FRAME_BYTES_MAX],
    length: usize,
}

impl Frame {
    const fn new() -> Self {
        Self {
            bytes: [0; FRAME_BYTES_MAX],
            length: 0,
        }
    }
}

pub(crate) struct Sender<'a>(&'a mut Driver);

impl phy::Device for Driver {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Frame, Sender<'_>)> {
        let mut frame = Frame::new();
        (self.can_send() && self.take(&mut frame)).then_some((frame, Sender(self)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sender<'_>> {
        self.can_send().then_some(Sender(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities
    }
}

impl phy::RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.bytes.get(..self.length).unwrap_or_default())
    }
}

impl phy::TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let frame = bytes.get_mut(..length).unwrap_or_default();
        let result = write(frame);
        self.0.send(frame);
        result
    }
}
