//! The virtio devices of a microVM, in the order of their addresses, and the
//! thread of each.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use agent_common::guest::{self, DEVICES, DEVICES_MAX};
use nix::sys::eventfd::EventFd;

use super::{
    error::VmmError,
    jail,
    memory::Memory,
    virtio::{
        self, Block, BlockCounts, BlockMap, Device, Disk, Mac, Net, NetCounts, REGISTER_BYTES,
        Slot, Tap,
    },
};

/// Devices without their threads.
#[derive(Default)]
pub(super) struct Devices(Vec<Arc<Slot>>);

impl Devices {
    /// `line` leads to the guest's interrupt controller, if it has one.
    pub(super) fn add_net(
        &mut self,
        tap: Tap,
        mac: Mac,
        memory: &Memory,
        line: Option<EventFd>,
    ) -> Result<(), VmmError> {
        let failed = |e| VmmError::system("make a network device", e);
        let net = Net::new(tap, mac, memory.map(), line).map_err(failed)?;
        self.add(Device::Net(net))
    }

    /// As [`Self::add_net`].
    pub(super) fn add_block(
        &mut self,
        disk: Disk,
        memory: &Memory,
        line: Option<EventFd>,
    ) -> Result<(), VmmError> {
        let failed = |e| VmmError::system("make a block device", e);
        let block = Block::new(disk, memory.map(), line).map_err(failed)?;
        self.add(Device::Block(block))
    }

    fn add(&mut self, device: Device) -> Result<(), VmmError> {
        if self.0.len() >= DEVICES_MAX {
            return Err(VmmError::TooManyDevices);
        }
        let address = DEVICES + self.0.len() as u64 * u64::from(REGISTER_BYTES);
        let slot = Slot::new(address, device);
        let slot = slot.map_err(|e| VmmError::system("make a device", e))?;
        self.0.push(Arc::new(slot));
        Ok(())
    }

    /// As the boot page lists them.
    pub(super) fn views(&self) -> Vec<guest::Device> {
        self.0.iter().map(|slot| slot.view()).collect()
    }

    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        self.0.clone()
    }

    pub(super) fn start(self) -> Result<RunningDevices, VmmError> {
        let mut running = RunningDevices {
            slots: self.0,
            threads: Vec::new(),
        };
        for slot in &running.slots {
            let own = Arc::clone(slot);
            let kind = match &*slot.lock() {
                Device::Net(_) => jail::Kind::Net,
                Device::Block(_) => jail::Kind::Block,
            };
            let thread = thread::Builder::new()
                .name(slot.name().to_owned())
                .spawn(move || {
                    jail::confine(kind);
                    virtio::serve(&own);
                })
                .map_err(|e| VmmError::system("start the thread of a device", e))?;
            running.threads.push(thread);
        }
        Ok(running)
    }
}

/// Devices whose threads run, or did.
pub(super) struct RunningDevices {
    slots: Vec<Arc<Slot>>,
    threads: Vec<JoinHandle<()>>,
}

impl RunningDevices {
    /// From here on none of them touches guest memory or a file; frames wait
    /// where they come from, requests in their queue.
    pub(super) fn pause(&self) {
        self.slots.iter().for_each(|slot| slot.pause());
    }

    pub(super) fn resume(&self) {
        self.slots.iter().for_each(|slot| slot.resume());
    }

    /// Frames that wait for a paused guest. Each is taken once.
    pub(super) fn take_frames(&self) -> Vec<Vec<u8>> {
        self.slots
            .iter()
            .flat_map(|slot| slot.take_frames())
            .collect()
    }

    /// `false` if the guest has no network.
    pub(super) fn give_frames(&self, frames: Vec<Vec<u8>>) -> bool {
        // There is one at most.
        let net = self.slots.iter().find(|slot| slot.has_frames());
        net.is_some_and(|slot| slot.give_frames(frames))
    }

    pub(super) fn stop(&mut self) -> Result<(), VmmError> {
        self.slots.iter().for_each(|slot| slot.stop());
        let joined = self.threads.drain(..).map(JoinHandle::join);
        // All of them, whatever became of the first.
        let died = joined.filter(Result::is_err).count();
        if died > 0 {
            return Err(VmmError::DeviceDied);
        }
        Ok(())
    }

    pub(super) fn net_counts(&self) -> Option<NetCounts> {
        self.slots.iter().find_map(|slot| match &*slot.lock() {
            Device::Net(net) => Some(net.counts()),
            Device::Block(_) => None,
        })
    }

    pub(super) fn block_counts(&self) -> Option<BlockCounts> {
        self.slots.iter().find_map(|slot| match &*slot.lock() {
            Device::Block(block) => Some(block.counts()),
            Device::Net(_) => None,
        })
    }

    /// Records from here on which blocks of the disk are written.
    pub(super) fn start_tracking(&self) {
        for slot in &self.slots {
            if let Device::Block(block) = &mut *slot.lock() {
                block.start_tracking();
            }
        }
    }

    /// Blocks of the disk that were written since tracking began or was last
    /// asked for; `None` without a disk, or if they are not recorded.
    pub(super) fn harvest(&self) -> Option<BlockMap> {
        self.slots.iter().find_map(|slot| match &mut *slot.lock() {
            Device::Block(block) => block.harvest(),
            Device::Net(_) => None,
        })
    }
}

impl Drop for RunningDevices {
    /// A guest that is gone has no devices.
    fn drop(&mut self) {
        // A thread that died is gone all the same.
        let _ = self.stop();
    }
}
