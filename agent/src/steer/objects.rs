//! Kernel objects by descriptor and id: what they are, and XDP links.
//!
//! Owns: the info structs and link calls of bpf(2). Refuses: meaning; callers
//! name what failed.
//!
//! How it fails: the plain [`io::Error`] of the call.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    ptr,
};

use super::sys::{bpf, bpf_fd, not_found, raw};

const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const LINK_GET_NEXT_ID: libc::c_long = 31;
const LINK_DETACH: libc::c_long = 34;

const ATTACH_XDP: u32 = 37;

#[repr(C)]
struct InfoAttr {
    fd: u32,
    info_bytes: u32,
    info: u64,
}

/// `bpf_link_info.type` of an XDP link.
pub(super) const LINK_TYPE_XDP: u32 = 6;

/// `flags` of an XDP attachment (include/uapi/linux/if_link.h).
pub(super) const XDP_FLAGS_SKB_MODE: u32 = 2;
pub(super) const XDP_FLAGS_DRV_MODE: u32 = 4;

/// # Safety
///
/// `T` is a prefix of the info struct of the kind of object behind `fd`, and
/// any bytes are a `T`.
unsafe fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut attr = InfoAttr {
        fd: raw(fd),
        info_bytes: size_of::<T>() as u32,
        info: ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the kernel writes at most `info_bytes`.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(info)
}

/// The head of `struct bpf_map_info`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct MapInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) key_bytes: u32,
    pub(super) value_bytes: u32,
    pub(super) entries_max: u32,
    pub(super) flags: u32,
}

/// The head of `struct bpf_prog_info`, up to the name.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    pointers: [u64; 2],
    load_time: u64,
    created_by_uid: u32,
    map_count: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// The head of `struct bpf_link_info`; `ifindex` is that of an XDP link.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct LinkInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) program_id: u32,
    pad: u32,
    /// Zero when the interface is gone.
    pub(super) ifindex: u32,
    pad1: u32,
}

pub(super) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    // SAFETY: integers only, laid out as the kernel's struct begins.
    unsafe { info(map) }
}

pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: as for `map_info`.
    unsafe { info(link) }
}

/// Kernel id and name of a program.
pub(super) fn program_info(program: BorrowedFd<'_>) -> io::Result<(u32, String)> {
    // SAFETY: as for `map_info`; the pointers stay zero, so nothing is written through them.
    let info: ProgInfo = unsafe { info(program)? };
    let end = info.name.iter().position(|&b| b == 0);
    let name = &info.name[..end.unwrap_or(info.name.len())];
    Ok((info.id, String::from_utf8_lossy(name).into_owned()))
}

#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    flags: u32,
}

fn by_id(command: libc::c_long, id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr {
        id,
        next_id: 0,
        flags: 0,
    };
    // SAFETY: integers only; the call returns a descriptor.
    unsafe { bpf_fd(command, &mut attr) }
}

pub(super) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    by_id(PROG_GET_FD_BY_ID, id)
}

pub(super) fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    by_id(LINK_GET_FD_BY_ID, id)
}

/// The lowest id of a link above `id`.
pub(super) fn next_link(id: u32) -> io::Result<Option<u32>> {
    let mut attr = IdAttr {
        id,
        next_id: 0,
        flags: 0,
    };
    // SAFETY: integers only.
    match unsafe { bpf(LINK_GET_NEXT_ID, &mut attr) } {
        Ok(_) => Ok(Some(attr.next_id)),
        Err(e) => not_found(e),
    }
}

#[repr(C)]
struct LinkAttr {
    /// The program; for an update the link.
    first: u32,
    /// The interface; for an update the new program.
    second: u32,
    /// The attach type; for an update flags.
    third: u32,
    /// Flags; for an update the old program.
    fourth: u32,
}

/// Attaches by a link, and never by anything else: what is attached over
/// netlink cannot be pinned.
pub(super) fn link_create_xdp(
    program: BorrowedFd<'_>,
    ifindex: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkAttr {
        first: raw(program),
        second: ifindex,
        third: ATTACH_XDP,
        fourth: flags,
    };
    // SAFETY: integers only; the call returns a descriptor.
    unsafe { bpf_fd(LINK_CREATE, &mut attr) }
}

/// Puts another program behind a link: packets see the old one or the new one.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkAttr {
        first: raw(link),
        second: raw(program),
        third: 0,
        fourth: 0,
    };
    // SAFETY: integers only.
    unsafe { bpf(LINK_UPDATE, &mut attr).map(drop) }
}

pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = raw(link);
    // SAFETY: an integer only.
    unsafe { bpf(LINK_DETACH, &mut attr).map(drop) }
}
