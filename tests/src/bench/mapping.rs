//! Guest memory, mapped: the fastest way to see a guest do something.
// Mapping shared memory, and an atomic in it, have no safe interface.
#![allow(unsafe_code)]

use std::{
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<libc::c_void>,
    bytes: usize,
}

impl Mapping {
    pub(super) fn new(file: impl AsFd, bytes: usize) -> Result<Self> {
        let length = NonZeroUsize::new(bytes).context("nothing to map")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes, of a file whose size
        // is sealed or ours, so touching it never faults.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Self { start, bytes })
    }

    /// The aligned word at `offset`, which the guest may change at any time.
    pub(super) fn word(&self, offset: usize) -> Result<u64> {
        let is_inside = offset.is_multiple_of(8) && offset.saturating_add(8) <= self.bytes;
        anyhow::ensure!(is_inside, "{offset:#x} is no word of the mapping");
        // SAFETY: checked to be inside and aligned; the mapping lives as long
        // as `self`, and only atomics of ours touch it.
        let word = unsafe { &*self.start.as_ptr().byte_add(offset).cast::<AtomicU64>() };
        Ok(word.load(Ordering::Relaxed))
    }
}

impl Mapping {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// A copy of a piece, word by word.
    pub(super) fn piece(&self, at: usize, bytes: usize) -> Result<Vec<u8>> {
        let words = (at..at + bytes).step_by(8).map(|at| self.word(at));
        let words = words.collect::<Result<Vec<u64>>>()?;
        Ok(words.into_iter().flat_map(u64::to_le_bytes).collect())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no reference into it outlives a call.
        // It fails for a range that is not mapped, which this is.
        let _ = unsafe { munmap(self.start, self.bytes) };
    }
}
