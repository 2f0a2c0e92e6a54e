//! bpf(2): the calls that the library does not offer, or not safely enough.
//!
//! Owns: the attribute layouts (include/uapi/linux/bpf.h) and every unsafe
//! block around the system call. Refuses: meaning; callers name what failed.
//!
//! How it fails: the plain [`io::Error`] of the call.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    mem::{MaybeUninit, size_of},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr,
};

use aya::Pod;
use tokio::io::{Interest, unix::AsyncFd};

const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const PROG_LOAD: libc::c_long = 5;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const PROG_TEST_RUN: libc::c_long = 10;
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;

const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// # Safety
///
/// `attr` is the layout that `command` takes, and each pointer in it is valid
/// for what the kernel reads or writes through it.
pub(super) unsafe fn bpf<A>(command: libc::c_long, attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the caller vouches for the content; size and pointer are `attr`'s own.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            ptr::from_mut(attr),
            size_of::<A>() as libc::c_uint,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// # Safety
///
/// As for [`bpf`], and `command` returns a new file descriptor.
pub(super) unsafe fn bpf_fd<A>(command: libc::c_long, attr: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: passed on to the caller.
    let fd = unsafe { bpf(command, attr)? };
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the call succeeded, so this is a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn raw(fd: BorrowedFd<'_>) -> u32 {
    // A borrowed descriptor is never negative.
    fd.as_raw_fd().cast_unsigned()
}

#[repr(C)]
struct ObjAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Opens whatever is pinned at `path`.
pub(super) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjAttr {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: the path is a live C string; the call returns a descriptor.
    unsafe { bpf_fd(OBJ_GET, &mut attr) }
}

pub(super) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjAttr {
        path: path.as_ptr() as u64,
        fd: raw(fd),
        flags: 0,
    };
    // SAFETY: the path is a live C string.
    unsafe { bpf(OBJ_PIN, &mut attr).map(drop) }
}

/// All bytes zero.
pub(super) fn zeroed<T: Pod>() -> T {
    // SAFETY: any bytes are a `Pod`.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

#[repr(C)]
struct ElemAttr {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl ElemAttr {
    fn new<K: Pod>(map: BorrowedFd<'_>, key: &K) -> Self {
        Self {
            map: raw(map),
            pad: 0,
            key: ptr::from_ref(key) as u64,
            value: 0,
            flags: 0,
        }
    }
}

pub(super) fn not_found<T>(error: io::Error) -> io::Result<Option<T>> {
    if error.raw_os_error() == Some(libc::ENOENT) {
        return Ok(None);
    }
    Err(error)
}

/// The map's key and value size must be those of `K` and `V`: see
/// [`super::table::Table::open`], the one place that makes sure of it.
pub(super) fn lookup<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::uninit();
    let mut attr = ElemAttr {
        value: value.as_mut_ptr() as u64,
        ..ElemAttr::new(map, key)
    };
    // SAFETY: key and value point at a live `K` and `V`, of the map's sizes.
    match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) } {
        // SAFETY: success means the kernel filled it; any bytes are a `Pod`.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(e) => not_found(e),
    }
}

/// As [`lookup`] in a per-CPU map: one value for each possible CPU.
pub(super) fn lookup_per_cpu<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    key: &K,
    values: &mut [V],
) -> io::Result<bool> {
    let mut attr = ElemAttr {
        value: values.as_mut_ptr() as u64,
        ..ElemAttr::new(map, key)
    };
    // SAFETY: the caller passes one value per possible CPU, each a multiple of
    // eight bytes, which is what the kernel writes.
    match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) } {
        Ok(_) => Ok(true),
        Err(e) => not_found::<()>(e).map(|_| false),
    }
}

/// Inserts or replaces. `values` is one value, or for a per-CPU map one for
/// each possible CPU.
pub(super) fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, values: &[V]) -> io::Result<()> {
    let mut attr = ElemAttr {
        value: values.as_ptr() as u64,
        ..ElemAttr::new(map, key)
    };
    // SAFETY: as for the look-ups; the kernel only reads.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr).map(drop) }
}

/// `false` if there was no such key.
pub(super) fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attr = ElemAttr::new(map, key);
    // SAFETY: the key points at a live `K` of the map's key size.
    match unsafe { bpf(MAP_DELETE_ELEM, &mut attr) } {
        Ok(_) => Ok(true),
        Err(e) => not_found::<()>(e).map(|_| false),
    }
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

/// Inserts or replaces `keys.len()` entries, in order.
pub(super) fn update_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    let count = keys.len().min(values.len());
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        map: raw(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: both slices hold at least `count` elements of the map's sizes.
    unsafe { bpf(MAP_UPDATE_BATCH, &mut attr).map(drop) }
}

/// Where a batched look-up goes on.
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor {
    at: u64,
    started: bool,
}

/// One step of a walk over a map.
pub(super) enum Step {
    /// So many entries were read; there may be more.
    More(usize),
    /// So many entries were read, and these were the last.
    Last(usize),
    /// A hash bucket holds more than the buffers; nothing was read.
    Grow,
}

/// Reads entries into the buffers, from `cursor` on. Map keys here are either
/// of a hash map, whose cursor is a `u32`, or of an array, whose key is one.
pub(super) fn lookup_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<Step> {
    let mut next = cursor.at;
    let mut attr = BatchAttr {
        in_batch: if cursor.started {
            ptr::from_ref(&cursor.at) as u64
        } else {
            0
        },
        out_batch: ptr::from_mut(&mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX),
        map: raw(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the buffers hold `count` elements of the map's sizes; both
    // cursors are eight bytes, the kernel uses four.
    let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
    let read = attr.count as usize;
    match result {
        Ok(_) => {
            *cursor = Cursor {
                at: next,
                started: true,
            };
            Ok(Step::More(read))
        }
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(Step::Last(read)),
        Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => Ok(Step::Grow),
        Err(e) => Err(e),
    }
}

#[repr(C)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct RunAttr {
    program: u32,
    result: u32,
    rest: [u64; 9],
}

/// Loads `instructions` as a raw tracepoint program, runs it once in the
/// calling task, and gives what it returns.
pub(super) fn run_once(name: &str, instructions: &[u64]) -> io::Result<u32> {
    let mut attr = LoadAttr {
        kind: PROG_TYPE_RAW_TRACEPOINT,
        count: u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log: [0; 2],
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
    };
    for (to, from) in attr.name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: `count` instructions are there, and the license is a C string.
    let program = unsafe { bpf_fd(PROG_LOAD, &mut attr)? };
    let mut attr = RunAttr {
        program: raw(program.as_fd()),
        ..RunAttr::default()
    };
    // SAFETY: no buffers are passed.
    unsafe { bpf(PROG_TEST_RUN, &mut attr)? };
    Ok(attr.result)
}

/// The `T` that `bytes` begin with; `None` if they are too few.
pub(super) fn from_bytes<T: Pod>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: enough bytes are there, any bytes are a `Pod`, and the read
    // needs no alignment.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// Something whose descriptor can be waited for.
pub(super) struct Watched<T>(pub(super) T);

impl<T: AsFd> AsRawFd for Watched<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

/// To wait for `inner` to become readable. Within a tokio runtime only.
pub(super) fn readable<T: AsFd>(inner: T) -> io::Result<AsyncFd<Watched<T>>> {
    // SAFETY: whoever can lend a descriptor owns it, so it stays open until
    // `inner`, which is moved in and never replaced, is dropped.
    let watched = unsafe { AsyncFd::register_with_interest(Watched(inner), Interest::READABLE) };
    Ok(watched?)
}
