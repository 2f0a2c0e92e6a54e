//! virtio 1.2 devices behind memory-mapped registers, polled by their driver.
//!
//! Owns: registers, queues, and what each device does. Refuses: interrupts;
//! a driver looks at its queues. A queue that its driver broke stops its
//! device, which says so in its status, and harms nobody else.

mod net;
mod registers;
mod tap;

pub(super) use net::{Counts, KIND as NET, Mac, Net, serve};
pub(super) use tap::Tap;

/// Bytes of a device's registers.
pub(super) const REGISTER_BYTES: u32 = 0x1000;
