//! virtio-blk (virtio 1.2, section 5.2) on a raw file.
//!
//! One request after the other, each complete before it is given back. What a
//! request says is checked against the disk and against bounds of ours before
//! the file is touched; what it asks for beyond them is an I/O error.

use std::{
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use nix::sys::eventfd::EventFd;
use vm_memory::bitmap::BitmapSlice;

use super::{
    disk::{BlockMap, Disk, SECTOR_BYTES},
    slot::Wants,
    transport::{Chain, Kind, QUEUE_SIZE_MAX, Transport},
};
use crate::vmm::memory::GuestRam;

/// Device type.
pub(super) const KIND: u32 = 2;

const FEATURE_SIZE_MAX: u64 = 1 << 1;
const FEATURE_SEG_MAX: u64 = 1 << 2;
const FEATURE_READ_ONLY: u64 = 1 << 5;
const FEATURE_FLUSH: u64 = 1 << 9;

/// Bytes of a segment, and segments of a request, but for header and status.
const SEGMENT_BYTES_MAX: u32 = 64 << 10;
const SEGMENTS_MAX: u32 = QUEUE_SIZE_MAX as u32 - 2;
/// No request keeps the device longer than it takes to move this.
const DATA_BYTES_MAX: usize = SEGMENT_BYTES_MAX as usize * SEGMENTS_MAX as usize;

/// Data goes through here, so that the guest cannot change it while it is looked at.
const BUFFER_BYTES: usize = 128 << 10;

const QUEUE: usize = 0;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

const ID_BYTES: usize = 20;
const ID: &[u8; ID_BYTES] = b"ghost-disk\0\0\0\0\0\0\0\0\0\0";

const HEADER_BYTES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// Requests, and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::vmm) struct Counts {
    pub(in crate::vmm) read_bytes: u64,
    pub(in crate::vmm) written_bytes: u64,
    pub(in crate::vmm) flushes: u64,
    pub(in crate::vmm) failed: u64,
    /// Times that the driver broke its queue.
    pub(in crate::vmm) broken: u64,
}

#[derive(Debug)]
pub(in crate::vmm) struct Block {
    transport: Transport,
    disk: Disk,
    buffer: Vec<u8>,
    counts: Counts,
}

impl Block {
    /// `line` is told of news, if the guest has an interrupt controller.
    pub(in crate::vmm) fn new(
        disk: Disk,
        memory: Arc<GuestRam>,
        line: Option<EventFd>,
    ) -> io::Result<Self> {
        let mut features = FEATURE_SIZE_MAX | FEATURE_SEG_MAX | FEATURE_FLUSH;
        if disk.is_read_only() {
            features |= FEATURE_READ_ONLY;
        }
        let mut config = disk.sectors().to_le_bytes().to_vec();
        config.extend(SEGMENT_BYTES_MAX.to_le_bytes());
        config.extend(SEGMENTS_MAX.to_le_bytes());
        let kind = Kind {
            number: KIND,
            features,
            config,
            queues: 1,
        };
        Ok(Self {
            transport: Transport::new(kind, memory, line)?,
            disk,
            buffer: vec![0; BUFFER_BYTES],
            counts: Counts::default(),
        })
    }

    pub(in crate::vmm) fn counts(&self) -> Counts {
        Counts {
            broken: self.transport.broken(),
            ..self.counts
        }
    }

    /// Records from here on which blocks are written. Does nothing if it does already.
    pub(in crate::vmm) fn start_tracking(&mut self) {
        self.disk.start_tracking();
    }

    /// Blocks written since tracking began or was last asked for.
    pub(in crate::vmm) fn harvest(&mut self) -> Option<BlockMap> {
        self.disk.harvest()
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) fn transport_mut(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// One request, so that others get at the device between two.
    pub(super) fn work(&mut self) -> Wants {
        let Some(chain) = self.transport.next(QUEUE) else {
            return match self.transport.listen(QUEUE) {
                true => Wants::Nothing,
                false => Wants::Waking,
            };
        };
        // More is seen without being told.
        self.transport.ignore(QUEUE);
        let head = chain.head_index();
        match self.answer(chain) {
            Ok(written) => self.transport.give_back(QUEUE, head, written),
            // There is no place for a status.
            Err(_) => self.transport.break_off(),
        }
        self.transport.tell();
        Wants::Nothing
    }

    /// Carries out a request. Says how many bytes of the chain were written.
    fn answer(&mut self, chain: Chain) -> io::Result<u32> {
        let memory = Arc::clone(self.transport.memory());
        let mut reader = chain.clone().reader(&memory).map_err(io::Error::other)?;
        let mut writer = chain.writer(&memory).map_err(io::Error::other)?;
        let room = writer.available_bytes();
        let room = room.checked_sub(1).ok_or(io::ErrorKind::InvalidInput)?;
        let mut status = writer.split_at(room).map_err(io::Error::other)?;
        let answer = match self.carry_out(&mut reader, &mut writer) {
            Ok(answer) => answer,
            Err(_) => Status::IoError,
        };
        if answer != Status::Ok {
            self.counts.failed += 1;
        }
        status.write_all(&[answer as u8])?;
        u32::try_from(writer.bytes_written() + 1).map_err(io::Error::other)
    }

    fn carry_out<R: BitmapSlice, W: BitmapSlice>(
        &mut self,
        reader: &mut virtio_queue::Reader<'_, R>,
        writer: &mut virtio_queue::Writer<'_, W>,
    ) -> io::Result<Status> {
        let mut header = [0; HEADER_BYTES];
        reader.read_exact(&mut header)?;
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            IN => {
                let bytes = writer.available_bytes();
                let start = self.place(sector, bytes)?;
                self.read(start, bytes, writer)?;
            }
            OUT if self.disk.is_read_only() => return Err(io::ErrorKind::PermissionDenied.into()),
            OUT => {
                let bytes = reader.available_bytes();
                let start = self.place(sector, bytes)?;
                self.write(start, bytes, reader)?;
                // Such a driver relies on what was written being there for good.
                if !self.transport.registers().has(FEATURE_FLUSH) {
                    self.disk.flush()?;
                }
            }
            FLUSH => {
                self.disk.flush()?;
                self.counts.flushes += 1;
            }
            GET_ID => {
                let length = writer.available_bytes().min(ID_BYTES);
                writer.write_all(ID.get(..length).unwrap_or_default())?;
            }
            _ => return Ok(Status::Unsupported),
        }
        Ok(Status::Ok)
    }

    /// Where the data of a request are on the disk, if they can be.
    fn place(&self, sector: u64, bytes: usize) -> io::Result<u64> {
        let length = bytes as u64;
        let place = match bytes <= DATA_BYTES_MAX && length.is_multiple_of(SECTOR_BYTES) {
            true => self.disk.place(sector, length),
            false => None,
        };
        place.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn read(&mut self, start: u64, bytes: usize, writer: &mut impl io::Write) -> io::Result<()> {
        let mut done = 0;
        while done < bytes {
            let length = BUFFER_BYTES.min(bytes - done);
            let part = self.buffer.get_mut(..length).unwrap_or_default();
            self.disk.read(start + done as u64, part)?;
            writer.write_all(part)?;
            done += length;
        }
        self.counts.read_bytes += bytes as u64;
        Ok(())
    }

    fn write(&mut self, start: u64, bytes: usize, reader: &mut impl io::Read) -> io::Result<()> {
        let mut done = 0;
        while done < bytes {
            let length = BUFFER_BYTES.min(bytes - done);
            let part = self.buffer.get_mut(..length).unwrap_or_default();
            reader.read_exact(part)?;
            self.disk.write(start + done as u64, part)?;
            done += length;
        }
        self.counts.written_bytes += bytes as u64;
        Ok(())
    }
}
