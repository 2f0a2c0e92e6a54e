//! For tests: a device, and a driver that can say anything to it.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    path::PathBuf,
    sync::Arc,
};

use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    socket::{AddressFamily, SockFlag, SockType, socketpair},
};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _, MmapRegion};

use crate::vmm::{
    memory::GuestRam,
    virtio::{
        Access, Block, Device, Disk, Mac, Net, Slot, Tap, slot::Wants, transport::QUEUE_SIZE_MAX,
    },
};

pub(in crate::vmm) const RAM_BYTES: u64 = 2 << 20;
/// Buffers of tests are from here on; rings are below.
pub(in crate::vmm) const BUFFERS: u64 = 0x4_0000;
pub(in crate::vmm) const ADDRESS: u64 = 0xc000_0000;

pub(in crate::vmm) const DEVICE_WRITES: u16 = 2;
const NEXT: u16 = 1;

pub(in crate::vmm) fn memory() -> Arc<GuestRam> {
    let ranges = [(GuestAddress(0), RAM_BYTES as usize)];
    Arc::new(GuestRam::from_ranges(&ranges).unwrap())
}

/// A file without a name, and a path to it.
pub(in crate::vmm) fn file(bytes: &[u8]) -> (File, PathBuf) {
    let file = File::from(memfd_create(c"disk", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all_at(bytes, 0).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    (file, path.into())
}

pub(in crate::vmm) struct Rig {
    pub(in crate::vmm) memory: Arc<GuestRam>,
    pub(in crate::vmm) slot: Arc<Slot>,
    queues: u64,
    available: [u16; 2],
    free: [u16; 2],
}

impl Rig {
    pub(in crate::vmm) fn block(content: &[u8], access: Access) -> (Self, File) {
        let (file, path) = file(content);
        let disk = Disk::open(&path, access).unwrap();
        let memory = memory();
        let block = Block::new(disk, Arc::clone(&memory), None).unwrap();
        (Self::over(memory, Device::Block(block), 1), file)
    }

    /// And the other end of its wire.
    pub(in crate::vmm) fn net() -> (Self, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (own, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let mac: Mac = "02:00:00:00:00:01".parse().unwrap();
        let memory = memory();
        let net = Net::new(Tap::over(own).unwrap(), mac, Arc::clone(&memory), None).unwrap();
        (Self::over(memory, Device::Net(net), 2), other)
    }

    fn over(memory: Arc<GuestRam>, device: Device, queues: u64) -> Self {
        let slot = Arc::new(Slot::new(ADDRESS, device).unwrap());
        Self {
            memory,
            slot,
            queues,
            available: [0; 2],
            free: [0; 2],
        }
    }

    pub(in crate::vmm) fn set(&self, offset: u64, value: u32) {
        self.slot.write(offset, &value.to_le_bytes());
    }

    pub(in crate::vmm) fn get(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.slot.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    /// As a good driver does it.
    pub(in crate::vmm) fn start(&mut self, features: u32) {
        self.available = [0; 2];
        self.free = [0; 2];
        for status in [0, 1, 3] {
            self.set(0x70, status);
        }
        for (half, features) in [(0, features), (1, 1)] {
            self.set(0x24, half);
            self.set(0x20, features);
        }
        self.set(0x70, 11);
        for queue in 0..self.queues {
            let base = base(queue);
            self.memory
                .write_slice(&[0; 0x8000], GuestAddress(base))
                .unwrap();
            self.set(0x30, queue as u32);
            self.set(0x38, u32::from(QUEUE_SIZE_MAX));
            for (register, address) in [(0x80, base), (0x90, base + 0x2000), (0xa0, base + 0x4000)]
            {
                self.set(register, address as u32);
                self.set(register + 4, 0);
            }
            self.set(0x44, 1);
        }
        self.set(0x70, 15);
        assert_eq!(self.get(0x70), 15);
    }

    /// Puts a chain of (address, bytes, flags) into a queue; its head.
    pub(in crate::vmm) fn offer(&mut self, queue: u64, parts: &[(u64, u32, u16)]) -> u16 {
        let head = self.free[queue as usize];
        for (number, &(address, bytes, flags)) in (0..).zip(parts) {
            let entry = (head + number) % QUEUE_SIZE_MAX;
            let has_next = usize::from(number) + 1 < parts.len();
            let flags = flags | if has_next { NEXT } else { 0 };
            let next = (entry + 1) % QUEUE_SIZE_MAX;
            let mut descriptor = address.to_le_bytes().to_vec();
            descriptor.extend(bytes.to_le_bytes());
            descriptor.extend(flags.to_le_bytes());
            descriptor.extend(next.to_le_bytes());
            self.write(base(queue) + u64::from(entry) * 16, &descriptor);
        }
        self.free[queue as usize] = (head + parts.len() as u16) % QUEUE_SIZE_MAX;
        let ring = base(queue) + 0x2000;
        let available = &mut self.available[queue as usize];
        let at = ring + 4 + u64::from(*available % QUEUE_SIZE_MAX) * 2;
        *available = available.wrapping_add(1);
        let index = *available;
        self.write(at, &head.to_le_bytes());
        self.write(ring + 2, &index.to_le_bytes());
        head
    }

    /// What the device does until it waits.
    pub(in crate::vmm) fn work(&self) {
        let mut device = self.slot.lock();
        while device.work() == Wants::Nothing {}
    }

    /// The latest of what was given back: head, and bytes written.
    pub(in crate::vmm) fn used(&self, queue: u64) -> Vec<(u32, u32)> {
        let ring = base(queue) + 0x4000;
        let word = |at: u64| u32::from_le_bytes(self.read(at, 4).try_into().unwrap());
        let count = word(ring) >> 16;
        let entries = (0..count).map(|at| ring + 4 + u64::from(at % u32::from(QUEUE_SIZE_MAX)) * 8);
        entries.map(|at| (word(at), word(at + 4))).collect()
    }

    pub(in crate::vmm) fn write(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    pub(in crate::vmm) fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes];
        self.memory
            .read_slice(&mut buffer, GuestAddress(address))
            .unwrap();
        buffer
    }

    /// Pages written through vm-memory since last asked, by the driver too.
    pub(in crate::vmm) fn dirty_pages(&self) -> Vec<u64> {
        let region = self.memory.iter().next().unwrap();
        let words = MmapRegion::bitmap(region).get_and_reset();
        let is_set = |page: &u64| words[(page / 64) as usize] & (1 << (page % 64)) != 0;
        (0..RAM_BYTES / 4096).filter(is_set).collect()
    }
}

pub(in crate::vmm) fn base(queue: u64) -> u64 {
    0x1_0000 + queue * 0x8000
}
