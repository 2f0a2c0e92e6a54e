//! A raw file as a disk, and which of its blocks were written.
//!
//! Owns: the file and the lock on it, so that no two microVMs write to the
//! same one. Refuses: to be a file that has no whole number of sectors.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl},
};

/// The unit of requests, whatever the disk's blocks are.
pub(super) const SECTOR_BYTES: u64 = 512;
/// What tracking counts.
pub(in crate::vmm) const BLOCK_BYTES: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub(in crate::vmm) enum DiskError {
    #[error("it cannot be opened")]
    Open(#[source] io::Error),
    #[error("it is no regular file")]
    NotAFile,
    #[error("it was not opened to be read and written")]
    NotWritable,
    #[error("it is empty")]
    Empty,
    #[error("it has {0} bytes, no multiple of {SECTOR_BYTES}")]
    OddSize(u64),
    #[error("another microVM has it")]
    Taken,
    #[error("it cannot be locked")]
    Lock(#[source] Errno),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vmm) enum Access {
    ReadOnly,
    ReadWrite,
}

#[derive(Debug)]
pub(in crate::vmm) struct Disk {
    file: Flock<File>,
    access: Access,
    bytes: u64,
    written: Option<BlockMap>,
}

impl Disk {
    /// Those who only read may share it.
    pub(in crate::vmm) fn open(path: &Path, access: Access) -> Result<Self, DiskError> {
        let file = File::options()
            .read(true)
            .write(access == Access::ReadWrite)
            // A pipe is to be refused, not waited for.
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(DiskError::Open)?;
        Self::over(file, access)
    }

    /// A file that is open already.
    pub(in crate::vmm) fn over(file: File, access: Access) -> Result<Self, DiskError> {
        let flags = fcntl(&file, FcntlArg::F_GETFL);
        let flags = flags.map_err(|errno| DiskError::Open(errno.into()))?;
        let mode = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE;
        if access == Access::ReadWrite && mode != OFlag::O_RDWR {
            return Err(DiskError::NotWritable);
        }
        let meta = file.metadata().map_err(DiskError::Open)?;
        if !meta.is_file() {
            return Err(DiskError::NotAFile);
        }
        match meta.len() {
            0 => return Err(DiskError::Empty),
            bytes if !bytes.is_multiple_of(SECTOR_BYTES) => return Err(DiskError::OddSize(bytes)),
            _ => {}
        }
        let lock = match access {
            Access::ReadOnly => FlockArg::LockSharedNonblock,
            Access::ReadWrite => FlockArg::LockExclusiveNonblock,
        };
        let file = Flock::lock(file, lock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => DiskError::Taken,
            errno => DiskError::Lock(errno),
        })?;
        Ok(Self {
            file,
            access,
            bytes: meta.len(),
            written: None,
        })
    }

    pub(in crate::vmm) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn sectors(&self) -> u64 {
        self.bytes / SECTOR_BYTES
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.access == Access::ReadOnly
    }

    /// Where this many bytes from this sector on are, if they are on the disk.
    pub(super) fn place(&self, sector: u64, bytes: u64) -> Option<u64> {
        let start = sector.checked_mul(SECTOR_BYTES)?;
        (start.checked_add(bytes)? <= self.bytes).then_some(start)
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // Also what fails half-way has changed blocks.
        if let Some(written) = &mut self.written {
            written.mark(offset, bytes.len() as u64);
        }
        self.file.write_all_at(bytes, offset)
    }

    /// Until the file would survive a loss of power.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Records from here on which blocks are written. Does nothing if it does already.
    pub(super) fn start_tracking(&mut self) {
        if self.written.is_none() {
            self.written = Some(BlockMap::new(self.bytes.div_ceil(BLOCK_BYTES)));
        }
    }

    /// Blocks written since tracking began or was last asked for.
    pub(super) fn harvest(&mut self) -> Option<BlockMap> {
        let written = self.written.as_mut()?;
        let fresh = BlockMap::new(written.blocks);
        Some(std::mem::replace(written, fresh))
    }
}

/// A bit for each block of [`BLOCK_BYTES`], lowest first; the last block may
/// be a shorter one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::vmm) struct BlockMap {
    words: Vec<u64>,
    blocks: u64,
}

impl BlockMap {
    pub(in crate::vmm) fn new(blocks: u64) -> Self {
        let words = usize::try_from(blocks.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            words: vec![0; words],
            blocks,
        }
    }

    /// As they lie in a file, each word little-endian.
    pub(in crate::vmm) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Bits that are set.
    #[cfg(test)]
    pub(in crate::vmm) fn count(&self) -> u64 {
        let ones = self.words.iter().map(|word| u64::from(word.count_ones()));
        ones.sum()
    }

    fn mark(&mut self, offset: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let last = (offset + (bytes - 1)) / BLOCK_BYTES;
        for block in offset / BLOCK_BYTES..=last {
            let word = usize::try_from(block / 64).unwrap_or(usize::MAX);
            if let Some(word) = self.words.get_mut(word) {
                *word |= 1 << (block % 64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, BlockMap};

    #[test]
    fn each_block_that_is_touched_is_marked_and_no_other() {
        let mut map = BlockMap::new(200);
        map.mark(0, 0);
        assert_eq!(map.count(), 0);
        map.mark(BLOCK_BYTES * 63 + 4095, 2);
        map.mark(BLOCK_BYTES * 130, BLOCK_BYTES * 3);
        map.mark(BLOCK_BYTES * 199, 512);
        assert_eq!(map.words(), [1 << 63, 1, 0b1_1100, 1 << 7]);
        assert_eq!(map.count(), 6);
    }
}
