//! Why a kernel or its initial file system cannot be used.

use crate::vmm::image::ImageError;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::vmm) enum KernelError {
    #[error("it is neither an ELF file nor a Linux kernel (bzImage)")]
    Unknown,
    #[error("it is a Linux kernel of boot protocol {major}.{minor:02}; 2.12 or later is needed")]
    Protocol { major: u8, minor: u8 },
    #[error("it is a Linux kernel without an entry point for 64-bit mode")]
    Not64,
    #[error("it is a Linux kernel that runs in low memory only")]
    Low,
    #[error("it is a truncated Linux kernel: {has} bytes of {wants}")]
    Truncated { has: u64, wants: u64 },
    #[error(
        "it is a Linux kernel that needs {bytes} bytes at {address:#x}; guest memory has {memory} bytes there"
    )]
    Outside {
        address: u64,
        bytes: u64,
        memory: u64,
    },
    #[error("it is an ELF file, but no kernel: {0}")]
    Elf(#[source] ImageError),
    #[error("the command line for the kernel has {bytes} bytes, at most {max} fit")]
    CommandLine { bytes: usize, max: usize },
    #[error("the command line for the kernel contains a zero byte")]
    Zero,
    #[error(
        "the initrd has {bytes} bytes, but there are only {free} between the kernel and the end of what it can read"
    )]
    Initrd { bytes: u64, free: u64 },
}
