//! A driver for virtio-blk that looks at its queue, and the journal on it.
//!
//! Owns: one request at a time, and its buffer. A disk that fails ends the
//! guest with a line on the console: what cannot be written down must not be
//! answered.

use agent_common::guest::Boot;
use ghost_guest::{
    line::Sync,
    store::{Record, Room, Store},
    tail::{self, Broken, NoJournal, SECTOR_BYTES, Sectors, TAIL_BYTES, Tail},
};

use crate::{
    machine::{copy_from, copy_to, die, load, say, store, wait},
    virtio::{BUFFERS, DEVICE_WRITES, Device, NEXT, News, QUEUE_BYTES, Queue},
};

const BLOCK: u32 = 2;
const FEATURE_FLUSH: u32 = 1 << 9;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
/// No device answers with it.
const NOT_YET: u8 = 0xff;

const HEADER_BYTES: u32 = 16;
/// From the queue's base on, between its rings and its buffers.
const HEADER: u64 = 0x3000;
const STATUS: u64 = HEADER + HEADER_BYTES as u64;

const _: () = assert!(BUFFERS + TAIL_BYTES as u64 <= QUEUE_BYTES);

/// What the journal's end is kept in.
pub(crate) type Buffer = [u8; TAIL_BYTES];

struct Driver {
    device: Device,
    queue: Queue,
    sectors: u64,
    can_flush: bool,
}

pub(crate) struct Disk {
    driver: Driver,
    tail: Tail<'static>,
    sync: Sync,
}

/// The disk, if there is one, with its journal read into the store.
pub(crate) fn open(
    boot: &Boot,
    buffer: &'static mut Buffer,
    sync: Sync,
    store: &mut Store<'_>,
) -> Result<Option<Disk>, &'static str> {
    let Some(device) = Device::find(boot, BLOCK) else {
        return Ok(None);
    };
    let queue = Queue::new(0, 2, News::Wanted);
    let taken = device.start(FEATURE_FLUSH, &[&queue])?;
    let mut driver = Driver {
        device,
        queue,
        sectors: device.config(0),
        can_flush: taken & FEATURE_FLUSH != 0,
    };
    let tail = tail::open(&mut driver, buffer, store).map_err(|error| match error {
        NoJournal::TooSmall => "the disk is too small for a journal",
        NoJournal::Foreign => "the disk holds something that is no journal",
        NoJournal::TooManyKeys => "the journal on the disk has too many keys",
        NoJournal::Broken => "the disk cannot be read",
    })?;
    say!(
        "journal {} {:016x}",
        store.journal().count,
        store.journal().hash()
    );
    Ok(Some(Disk { driver, tail, sync }))
}

impl Disk {
    /// For one more record.
    pub(crate) fn room(&self) -> Room {
        self.tail.room()
    }

    pub(crate) fn append(&mut self, record: &Record) {
        if self.tail.is_full() {
            self.commit();
        }
        self.tail.append(record);
    }

    /// Writes down all that was appended.
    pub(crate) fn commit(&mut self) {
        let done = match self.tail.write(&mut self.driver) {
            Ok(true) if self.sync == Sync::On => self.driver.flush(),
            other => other.map(drop),
        };
        if done.is_err() {
            say!("the disk cannot be written");
            die();
        }
    }
}

impl Driver {
    fn flush(&mut self) -> Result<(), Broken> {
        match self.can_flush {
            true => self.request(FLUSH, 0, 0),
            // It has no cache, then.
            false => Ok(()),
        }
    }

    /// One request, until it is done.
    fn request(&mut self, kind: u32, sector: u64, bytes: u32) -> Result<(), Broken> {
        /// Something else may have woken us.
        const WAIT_US: u64 = 100_000;
        let base = self.queue.base;
        store(base + HEADER, kind);
        store(base + HEADER + 4, 0_u32);
        store(base + HEADER + 8, sector);
        store(base + STATUS, NOT_YET);
        self.queue.describe(0, base + HEADER, HEADER_BYTES, NEXT);
        let data = match kind {
            IN => NEXT | DEVICE_WRITES,
            _ => NEXT,
        };
        let mut last = 1;
        if bytes > 0 {
            self.queue.describe(1, base + BUFFERS, bytes, data);
            last = 2;
        }
        self.queue.describe(last, base + STATUS, 1, DEVICE_WRITES);
        self.queue.offer(0);
        self.device.notify(&self.queue);
        while self.queue.take().is_none() {
            if self.device.needs_reset() {
                return Err(Broken);
            }
            wait(WAIT_US);
        }
        match load::<u8>(base + STATUS) {
            0 => Ok(()),
            _ => Err(Broken),
        }
    }
}

impl Sectors for Driver {
    fn count(&self) -> u64 {
        self.sectors
    }

    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), Broken> {
        let sectors = (to.len() / SECTOR_BYTES) as u64;
        if to.len() > TAIL_BYTES || sector.saturating_add(sectors) > self.sectors {
            return Err(Broken);
        }
        self.request(IN, sector, to.len() as u32)?;
        copy_from(self.queue.base + BUFFERS, to);
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), Broken> {
        if from.len() > TAIL_BYTES {
            return Err(Broken);
        }
        copy_to(self.queue.base + BUFFERS, from);
        self.request(OUT, sector, from.len() as u32)
    }
}
