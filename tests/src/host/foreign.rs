//! Somebody else's XDP program on an interface.

// Loading a program by hand takes the raw system call; the tests depend on no
// BPF library.
#![allow(unsafe_code)]

use std::{
    io,
    mem::size_of_val,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

use crate::netns::NetNs;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;

/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];

/// Attached as long as the value lives.
#[derive(Debug)]
pub struct ForeignXdp {
    _link: OwnedFd,
}

/// The start of `union bpf_attr` for BPF_PROG_LOAD (include/uapi/linux/bpf.h).
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The same for BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

impl ForeignXdp {
    /// Attaches a program called `name` that passes everything.
    pub fn attach(ns: &NetNs, interface: &str, name: &str) -> Result<Self> {
        let target_ifindex = ns.ifindex(interface)?;
        let link = ns.run(|| -> io::Result<OwnedFd> {
            let program = load(name)?;
            bpf(
                BPF_LINK_CREATE,
                &LinkCreate {
                    prog_fd: program.as_raw_fd().unsigned_abs(),
                    target_ifindex,
                    attach_type: BPF_XDP,
                    flags: 0,
                },
            )
        })?;
        let _link = link.with_context(|| format!("attach {name} to {interface}"))?;
        Ok(Self { _link })
    }
}

fn load(name: &str) -> io::Result<OwnedFd> {
    let mut prog_name = [0; 16];
    for (place, byte) in prog_name[..15].iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    bpf(
        BPF_PROG_LOAD,
        &ProgLoad {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: PASS.len() as u32,
            insns: PASS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: 0,
            prog_name,
        },
    )
}

/// A command that gives a descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size` bytes of attributes; pointers in them
    // are to statics. Both commands return a new descriptor or -1.
    let raw = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const *attributes,
            size_of_val(attributes),
        )
    };
    match i32::try_from(raw) {
        // SAFETY: a fresh descriptor nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
