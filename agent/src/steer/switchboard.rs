//! The switches, mapped into memory: moving one is a store, not a system call.
//!
//! Owns: `gd_switches` and `gd_host_switch` as shared memory, and the order of
//! stores: who and when first, then the word that counts. The kernel's
//! programs write the same words, so every access here is atomic and every
//! move is a compare-and-swap.
//!
//! Refuses: to decide where a switch goes (see `orchestrate::motion`).
#![allow(unsafe_code)]

use std::{
    io,
    mem::{offset_of, size_of},
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
};

use agent_common::abi::{Cause, Control, HostSwitch, Switch, names};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{
    error::SteerError,
    table::{self, Table},
};
use crate::model::SlotIndex;

/// Who moved a switch, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// CLOCK_MONOTONIC in ns.
    pub at_ns: u64,
    pub cause: Cause,
    /// 0 is unknown.
    pub pid: u32,
}

/// What became of a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swapped {
    /// The new word is in force.
    Stored,
    /// The decision was to leave the slot as it is.
    Unchanged,
    /// Somebody else changed the slot in between; nothing was stored.
    Raced,
}

/// Shared memory of a map's elements.
#[derive(Debug)]
struct Mapping {
    base: NonNull<libc::c_void>,
    bytes: NonZeroUsize,
    elements: u32,
    /// Bytes of one element, a multiple of eight.
    stride: usize,
}

// SAFETY: the memory is shared with the kernel anyway, and only accessed
// through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, elements: u32, stride: usize) -> io::Result<Self> {
        let bytes = (elements as usize)
            .checked_mul(stride)
            .and_then(NonZeroUsize::new)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice, of a map
        // whose elements are never freed.
        let base = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                fd,
                0,
            )?
        };
        Ok(Self {
            base,
            bytes,
            elements,
            stride,
        })
    }

    /// Address of a field, `None` beyond the elements there are.
    fn field<T>(&self, index: u32, offset: usize) -> Option<*mut T> {
        if index >= self.elements || offset + size_of::<T>() > self.stride {
            return None;
        }
        // SAFETY: within the mapping, by the comparison above.
        let address = unsafe { self.base.byte_add(index as usize * self.stride + offset) };
        Some(address.cast::<T>().as_ptr())
    }

    fn word(&self, index: u32, offset: usize) -> Option<&AtomicU64> {
        // SAFETY: aligned, for the mapping is page-aligned and the stride and
        // all offsets of 64-bit fields are multiples of eight; lives as long
        // as `self`; everybody accesses it atomically.
        self.field(index, offset)
            .map(|p| unsafe { AtomicU64::from_ptr(p) })
    }

    fn half(&self, index: u32, offset: usize) -> Option<&AtomicU32> {
        // SAFETY: as for `word`, with multiples of four.
        self.field(index, offset)
            .map(|p| unsafe { AtomicU32::from_ptr(p) })
    }

    fn byte(&self, index: u32, offset: usize) -> Option<&AtomicU8> {
        // SAFETY: as for `word`; a byte is always aligned.
        self.field(index, offset)
            .map(|p| unsafe { AtomicU8::from_ptr(p) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no reference outlives `self`. An error
        // would mean that there is no such mapping.
        let _ = unsafe { munmap(self.base, self.bytes.get()) };
    }
}

/// All switches of the host.
#[derive(Debug)]
pub struct Switchboard {
    switches: Mapping,
    host: Mapping,
    /// Kept open, so that the maps outlive the removal of their pins.
    _maps: [OwnedFd; 2],
}

impl Switchboard {
    pub(super) fn open(root: &Path) -> Result<Self, SteerError> {
        // Opened as tables for the check of their shape.
        Table::<u32, Switch>::open(root, names::SWITCHES)?;
        Table::<u32, HostSwitch>::open(root, names::HOST_SWITCH)?;
        let (switches, switches_fd) = map(root, names::SWITCHES, size_of::<Switch>())?;
        let (host, host_fd) = map(root, names::HOST_SWITCH, size_of::<HostSwitch>())?;
        Ok(Self {
            switches,
            host,
            _maps: [switches_fd, host_fd],
        })
    }

    /// Slots there are.
    pub fn slots(&self) -> u32 {
        self.switches.elements
    }

    pub fn host_generation(&self) -> u64 {
        self.host
            .word(0, offset_of!(HostSwitch, generation))
            .map_or(0, |w| w.load(Ordering::SeqCst))
    }

    /// Time of the last throw of the host switch in ns, and who did it.
    pub fn host_thrown(&self) -> (u64, u32) {
        let at = self.host.word(0, offset_of!(HostSwitch, thrown_ns));
        let pid = self.host.half(0, offset_of!(HostSwitch, cause_pid));
        (
            at.map_or(0, |w| w.load(Ordering::Relaxed)),
            pid.map_or(0, |w| w.load(Ordering::Relaxed)),
        )
    }

    /// Points all armed instances at their ghosts: one atomic addition.
    /// Gives the new generation.
    pub fn throw_host(&self, at_ns: u64, pid: u32) -> u64 {
        let (Some(thrown), Some(cause), Some(generation)) = (
            self.host.word(0, offset_of!(HostSwitch, thrown_ns)),
            self.host.half(0, offset_of!(HostSwitch, cause_pid)),
            self.host.word(0, offset_of!(HostSwitch, generation)),
        ) else {
            return 0;
        };
        thrown.store(at_ns, Ordering::Relaxed);
        cause.store(pid, Ordering::Relaxed);
        generation.fetch_add(1, Ordering::SeqCst).wrapping_add(1)
    }

    pub fn control(&self, slot: SlotIndex) -> Option<Control> {
        self.control_word(slot)
            .map(|w| Control::from_word(w.load(Ordering::SeqCst)))
    }

    /// Everything in a slot, field by field.
    pub fn read(&self, slot: SlotIndex) -> Option<Switch> {
        let word = |offset| {
            self.switches
                .word(slot.0, offset)
                .map(|w| w.load(Ordering::Relaxed))
        };
        Some(Switch {
            control: self.control(slot)?,
            lease_ns: word(offset_of!(Switch, lease_ns))?,
            drain_idle_ns: word(offset_of!(Switch, drain_idle_ns))?,
            moved_ns: word(offset_of!(Switch, moved_ns))?,
            cause: self
                .switches
                .byte(slot.0, offset_of!(Switch, cause))?
                .load(Ordering::Relaxed),
            pad0: [0; 3],
            cause_pid: self
                .switches
                .half(slot.0, offset_of!(Switch, cause_pid))?
                .load(Ordering::Relaxed),
            unarmed_seen_ns: 0,
            pad1: [0; 2],
        })
    }

    /// Stores a whole slot, the control word last. All zero clears the slot,
    /// and then the control word goes first.
    pub fn store(&self, slot: SlotIndex, switch: &Switch) -> Result<(), SteerError> {
        let control = self.control_word(slot).ok_or(SteerError::NoSlot(slot))?;
        let new = switch.control.to_word();
        if new == 0 {
            control.store(0, Ordering::SeqCst);
        }
        for (offset, value) in [
            (offset_of!(Switch, lease_ns), switch.lease_ns),
            (offset_of!(Switch, drain_idle_ns), switch.drain_idle_ns),
        ] {
            if let Some(word) = self.switches.word(slot.0, offset) {
                word.store(value, Ordering::Relaxed);
            }
        }
        self.store_cause(slot, switch.moved_ns, switch.cause, switch.cause_pid);
        control.store(new, Ordering::SeqCst);
        Ok(())
    }

    pub fn set_drain_idle(&self, slot: SlotIndex, idle_ns: u64) -> Result<(), SteerError> {
        self.switches
            .word(slot.0, offset_of!(Switch, drain_idle_ns))
            .ok_or(SteerError::NoSlot(slot))?
            .store(idle_ns, Ordering::Relaxed);
        Ok(())
    }

    /// Asks `decide` once for the word that is to follow the present one, and
    /// swaps it in. `moved` is recorded before it, for those who ask why.
    pub fn swap(
        &self,
        slot: SlotIndex,
        moved: Option<Moved>,
        decide: impl FnOnce(Control, u16) -> Option<Control>,
    ) -> Result<Swapped, SteerError> {
        let word = self.control_word(slot).ok_or(SteerError::NoSlot(slot))?;
        // Read before the word: a throw of the host switch from here on finds
        // a slot that has not answered to it, and wins.
        let generation = HostSwitch::short(self.host_generation());
        let old = word.load(Ordering::SeqCst);
        let Some(new) = decide(Control::from_word(old), generation) else {
            return Ok(Swapped::Unchanged);
        };
        if let Some(Moved { at_ns, cause, pid }) = moved {
            self.store_cause(slot, at_ns, cause as u8, pid);
        }
        match word.compare_exchange(old, new.to_word(), Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => Ok(Swapped::Stored),
            Err(_) => Ok(Swapped::Raced),
        }
    }

    fn control_word(&self, slot: SlotIndex) -> Option<&AtomicU64> {
        self.switches.word(slot.0, offset_of!(Switch, control))
    }

    fn store_cause(&self, slot: SlotIndex, at_ns: u64, cause: u8, pid: u32) {
        if let Some(word) = self.switches.word(slot.0, offset_of!(Switch, moved_ns)) {
            word.store(at_ns, Ordering::Relaxed);
        }
        if let Some(byte) = self.switches.byte(slot.0, offset_of!(Switch, cause)) {
            byte.store(cause, Ordering::Relaxed);
        }
        if let Some(half) = self.switches.half(slot.0, offset_of!(Switch, cause_pid)) {
            half.store(pid, Ordering::Relaxed);
        }
    }
}

fn map(root: &Path, name: &'static str, stride: usize) -> Result<(Mapping, OwnedFd), SteerError> {
    let (fd, info) = table::open(root, name)?;
    let mapping =
        Mapping::new(fd.as_fd(), info.entries_max, stride).map_err(|source| SteerError::Map {
            what: "map into memory",
            map: name,
            source,
        })?;
    Ok((mapping, fd))
}
