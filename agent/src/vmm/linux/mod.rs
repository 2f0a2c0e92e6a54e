//! Linux as a guest: which kernels are accepted, and what they find in memory.
//!
//! Owns: the 64-bit boot protocol (Documentation/arch/x86/boot.rst), the
//! machine's description for the kernel (ACPI 6.5, hardware-reduced), and the
//! interrupt controllers that it needs. Refuses: reading files, and devices.
//! A kernel runs in ring 0, takes interrupts and may wait for them, which a
//! payload does not; everything else about a guest is the same for both.

mod acpi;
mod chips;
mod entry;
mod error;
mod kernel;
mod place;
mod zero_page;

pub(super) use acpi::{DEVICE_LINE, NEWS_LINE, SERIAL_LINE};
pub(super) use chips::{ChipState, line, make as make_chips};
pub(super) use entry::{features, registers, system_registers};
pub(super) use error::KernelError;
pub(super) use kernel::{Kernel, is_kernel, parse};
pub(super) use place::{Initrd, pages};
