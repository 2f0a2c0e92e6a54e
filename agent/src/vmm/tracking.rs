//! Which pages of guest memory are written, asked of all who write.
//!
//! KVM logs what the guest writes; what the VMM itself writes is marked by
//! the memory's type. Both forget what they were asked for.
#![allow(unsafe_code)]

use kvm_ioctls::VmFd;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _, GuestUsize};

use super::{
    dirty::{Bits, add},
    error::VmmError,
    memory::Memory,
};

const PAGE_BYTES: u64 = 4096;
const PAGES_PER_WORD: u64 = 64;

/// From here on, with nothing written yet. The VM is one that this memory
/// was given to.
pub(super) fn start(vm: &VmFd, memory: &Memory) -> Result<(), VmmError> {
    // SAFETY: says the caller. There is no safe way: KVM takes addresses.
    unsafe { memory.log(vm) }?;
    for region in memory.map().iter() {
        (**region).bitmap().reset();
    }
    Ok(())
}

/// Pages written since it was last asked, by their places in the memfd. Exact
/// if neither vCPUs nor devices run; otherwise, what is written meanwhile is
/// in this answer or in the next.
pub(super) fn harvest(vm: &VmFd, memory: &Memory) -> Result<Bits, VmmError> {
    let mut all = Bits::new();
    for (slot, region) in (0..).zip(memory.map().iter()) {
        let bytes: GuestUsize = region.len();
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut pages = vm
            .get_dirty_log(slot, size)
            .map_err(|e| VmmError::kvm("say which pages the guest has written", e))?;
        add(&mut pages, &(**region).bitmap().get_and_reset());
        // A region is a multiple of large pages, so it begins with a word.
        pages.truncate(usize::try_from(bytes / PAGE_BYTES / PAGES_PER_WORD).unwrap_or(usize::MAX));
        all.append(&mut pages);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
