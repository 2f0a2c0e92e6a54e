//! Which PID namespace is the host's: the one that ghostd runs in.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use agent_common::abi::TaskOffsets;

use super::{btf, error::SteerError, sys};

const OWN: &str = "/proc/self/ns/pid";
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Bits of the minor number in the kernel's own encoding of a device
/// (include/linux/kdev_t.h), which is not the one that `stat` gives.
const MINOR_BITS: u32 = 20;

/// What the tracepoint programs are told before they are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HostNamespace {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) level: u32,
    pub(super) offsets: TaskOffsets,
}

impl HostNamespace {
    pub(super) fn own() -> Result<Self, SteerError> {
        let file = fs::metadata(OWN).map_err(|e| SteerError::Read(Path::new(OWN).into(), e))?;
        let types = fs::read(BTF).map_err(|e| SteerError::Read(Path::new(BTF).into(), e))?;
        let offsets = btf::task_offsets(&types)?;
        Ok(Self {
            device: kernel_device(file.dev()),
            inode: file.ino(),
            level: own_level(&offsets).map_err(SteerError::PidLevel)?,
            offsets,
        })
    }
}

fn kernel_device(device: u64) -> u64 {
    u64::from(libc::major(device)) << MINOR_BITS | u64::from(libc::minor(device))
}

// Opcodes and registers of BPF (Documentation/bpf/standardization/instruction-set.rst).
const MOV: u8 = 0xbf;
const MOV_IMMEDIATE: u8 = 0xb7;
const ADD_IMMEDIATE: u8 = 0x07;
const LOAD_64: u8 = 0x79;
const LOAD_32: u8 = 0x61;
const STORE_64: u8 = 0x7a;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const GET_CURRENT_TASK: u32 = 35;
const PROBE_READ_KERNEL: u32 = 113;

const fn instruction(opcode: u8, to: u8, from: u8, offset: i16, immediate: u32) -> u64 {
    let [o0, o1] = offset.to_le_bytes();
    let i = immediate.to_le_bytes();
    u64::from_le_bytes([opcode, from << 4 | to, o0, o1, i[0], i[1], i[2], i[3]])
}

/// How deep the caller's PID namespace is nested. No system call and no file
/// tells a process in a nested namespace; `task->thread_pid->level` does.
fn own_level(offsets: &TaskOffsets) -> io::Result<u32> {
    let fetch = |bytes: u32, offset: u32| {
        [
            // r3 += offset; r1 = r10 - 8; r2 = bytes; call
            instruction(ADD_IMMEDIATE, 3, 0, 0, offset),
            instruction(MOV, 1, 10, 0, 0),
            instruction(ADD_IMMEDIATE, 1, 0, 0, (-8i32).cast_unsigned()),
            instruction(MOV_IMMEDIATE, 2, 0, 0, bytes),
            instruction(CALL, 0, 0, 0, PROBE_READ_KERNEL),
        ]
    };
    let mut program = vec![
        instruction(STORE_64, 10, 0, -8, 0),
        instruction(CALL, 0, 0, 0, GET_CURRENT_TASK),
        instruction(MOV, 3, 0, 0, 0),
    ];
    program.extend(fetch(8, offsets.task_thread_pid));
    program.push(instruction(LOAD_64, 3, 10, -8, 0));
    program.extend(fetch(4, offsets.pid_level));
    program.push(instruction(LOAD_32, 0, 10, -8, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    sys::run_once("gd_level", &program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_in_the_kernels_encoding() {
        assert_eq!(kernel_device(libc::makedev(0, 4)), 4);
        assert_eq!(kernel_device(libc::makedev(8, 300)), 8 << 20 | 300);
    }

    #[test]
    fn the_level_of_this_namespace_is_that_of_its_init() {
        if !crate::privilege::is_root("steer::namespace::the_level_of_this_namespace") {
            return;
        }
        let own = HostNamespace::own().unwrap();
        // The initial PID namespace has a fixed inode number (PROC_PID_INIT_INO)
        // and is the only one at level 0.
        assert_eq!(own.level == 0, own.inode == 0xefff_fffc);
    }
}
