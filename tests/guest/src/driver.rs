//! A driver for virtio-net that looks at its queues.
//!
//! Owns: buffers of both queues. A frame that does not fit is dropped.

use agent_common::guest::Boot;
use smoltcp::{
    phy::{self, DeviceCapabilities, Medium},
    time::Instant,
};

use crate::{
    machine::{copy_from, copy_to},
    virtio::{BUFFERS, DEVICE_WRITES, Device, ENTRIES, News, QUEUE_BYTES, Queue},
};

const BUFFER_BYTES: u64 = 2048;
const HEADER_BYTES: usize = 12;
const ETHERNET_BYTES: usize = 14;
const FRAME_BYTES_MAX: usize = 1500 + ETHERNET_BYTES;

const NET: u32 = 1;
const FEATURE_MAC: u32 = 1 << 5;

const _: () = assert!(BUFFERS + ENTRIES as u64 * BUFFER_BYTES <= QUEUE_BYTES);
const _: () = assert!(HEADER_BYTES + FRAME_BYTES_MAX <= BUFFER_BYTES as usize);

pub(crate) struct Driver {
    device: Device,
    pub(crate) mac: [u8; 6],
    mtu: usize,
    receive: Queue,
    transmit: Queue,
}

impl Driver {
    /// Starts the network device, if there is one and it is as we know it.
    pub(crate) fn start(boot: &Boot, mtu: u16) -> Result<Self, &'static str> {
        let device = Device::find(boot, NET).ok_or("there is no network device")?;
        let mut driver = Self {
            device,
            mac: [0; 6],
            mtu: usize::from(mtu),
            receive: Queue::new(0, 0, News::Wanted),
            transmit: Queue::new(1, 1, News::Unwanted),
        };
        let taken = device.start(FEATURE_MAC, &[&driver.receive, &driver.transmit])?;
        if taken & FEATURE_MAC == 0 {
            return Err("the network device has no address");
        }
        driver.mac = core::array::from_fn(|at| device.config(at as u64));
        for entry in 0..ENTRIES {
            let buffer = buffer(&driver.receive, entry);
            let queue = &mut driver.receive;
            queue.describe(entry, buffer, BUFFER_BYTES as u32, DEVICE_WRITES);
            queue.offer(entry);
        }
        device.notify(&driver.receive);
        Ok(driver)
    }

    /// Whether a frame has come in.
    pub(crate) fn has_frame(&self) -> bool {
        self.receive.has_used()
    }

    /// The next frame that came in.
    fn take(&mut self, frame: &mut Frame) -> bool {
        let Some((entry, length)) = self.receive.take() else {
            return false;
        };
        let length = (length as usize).saturating_sub(HEADER_BYTES);
        frame.length = length.min(FRAME_BYTES_MAX);
        let from = buffer(&self.receive, entry) + HEADER_BYTES as u64;
        if let Some(to) = frame.bytes.get_mut(..frame.length) {
            copy_from(from, to);
        }
        self.receive.offer(entry);
        self.device.notify(&self.receive);
        true
    }

    fn send(&mut self, frame: &[u8]) {
        // There is one: a token was given for it.
        let Some(entry) = self.transmit.next() else {
            return;
        };
        let buffer = buffer(&self.transmit, entry);
        copy_to(buffer, &[0; HEADER_BYTES]);
        copy_to(buffer + HEADER_BYTES as u64, frame);
        let length = (HEADER_BYTES + frame.len()) as u32;
        self.transmit.describe(entry, buffer, length, 0);
        self.transmit.offer(entry);
        self.device.notify(&self.transmit);
    }
}

fn buffer(queue: &Queue, entry: u16) -> u64 {
    queue.base + BUFFERS + u64::from(entry % ENTRIES) * BUFFER_BYTES
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
        self.transmit.next()?;
        let mut frame = Frame::new();
        self.take(&mut frame).then_some((frame, Sender(self)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sender<'_>> {
        self.transmit.next()?;
        Some(Sender(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_BYTES;
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
