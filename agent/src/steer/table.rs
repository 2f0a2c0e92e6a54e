//! Typed access to pinned maps.
//!
//! Owns: the check that a map's keys and values are the size of our types,
//! without which no read or write is sound. Refuses: meaning.

use std::{
    io,
    marker::PhantomData,
    mem::size_of,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::Pod;

use super::{
    error::SteerError,
    objects,
    sys::{self, Cursor, Step},
};

/// Entries that one system call reads: large enough to make its cost vanish,
/// small enough for a few hundred KiB.
const BATCH: usize = 4096;

/// A hash or array map.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    fd: OwnedFd,
    name: &'static str,
    entries_max: u32,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// Opens the map pinned as `name` below `root`.
    pub(super) fn open(root: &Path, name: &'static str) -> Result<Self, SteerError> {
        let (fd, info) = open(root, name)?;
        check(name, "keys of bytes", info.key_bytes, size_of::<K>())?;
        check(name, "values of bytes", info.value_bytes, size_of::<V>())?;
        Ok(Self {
            fd,
            name,
            entries_max: info.entries_max,
            types: PhantomData,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn get(&self, key: &K) -> Result<Option<V>, SteerError> {
        sys::lookup(self.fd(), key).map_err(|e| self.fail("look up an entry in", e))
    }

    pub(super) fn put(&self, key: &K, value: &V) -> Result<(), SteerError> {
        sys::update(self.fd(), key, std::slice::from_ref(value))
            .map_err(|e| self.fail("put an entry into", e))
    }

    /// `false` if there was no such key.
    pub(super) fn delete(&self, key: &K) -> Result<bool, SteerError> {
        sys::delete(self.fd(), key).map_err(|e| self.fail("delete an entry of", e))
    }

    /// Inserts or replaces many entries, in order. On an error those before
    /// the failing one are in.
    pub(super) fn put_all(&self, keys: &[K], values: &[V]) -> Result<(), SteerError> {
        let mut at = 0;
        while at < keys.len() {
            let end = keys.len().min(at + BATCH);
            sys::update_batch(self.fd(), &keys[at..end], &values[at..end])
                .map_err(|e| self.fail("put entries into", e))?;
            at = end;
        }
        Ok(())
    }

    /// All entries of a hash map, or all slots of an array.
    pub(super) fn entries(&self) -> Result<Vec<(K, V)>, SteerError> {
        let mut all = Vec::new();
        self.for_each(|key, value| all.push((key, value)))?;
        Ok(all)
    }

    /// Shows every entry to `see`, without holding them all at once.
    pub(super) fn for_each(&self, mut see: impl FnMut(K, V)) -> Result<(), SteerError> {
        let mut room = BATCH.min(self.entries_max as usize).max(64);
        let mut keys = vec![sys::zeroed::<K>(); room];
        let mut values = vec![sys::zeroed::<V>(); room];
        let mut cursor = Cursor::default();
        loop {
            let step = sys::lookup_batch(self.fd(), &mut cursor, &mut keys, &mut values)
                .map_err(|e| self.fail("read", e))?;
            let (read, last) = match step {
                Step::More(read) => (read, false),
                Step::Last(read) => (read, true),
                Step::Grow => {
                    room *= 2;
                    keys.resize(room, sys::zeroed());
                    values.resize(room, sys::zeroed());
                    continue;
                }
            };
            for (&key, &value) in keys.iter().zip(&values).take(read) {
                see(key, value);
            }
            if last {
                return Ok(());
            }
        }
    }

    fn fail(&self, what: &'static str, source: io::Error) -> SteerError {
        SteerError::Map {
            what,
            map: self.name,
            source,
        }
    }
}

/// A per-CPU array of `V`.
#[derive(Debug)]
pub(super) struct PerCpuTable<V> {
    fd: OwnedFd,
    name: &'static str,
    cpus: usize,
    types: PhantomData<fn() -> V>,
}

impl<V: Pod> PerCpuTable<V> {
    /// The kernel pads the values of each CPU to this many bytes.
    const STRIDE: usize = 8;

    pub(super) fn open(root: &Path, name: &'static str) -> Result<Self, SteerError> {
        const { assert!(size_of::<V>().is_multiple_of(Self::STRIDE)) };
        let (fd, info) = open(root, name)?;
        check(name, "keys of bytes", info.key_bytes, size_of::<u32>())?;
        check(name, "values of bytes", info.value_bytes, size_of::<V>())?;
        let cpus = aya::util::nr_cpus()
            .map_err(|(file, e)| SteerError::Read(Path::new(file).to_owned(), e))?;
        Ok(Self {
            fd,
            name,
            cpus,
            types: PhantomData,
        })
    }

    /// A buffer for [`Self::get`]: one value for each possible CPU.
    pub(super) fn buffer(&self) -> Vec<V> {
        vec![sys::zeroed(); self.cpus]
    }

    /// Fills `values`, made by [`Self::buffer`]; `false` beyond the end.
    pub(super) fn get(&self, index: u32, values: &mut Vec<V>) -> Result<bool, SteerError> {
        values.resize(self.cpus, sys::zeroed());
        sys::lookup_per_cpu(self.fd.as_fd(), &index, values)
            .map_err(|e| self.fail("look up an entry in", e))
    }

    /// Zeroes the values of all CPUs.
    pub(super) fn reset(&self, index: u32) -> Result<(), SteerError> {
        sys::update(self.fd.as_fd(), &index, &self.buffer())
            .map_err(|e| self.fail("put an entry into", e))
    }

    fn fail(&self, what: &'static str, source: io::Error) -> SteerError {
        SteerError::Map {
            what,
            map: self.name,
            source,
        }
    }
}

/// Opens a pinned map, whatever its shape.
pub(super) fn open(
    root: &Path,
    name: &'static str,
) -> Result<(OwnedFd, objects::MapInfo), SteerError> {
    let path = root.join(name);
    let fd = sys::obj_get(&path).map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound {
            SteerError::NoPins(root.to_owned())
        } else {
            SteerError::OpenPin(path, e)
        }
    })?;
    let info = objects::map_info(fd.as_fd()).map_err(|source| SteerError::Map {
        what: "describe",
        map: name,
        source,
    })?;
    Ok((fd, info))
}

fn check(
    map: &'static str,
    what: &'static str,
    found: u32,
    expected: usize,
) -> Result<(), SteerError> {
    if usize::try_from(found) == Ok(expected) {
        return Ok(());
    }
    let expected = u32::try_from(expected).unwrap_or(u32::MAX);
    Err(SteerError::MapShape {
        map,
        what,
        found,
        expected,
    })
}
