//! Words of shared memory, where others change them: a guest's memory, a BPF map.
// Mapping shared memory, and an atomic in it, have no safe interface.
#![allow(unsafe_code)]

use std::{num::NonZeroUsize, os::fd::AsFd, ptr::NonNull, sync::atomic::AtomicU64};

use anyhow::{Context as _, Result, ensure};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<libc::c_void>,
    bytes: usize,
}

impl Mapping {
    /// `file` has so many bytes for as long as this lives.
    pub(super) fn new(file: impl AsFd, bytes: usize) -> Result<Self> {
        let length = NonZeroUsize::new(bytes).context("nothing to map")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes, of a file whose size
        // is sealed or ours, so touching it never faults.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0) };
        let start = start.with_context(|| format!("map {bytes} bytes"))?;
        Ok(Self { start, bytes })
    }

    /// The aligned word at `offset`.
    pub(super) fn word(&self, offset: usize) -> Result<&AtomicU64> {
        let is_inside = offset.is_multiple_of(8) && offset.saturating_add(8) <= self.bytes;
        ensure!(is_inside, "{offset:#x} is no word of the mapping");
        // SAFETY: checked to be inside and aligned; the mapping lives as long
        // as the reference, and only atomics touch it.
        Ok(unsafe { &*self.start.as_ptr().byte_add(offset).cast::<AtomicU64>() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no reference outlives `self`. It fails
        // for a range that is not mapped, which this is.
        let _ = unsafe { munmap(self.start, self.bytes) };
    }
}
