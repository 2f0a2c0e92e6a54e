//! What lies where in the memory of a Linux guest.

use agent_common::guest::{
    BOOT, COMMAND_LINE, COMMAND_LINE_BYTES_MAX, Device, GDT, PAGE_BYTES, TABLES,
};

use super::{acpi, entry, error::KernelError, kernel::Kernel, zero_page};
use crate::vmm::layout::Ram;

/// An initial file system in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vmm) struct Initrd {
    pub(in crate::vmm) address: u64,
    pub(in crate::vmm) bytes: u64,
}

impl Initrd {
    /// As high as the kernel can read it, away from what it unpacks itself to.
    pub(in crate::vmm) fn place(
        bytes: u64,
        kernel: &Kernel<'_>,
        ram: Ram,
    ) -> Result<Self, KernelError> {
        let end = ram.low_bytes().min(kernel.initrd_last.saturating_add(1));
        let free = end.saturating_sub(kernel.end);
        let start = end
            .checked_sub(bytes)
            .map(|start| start / PAGE_BYTES * PAGE_BYTES);
        match start {
            Some(address) if address >= kernel.end => Ok(Self { address, bytes }),
            _ => Err(KernelError::Initrd { bytes, free }),
        }
    }
}

/// What is written before a kernel starts, and where, beside itself.
pub(in crate::vmm) fn pages(
    kernel: &Kernel<'_>,
    ram: Ram,
    cpus: u8,
    line: &str,
    initrd: Option<Initrd>,
    devices: &[Device],
) -> Result<Vec<(u64, Vec<u8>)>, KernelError> {
    let max = kernel.line_bytes_max.min(COMMAND_LINE_BYTES_MAX - 1);
    if line.len() > max {
        let bytes = line.len();
        return Err(KernelError::CommandLine { bytes, max });
    }
    if line.contains('\0') {
        return Err(KernelError::Zero);
    }
    let mut text = line.as_bytes().to_vec();
    text.push(0);
    let mut pages = vec![
        (GDT, entry::descriptors()),
        (BOOT, zero_page::bytes(&kernel.header, ram, initrd)),
        (COMMAND_LINE, text),
        (TABLES, entry::page_tables()),
        (entry::RESET_VECTOR, entry::FIRMWARE.to_vec()),
    ];
    pages.extend(acpi::tables(cpus, devices));
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::{Initrd, Kernel, KernelError, pages};
    use crate::vmm::layout::Ram;

    const MIB: u64 = 1 << 20;

    fn kernel() -> Kernel<'static> {
        Kernel {
            entry: 16 * MIB,
            segments: Vec::new(),
            end: 32 * MIB,
            header: Vec::new(),
            line_bytes_max: 10,
            initrd_last: 48 * MIB - 1,
        }
    }

    #[test]
    fn an_initrd_lies_between_the_kernel_and_what_it_can_read() {
        let ram = Ram::of_mib(64).unwrap();
        let place = |bytes| Initrd::place(bytes, &kernel(), ram);
        assert_eq!(place(5000).unwrap().address, 48 * MIB - 8192);
        assert_eq!(place(16 * MIB).unwrap().address, 32 * MIB);
        let free = 16 * MIB;
        for bytes in [free + 1, u64::MAX] {
            assert_eq!(place(bytes), Err(KernelError::Initrd { bytes, free }));
        }
        let small = Ram::of_mib(16).unwrap();
        assert!(Initrd::place(1, &kernel(), small).is_err());
    }

    #[test]
    fn a_line_that_does_not_fit_is_refused() {
        let ram = Ram::of_mib(64).unwrap();
        let pages = |line| pages(&kernel(), ram, 1, line, None, &[]);
        assert!(pages("0123456789").is_ok());
        assert_eq!(
            pages("0123456789a").unwrap_err().to_string(),
            "the command line for the kernel has 11 bytes, at most 10 fit"
        );
        assert_eq!(pages("a\0b"), Err(KernelError::Zero));
    }
}
