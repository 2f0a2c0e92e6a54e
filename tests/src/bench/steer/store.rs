//! One word of a map in memory, swapped as ghostd swaps it.

// Mapping a BPF map, and an atomic in it, have no safe interface.
#![allow(unsafe_code)]

use std::{
    num::NonZeroUsize,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};
use aya::maps::MapData;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The kernel maps whole pages; the word is at the start of the first.
const BYTES: NonZeroUsize = NonZeroUsize::new(8).unwrap();

pub(super) struct Mapped(NonNull<libc::c_void>);

impl Mapped {
    pub(super) fn first_word(map: &MapData) -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice, of a map
        // whose elements are never freed.
        let base = unsafe {
            mmap(
                None,
                BYTES,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                map.fd(),
                0,
            )
        };
        Ok(Self(base.context("map the switches into memory")?))
    }

    /// Compares and swaps the word for what it is: the store of a throw, and
    /// nothing moves.
    pub(super) fn swap_for_itself(&self) -> bool {
        // SAFETY: page-aligned, mapped as long as `self` lives, and only ever
        // accessed atomically.
        let word = unsafe { AtomicU64::from_ptr(self.0.cast::<u64>().as_ptr()) };
        let old = word.load(Ordering::SeqCst);
        word.compare_exchange(old, old, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `first_word`; no reference outlives `self`.
        let _ = unsafe { munmap(self.0, BYTES.get()) };
    }
}
