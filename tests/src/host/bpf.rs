//! Two tiny BPF programs, loaded by hand: the tests depend on no BPF library,
//! and none of ghostd's.

// Loading a program by hand takes the raw system call.
#![allow(unsafe_code)]

use std::{
    io,
    mem::size_of_val,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

use crate::netns::NetNs;

/// Values of include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;

/// Where a program is attached.
#[derive(Debug, Clone, Copy)]
enum Hook {
    Xdp,
    /// Traffic control, on the way in (kernel 6.6 and later).
    TcxIngress,
}

impl Hook {
    /// Program type and attach type.
    const fn numbers(self) -> (u32, u32) {
        match self {
            Self::Xdp => (6, 37),
            Self::TcxIngress => (3, 46),
        }
    }
}

/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];

/// `r6 = r1; skb_vlan_pop(r1); r1 = r6; skb_vlan_pop(r1); r0 = TCX_PASS; exit`.
const POP_TWO_TAGS: [u64; 6] = [
    0x16bf,
    0x0000_0013_0000_0085,
    0x61bf,
    0x0000_0013_0000_0085,
    0xb7,
    0x95,
];

/// A program that is attached as long as the value lives.
#[derive(Debug)]
pub struct Attached {
    _link: OwnedFd,
}

/// Somebody else's XDP program, called `name`: it passes everything.
pub fn foreign_xdp(ns: &NetNs, interface: &str, name: &str) -> Result<Attached> {
    attach(ns, interface, name, Hook::Xdp, &PASS)
}

/// Takes up to two VLAN tags off what comes in, after XDP and before IP: what
/// VLAN devices do, on kernels that have none.
pub fn pop_vlan(ns: &NetNs, interface: &str) -> Result<Attached> {
    attach(ns, interface, "pop_vlan", Hook::TcxIngress, &POP_TWO_TAGS)
}

fn attach(ns: &NetNs, interface: &str, name: &str, hook: Hook, code: &[u64]) -> Result<Attached> {
    let target_ifindex = ns.ifindex(interface)?;
    let (prog_type, attach_type) = hook.numbers();
    let link = ns.run(|| -> io::Result<OwnedFd> {
        let program = load(prog_type, name, code)?;
        bpf(
            BPF_LINK_CREATE,
            &LinkCreate {
                prog_fd: program.as_raw_fd().unsigned_abs(),
                target_ifindex,
                attach_type,
                ..LinkCreate::default()
            },
        )
    })?;
    let _link = link.with_context(|| format!("attach {name} to {interface} in {}", ns.name()))?;
    Ok(Attached { _link })
}

/// The start of `union bpf_attr` for BPF_PROG_LOAD.
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
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    pad: u32,
    expected_revision: u64,
}

fn load(prog_type: u32, name: &str, code: &[u64]) -> io::Result<OwnedFd> {
    let mut prog_name = [0; 16];
    for (place, byte) in prog_name[..15].iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    bpf(
        BPF_PROG_LOAD,
        &ProgLoad {
            prog_type,
            insn_cnt: code.len() as u32,
            insns: code.as_ptr() as u64,
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
    // are to live slices and statics. Both commands return a new descriptor or -1.
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
