//! A cut on its way from one copy to the other.
//!
//! Owns: what was taken. A whole cut goes to the other copy's memory and disk
//! as it is taken, which makes that copy torn until it is applied; of later
//! ones, what was written is held here, so that the other copy stays the
//! whole cut that it is.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::FileExt as _},
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory as _, VolatileMemoryError};

/// Pages of the maps that travel, and blocks of a disk.
pub(super) const PAGE_BYTES: usize = 4096;

/// Of a disk, this much is read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Guest memory, mapped here too.
#[derive(Debug)]
pub(super) struct Mapping {
    region: MmapRegion,
    file: File,
}

impl Mapping {
    pub(super) fn new(file: File, bytes: u64) -> Result<Self, vm_memory::mmap::MmapRegionError> {
        let shared = file
            .try_clone()
            .map_err(vm_memory::mmap::MmapRegionError::Mmap)?;
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        let region = MmapRegion::from_file(FileOffset::new(shared, 0), size)?;
        Ok(Self { region, file })
    }

    /// Copies pages in place to another guest's memory.
    fn copy_to(&self, to: &Self, start: usize, bytes: usize) -> Result<(), VolatileMemoryError> {
        let from = self.region.get_slice(start, bytes)?;
        from.copy_to_volatile_slice(to.region.get_slice(start, bytes)?);
        Ok(())
    }

    /// Parts of it that were ever touched. Reading others would give them
    /// memory.
    fn populated(&self) -> io::Result<Vec<(usize, usize)>> {
        extents(&self.file)
    }
}

/// Where a file has data: start and length.
fn extents(file: &File) -> io::Result<Vec<(usize, usize)>> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let start = match lseek(file.as_fd(), at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return Ok(found),
            Err(errno) => return Err(errno.into()),
        };
        at = lseek(file.as_fd(), start, Whence::SeekHole)?;
        let whole = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
        found.push((whole(start), whole(at).saturating_sub(whole(start))));
    }
}

/// Indices of the bits that are set, lowest first.
pub(super) fn bits(map: &[u8]) -> impl Iterator<Item = usize> {
    map.iter().enumerate().flat_map(|(place, byte)| {
        let byte = *byte;
        (0..8)
            .filter(move |bit| byte & (1 << bit) != 0)
            .map(move |bit| place * 8 + bit)
    })
}

/// Pages or blocks that are held, in the order of their indices.
#[derive(Debug, Default)]
pub(super) struct Held {
    indices: Vec<usize>,
    bytes: Vec<u8>,
}

impl Held {
    /// Forgets what there was, and takes pages of a guest's memory.
    pub(super) fn take_pages(
        &mut self,
        from: &Mapping,
        map: &[u8],
    ) -> Result<u64, (u64, VolatileMemoryError)> {
        self.make_room(map);
        let chunks = self.bytes.chunks_exact_mut(PAGE_BYTES);
        for (&page, chunk) in self.indices.iter().zip(chunks) {
            let slice = from.region.get_slice(page * PAGE_BYTES, PAGE_BYTES);
            slice.map_err(|e| (page as u64, e))?.copy_to(chunk);
        }
        Ok(self.indices.len() as u64)
    }

    /// As [`Self::take_pages`], of a disk. Its last block may be short.
    pub(super) fn take_blocks(&mut self, from: &File, map: &[u8]) -> io::Result<u64> {
        self.make_room(map);
        let chunks = self.bytes.chunks_exact_mut(PAGE_BYTES);
        for (&block, chunk) in self.indices.iter().zip(chunks) {
            read_up_to(from, chunk, (block * PAGE_BYTES) as u64)?;
        }
        Ok(self.indices.len() as u64)
    }

    /// Room that has been there before is not given back: the pages of the
    /// last round are those of the next.
    fn make_room(&mut self, map: &[u8]) {
        self.indices.clear();
        self.indices.extend(bits(map));
        self.bytes.resize(self.indices.len() * PAGE_BYTES, 0);
    }

    pub(super) fn put_pages(&self, to: &Mapping) -> Result<(), (u64, VolatileMemoryError)> {
        for (&page, chunk) in self.indices.iter().zip(self.bytes.chunks_exact(PAGE_BYTES)) {
            let slice = to.region.get_slice(page * PAGE_BYTES, PAGE_BYTES);
            slice.map_err(|e| (page as u64, e))?.copy_from(chunk);
        }
        Ok(())
    }

    pub(super) fn put_blocks(&self, to: &File, disk_bytes: u64) -> io::Result<()> {
        for (&block, chunk) in self.indices.iter().zip(self.bytes.chunks_exact(PAGE_BYTES)) {
            let start = (block * PAGE_BYTES) as u64;
            let length = usize::try_from(disk_bytes.saturating_sub(start)).unwrap_or(usize::MAX);
            let chunk = chunk.get(..length.min(PAGE_BYTES)).unwrap_or_default();
            to.write_all_at(chunk, start)?;
        }
        Ok(())
    }
}

/// All memory that a guest ever touched; gives the number of pages.
pub(super) fn copy_memory(from: &Mapping, to: &Mapping) -> io::Result<u64> {
    let mut pages = 0;
    for (start, bytes) in from.populated()? {
        from.copy_to(to, start, bytes).map_err(io::Error::other)?;
        pages += (bytes / PAGE_BYTES) as u64;
    }
    Ok(pages)
}

/// Pages of a map, straight to the other guest's memory.
pub(super) fn copy_pages(
    from: &Mapping,
    to: &Mapping,
    map: &[u8],
) -> Result<u64, (u64, VolatileMemoryError)> {
    let mut pages = 0;
    for page in bits(map) {
        let copied = from.copy_to(to, page * PAGE_BYTES, PAGE_BYTES);
        copied.map_err(|e| (page as u64, e))?;
        pages += 1;
    }
    Ok(pages)
}

/// Makes a file the same as another one; holes stay holes.
pub(super) fn copy_disk(from: &File, to: &File) -> io::Result<u64> {
    let bytes = from.metadata()?.len();
    to.set_len(0)?;
    to.set_len(bytes)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    for (start, length) in extents(from)? {
        let (mut at, end) = (start, start.saturating_add(length));
        while at < end {
            let part = buffer
                .get_mut(..CHUNK_BYTES.min(end - at))
                .unwrap_or_default();
            read_up_to(from, part, at as u64)?;
            to.write_all_at(part, at as u64)?;
            at += part.len();
            copied += part.len().div_ceil(PAGE_BYTES) as u64;
        }
    }
    // The end of the last block may have been written beyond the end.
    to.set_len(bytes)?;
    Ok(copied)
}

/// What lies beyond the end of the file is zero.
fn read_up_to(file: &File, buffer: &mut [u8], start: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, start + done as u64)? {
            0 => {
                rest.fill(0);
                return Ok(());
            }
            read => done += read,
        }
    }
    Ok(())
}
