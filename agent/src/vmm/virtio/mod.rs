//! virtio 1.2 devices behind memory-mapped registers.
//!
//! Owns: registers, queues, what each device does, and the files it does it
//! with. Each device has a thread, and touches its queues and files on that
//! thread only; the registers that a driver uses while a device works need
//! none. A queue that its driver broke stops its device, which says so in its
//! status, and harms nobody else.

mod block;
mod disk;
mod interrupt;
mod mac;
mod net;
mod registers;
mod slot;
mod state;
mod tap;
#[cfg(test)]
pub(super) mod tests;
mod transport;

pub(super) use block::{Block, Counts as BlockCounts};
pub(super) use disk::{Access, BlockMap, Disk, DiskError};
pub(super) use mac::Mac;
pub(super) use net::{Counts as NetCounts, FRAMES_MAX, Net, PACKET_BYTES_MAX};
pub(super) use slot::{Device, Slot, serve};
pub(super) use state::{DeviceState, StateError};
pub(super) use tap::Tap;

/// Bytes of a device's registers.
pub(super) const REGISTER_BYTES: u32 = 0x1000;
