//! The journal on a disk: read at the start, then written at its end.
//!
//! Owns: where the end is, and what of the journal has still to be written.
//! Refuses: to know a device; [`Sectors`] is one. To write over a disk that
//! holds something else.
//!
//! A disk begins with [`HEADER`], and its records follow without a gap. What
//! a crash may have left behind the end is wiped at the next start, so that
//! it can never continue a journal again.

use crate::{
    journal::{HEADER, RECORD_BYTES_MAX, decode},
    store::{Record, Room, Store},
};

pub const SECTOR_BYTES: usize = 512;
/// What may be written at once.
pub const TAIL_BYTES: usize = 32 << 10;

const _: () = assert!(TAIL_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(TAIL_BYTES >= SECTOR_BYTES + RECORD_BYTES_MAX);
const _: () = assert!(HEADER.len() < SECTOR_BYTES);

/// A disk, in whole sectors. What is written stays written.
pub trait Sectors {
    fn count(&self) -> u64;
    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), Broken>;
    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), Broken>;
}

/// The disk did not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// Why there is no journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoJournal {
    TooSmall,
    /// It holds something else, which is left alone.
    Foreign,
    /// It holds more keys than the table.
    TooManyKeys,
    Broken,
}

#[derive(Debug)]
pub struct Tail<'a> {
    /// From the beginning of a sector on; zeros behind what is used.
    buffer: &'a mut [u8; TAIL_BYTES],
    sector: u64,
    used: usize,
    /// Of what is used, known to be on the disk.
    written: usize,
    sectors: u64,
}

/// Reads the journal into a fresh store, and finds its end.
pub fn open<'a>(
    disk: &mut impl Sectors,
    buffer: &'a mut [u8; TAIL_BYTES],
    store: &mut Store<'_>,
) -> Result<Tail<'a>, NoJournal> {
    let sectors = disk.count();
    if sectors == 0 {
        return Err(NoJournal::TooSmall);
    }
    let broken = |_: Broken| NoJournal::Broken;
    let start = disk.load(buffer, 0, sectors).map_err(broken)?;
    if !start.starts_with(HEADER) {
        return fresh(buffer, sectors);
    }
    let mut position = HEADER.len() as u64;
    loop {
        let sector = position / SECTOR_BYTES as u64;
        let text = disk.load(buffer, sector, sectors).map_err(broken)?;
        let is_last = sector + text.len().div_ceil(SECTOR_BYTES) as u64 >= sectors;
        let begin = (position % SECTOR_BYTES as u64) as usize;
        let mut at = begin;
        while is_last || text.len() - at >= RECORD_BYTES_MAX {
            let rest = text.get(at..).unwrap_or_default();
            let Some(record) = decode(store.journal(), rest) else {
                return end(disk, buffer, sector, at, sectors).map_err(broken);
            };
            store.replay(&record).map_err(|_| NoJournal::TooManyKeys)?;
            at += record.bytes;
        }
        position += (at - begin) as u64;
    }
}

/// A disk without a journal, or with the beginning of its first words.
fn fresh(buffer: &mut [u8; TAIL_BYTES], sectors: u64) -> Result<Tail<'_>, NoJournal> {
    let first = buffer.get(..SECTOR_BYTES).unwrap_or_default();
    let words = first.iter().take_while(|&&byte| byte != 0).count();
    let (words, rest) = first.split_at_checked(words).unwrap_or_default();
    if !HEADER.starts_with(words) || rest.iter().any(|&byte| byte != 0) {
        return Err(NoJournal::Foreign);
    }
    buffer.fill(0);
    let mut tail = Tail {
        buffer,
        sector: 0,
        used: 0,
        written: 0,
        sectors,
    };
    tail.push(HEADER);
    Ok(tail)
}

/// The tail that begins in this sector, with that many bytes of the buffer.
fn end<'a>(
    disk: &mut impl Sectors,
    buffer: &'a mut [u8; TAIL_BYTES],
    sector: u64,
    used: usize,
    sectors: u64,
) -> Result<Tail<'a>, Broken> {
    let whole = used / SECTOR_BYTES * SECTOR_BYTES;
    let (sector, used) = (sector + (whole / SECTOR_BYTES) as u64, used - whole);
    let is_clean = {
        let text = disk.load(buffer, sector, sectors)?;
        text.iter().skip(used).all(|&byte| byte == 0)
    };
    if let Some(rest) = buffer.get_mut(used..) {
        rest.fill(0);
    }
    if !is_clean {
        let bytes = window(sector, sectors);
        disk.write(sector, buffer.get(..bytes).unwrap_or_default())?;
    }
    Ok(Tail {
        buffer,
        sector,
        used,
        written: used,
        sectors,
    })
}

/// Bytes of a buffer's part of the disk.
fn window(sector: u64, sectors: u64) -> usize {
    let left = sectors
        .saturating_sub(sector)
        .saturating_mul(SECTOR_BYTES as u64);
    usize::try_from(left).unwrap_or(TAIL_BYTES).min(TAIL_BYTES)
}

trait Load: Sectors {
    /// As much as fits and is there.
    fn load<'b>(
        &mut self,
        buffer: &'b mut [u8; TAIL_BYTES],
        sector: u64,
        sectors: u64,
    ) -> Result<&'b [u8], Broken> {
        let bytes = window(sector, sectors);
        let to = buffer.get_mut(..bytes).unwrap_or_default();
        if !to.is_empty() {
            self.read(sector, to)?;
        }
        Ok(to)
    }
}

impl<D: Sectors> Load for D {}

impl Tail<'_> {
    /// For one more record, on the disk.
    pub fn room(&self) -> Room {
        let end = self.sector * SECTOR_BYTES as u64 + (self.used + RECORD_BYTES_MAX) as u64;
        match end <= self.sectors.saturating_mul(SECTOR_BYTES as u64) {
            true => Room::Enough,
            false => Room::Full,
        }
    }

    /// Whether a record has to wait until what is here has been written.
    pub fn is_full(&self) -> bool {
        self.used + RECORD_BYTES_MAX > TAIL_BYTES
    }

    /// Takes a record in, if there is [`Self::room`] and it is not full.
    pub fn append(&mut self, record: &Record) {
        self.push(record.bytes());
    }

    fn push(&mut self, bytes: &[u8]) {
        let free = self.buffer.get_mut(self.used..).unwrap_or_default();
        for (to, &byte) in free.iter_mut().zip(bytes) {
            *to = byte;
            self.used += 1;
        }
    }

    /// Writes what is not on the disk. Whether there was any.
    pub fn write(&mut self, disk: &mut impl Sectors) -> Result<bool, Broken> {
        if self.used == self.written {
            return Ok(false);
        }
        let bytes = self.used.next_multiple_of(SECTOR_BYTES);
        disk.write(self.sector, self.buffer.get(..bytes).unwrap_or_default())?;
        let whole = self.used / SECTOR_BYTES * SECTOR_BYTES;
        self.buffer.copy_within(whole..self.used, 0);
        self.sector += (whole / SECTOR_BYTES) as u64;
        let old = self.used;
        self.used -= whole;
        if let Some(rest) = self.buffer.get_mut(self.used..old) {
            rest.fill(0);
        }
        self.written = self.used;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
