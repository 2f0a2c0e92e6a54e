//! Guest memory: a sealed memfd, mapped here and given to KVM.
//!
//! Owns: the memfd, its mapping, and the one unsafe call that tells KVM of
//! it. The memfd cannot change its size, so whoever else maps it is never
//! killed for touching it.
//!
//! Or a copy of such a memfd of another's: mapped privately, so that what is
//! written here stays here. What its owner writes meanwhile shows up in pages
//! that were not written here yet, so a copy is for memory that rests.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::ftruncate,
};
use vm_memory::{
    Bytes as _, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap,
    GuestMemoryRegion as _, GuestRegionMmap, MemoryRegionAddress, MmapRegion, bitmap::AtomicBitmap,
    mmap::FromRangesError,
};

use super::{error::VmmError, layout::Ram, open::Source};

/// RAM as we write to it. Each write marks its pages of 4 KiB, because KVM
/// does not see it: whoever writes through this type cannot forget to.
pub(super) type GuestRam = GuestMemoryMmap<AtomicBitmap>;

#[derive(Debug)]
pub(super) struct Memory {
    /// `None` for a copy of another's.
    file: Option<File>,
    map: Arc<GuestRam>,
}

impl Memory {
    /// All of it zero, and taking no memory until it is touched.
    pub(super) fn new(ram: Ram) -> Result<Self, VmmError> {
        let bytes = ram.bytes();
        let failed = |errno: nix::Error| VmmError::Memory {
            bytes,
            source: errno.into(),
        };
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd_create(c"ghost-memory", flags).map_err(failed)?;
        let length = i64::try_from(bytes).map_err(|_| failed(nix::Error::EFBIG))?;
        ftruncate(&fd, length).map_err(failed)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(failed)?;
        let file = File::from(fd);
        let map = map(&file, ram, libc::MAP_SHARED)?;
        Ok(Self {
            file: Some(file),
            map,
        })
    }

    /// All that is in this file, which stays as it is. It is sealed.
    pub(super) fn copy_of(Source { name, file }: Source, ram: Ram) -> Result<Self, VmmError> {
        let wanted = ram.bytes();
        let bytes = match file.metadata() {
            Ok(meta) => meta.len(),
            Err(error) => return Err(VmmError::OpenMemory(name, error)),
        };
        if bytes != wanted {
            return Err(VmmError::MemoryCopySize {
                path: name,
                bytes,
                wanted,
            });
        }
        Ok(Self {
            file: None,
            map: map(&file, ram, libc::MAP_PRIVATE)?,
        })
    }

    /// Whether it began as another's.
    pub(super) fn is_copy(&self) -> bool {
        self.file.is_none()
    }

    /// What others map; nobody can map a copy.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// What devices read and write.
    pub(super) fn map(&self) -> Arc<GuestRam> {
        Arc::clone(&self.map)
    }

    /// Writes what a guest begins with, of which a copy has its own.
    pub(super) fn begin_with(&self, address: u64, bytes: &[u8]) -> Result<(), VmmError> {
        if self.is_copy() {
            return Ok(());
        }
        self.write(address, bytes)
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), VmmError> {
        self.map
            .write_slice(bytes, GuestAddress(address))
            .map_err(|source| VmmError::WriteMemory {
                address,
                bytes: bytes.len(),
                source,
            })
    }

    /// From a file, without a copy in between.
    pub(super) fn fill(&self, address: u64, file: &mut File, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        self.map
            .read_exact_volatile_from(GuestAddress(address), file, length)
            .map_err(io::Error::other)
    }

    pub(super) fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), VmmError> {
        let length = bytes.len();
        self.map
            .read_slice(bytes, GuestAddress(address))
            .map_err(|source| VmmError::ReadMemory {
                address,
                bytes: length,
                source,
            })
    }

    /// # Safety
    ///
    /// The memory outlives all vCPUs of the VM.
    pub(super) unsafe fn attach(&self, vm: &VmFd) -> Result<(), VmmError> {
        // SAFETY: as the caller says.
        unsafe { self.describe(vm, 0) }.map_err(|e| VmmError::kvm("give memory to the guest", e))
    }

    /// Has KVM log from now on which pages the guest writes.
    ///
    /// # Safety
    ///
    /// The memory is attached to this VM.
    pub(super) unsafe fn log(&self, vm: &VmFd) -> Result<(), VmmError> {
        // SAFETY: whoever attached it has seen to that it stays.
        unsafe { self.describe(vm, KVM_MEM_LOG_DIRTY_PAGES) }
            .map_err(|e| VmmError::kvm("log what the guest writes", e))
    }

    /// # Safety
    ///
    /// As for [`Self::attach`].
    unsafe fn describe(&self, vm: &VmFd, flags: u32) -> Result<(), kvm_ioctls::Error> {
        for (slot, region) in (0..).zip(self.map.iter()) {
            let start = region
                .get_host_address(MemoryRegionAddress(0))
                .map_err(|_| kvm_ioctls::Error::new(libc::EFAULT))?;
            let description = kvm_userspace_memory_region {
                slot,
                flags,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: start as u64,
            };
            // SAFETY: the range is one mapping of ours of exactly this size;
            // the caller vouches that it stays.
            unsafe { vm.set_user_memory_region(description) }?;
        }
        Ok(())
    }
}

/// Whether this is a file of memory whose size nobody can change.
pub(super) fn is_sealed(file: &File) -> bool {
    let size = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    // Files that cannot be sealed do not know the question.
    fcntl(file, FcntlArg::F_GET_SEALS)
        .is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(size))
}

fn map(file: &File, ram: Ram, sharing: libc::c_int) -> Result<Arc<GuestRam>, VmmError> {
    let bytes = ram.bytes();
    let mut regions = Vec::new();
    for region in ram.regions() {
        let file = file
            .try_clone()
            .map_err(|source| VmmError::Memory { bytes, source })?;
        let failed = |source| VmmError::MapMemory { bytes, source };
        let size = usize::try_from(region.bytes)
            .map_err(|_| failed(FromRangesError::InvalidGuestRegion))?;
        let offset = FileOffset::new(file, region.file_offset);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // Takes no memory until it is touched, nor a promise of it.
        let flags = libc::MAP_NORESERVE | sharing;
        let mapped =
            MmapRegion::build(Some(offset), size, access, flags).map_err(|e| failed(e.into()))?;
        let mapped = GuestRegionMmap::new(mapped, GuestAddress(region.address));
        regions.push(mapped.ok_or_else(|| failed(FromRangesError::InvalidGuestRegion))?);
    }
    let map = GuestRam::from_regions(regions);
    let map = map.map_err(|e| VmmError::MapMemory {
        bytes,
        source: e.into(),
    })?;
    Ok(Arc::new(map))
}
