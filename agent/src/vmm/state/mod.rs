//! Saved state: all of a microVM but its memory and its disk.
//!
//! Owns: its form and version, what it must fit, and how a vCPU's registers
//! come out of KVM and go into it.
//!
//! Refuses: whatever is not whole, of another version, of another machine, or
//! of a processor that this host cannot be. That is found out before anything
//! is changed. Only what KVM itself refuses later leaves a machine half
//! loaded, which its owner can then only destroy.

mod error;
mod features;
mod file;
mod fit;
mod header;
mod vcpu;
mod wire;

pub(super) use error::StateError;
pub(super) use file::{read, sealed, write};
pub(super) use fit::Here;
pub(super) use vcpu::Facts;
pub(super) use wire::{Saved, VcpuState};

#[cfg(test)]
mod tests;
