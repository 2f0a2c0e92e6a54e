//! The kernel's own record of writes to a mapping: userfaultfd's asynchronous
//! write protection, read by PAGEMAP_SCAN (Linux, Documentation/admin-guide/mm:
//! userfaultfd.rst, pagemap.rst).

use std::{
    collections::BTreeSet,
    fs::File,
    os::fd::{FromRawFd as _, OwnedFd},
};

use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _, MemoryRegionAddress};

use crate::vmm::memory::Memory;

const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_WRITEPROTECT: u64 = 0xc018_aa06;
const PAGEMAP_SCAN: u64 = 0xc060_6610;
/// Of shared memory, of pages that are not there yet, without anybody to ask.
const FEATURES: u64 = 1 << 12 | 1 << 13 | 1 << 15;
const API: u64 = 0xaa;
const MODE_PROTECT: u64 = 1 << 1;
const PROTECT: u64 = 1;
const IS_WRITTEN: u64 = 1 << 1;
const PAGE_BYTES: u64 = 4096;
const RANGES: usize = 16_384;

/// Of the first region of a guest's memory.
pub(super) struct Watcher {
    uffd: OwnedFd,
    pagemap: File,
    start: u64,
    bytes: u64,
}

/// Any of the structs, which consist of 64-bit words only.
fn call<const N: usize>(fd: &impl std::os::fd::AsRawFd, request: u64, words: &mut [u64; N]) {
    // SAFETY: each request takes a struct of as many words as it is given,
    // and the addresses in it are those of mappings that live.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, words.as_mut_ptr()) };
    let error = std::io::Error::last_os_error();
    assert!(result >= 0, "request {request:#x}: {error}");
}

impl Watcher {
    pub(super) fn over(memory: &Memory) -> Self {
        let map = memory.map();
        let region = map.iter().next().unwrap();
        let start = region.get_host_address(MemoryRegionAddress(0)).unwrap() as u64;
        // SAFETY: the call takes flags only.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        assert!(fd >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
        // SAFETY: it is new, and nobody else's.
        let uffd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        call(&uffd, UFFDIO_API, &mut [API, FEATURES, 0]);
        let bytes = region.len();
        call(&uffd, UFFDIO_REGISTER, &mut [start, bytes, MODE_PROTECT, 0]);
        Self {
            uffd,
            pagemap: File::open("/proc/self/pagemap").unwrap(),
            start,
            bytes,
        }
    }

    /// From here on.
    pub(super) fn forget(&self) {
        let range = &mut [self.start, self.bytes, PROTECT];
        call(&self.uffd, UFFDIO_WRITEPROTECT, range);
    }

    pub(super) fn written(&self) -> BTreeSet<u64> {
        let mut ranges = vec![[0_u64; 3]; RANGES];
        let mut scan = [
            96,
            0,
            self.start,
            self.start + self.bytes,
            0,
            ranges.as_mut_ptr() as u64,
            RANGES as u64,
            0,
            0,
            IS_WRITTEN,
            0,
            IS_WRITTEN,
        ];
        call(&self.pagemap, PAGEMAP_SCAN, &mut scan);
        assert_eq!(scan[4], self.start + self.bytes, "all of it was looked at");
        let filled = ranges.iter().take_while(|[_, end, _]| *end != 0);
        filled
            .flat_map(|[from, to, _]| (*from..*to).step_by(PAGE_BYTES as usize))
            .map(|address| (address - self.start) / PAGE_BYTES)
            .collect()
    }
}
