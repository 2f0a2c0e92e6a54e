//! The registers with which the first vCPU enters a kernel: long mode, ring 0.

use agent_common::guest::{
    BOOT, GDT, LARGE_PAGE_BYTES, PAGE_BYTES, PORT_KEYBOARD, RESET_KEYBOARD, TABLES,
};
use kvm_bindings::{CpuId, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

/// Protected mode and paging; the bit of a coprocessor is always set.
const CR0: u64 = 0x8000_0011;
/// Physical address extension.
const CR4: u64 = 0x20;
/// Long mode, enabled and active.
const EFER: u64 = 0x500;
/// The reserved bit that is always set; interrupts are off.
const RFLAGS: u64 = 2;

const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const CODE_TYPE: u8 = 0xb;
const DATA_TYPE: u8 = 0x3;

/// 64-bit code, and data: present, DPL 0.
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

const PRESENT_WRITE: u64 = 3;
const LARGE: u64 = 1 << 7;
const ENTRIES: u64 = 512;

const LEAF_FEATURES: u32 = 1;
/// The local APIC's timer counts by the time stamp counter. KVM has it if it
/// has a local APIC, but does not say so.
const TSC_DEADLINE: u32 = 1 << 24;
/// A hypervisor is there; its leaves say which.
const HYPERVISOR: u32 = 1 << 31;

/// Where a processor without firmware would begin: real mode, ffff:0000.
pub(super) const RESET_VECTOR: u64 = 0xf_fff0;

/// A kernel that finds hardware-reduced ACPI and no EFI restarts by jumping to
/// the reset vector: `mov al, 0xfe; out 0x64, al; hlt`.
pub(super) const FIRMWARE: [u8; 5] = [
    0xb0,
    RESET_KEYBOARD,
    0xe6,
    PORT_KEYBOARD.to_le_bytes()[0],
    0xf4,
];

/// The descriptor table's bytes, to be written at [`GDT`].
pub(super) fn descriptors() -> Vec<u8> {
    DESCRIPTORS.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// The first GiB, mapped to itself; bytes to be written at [`TABLES`].
pub(super) fn page_tables() -> Vec<u8> {
    let next = |level: u64| (TABLES + level * PAGE_BYTES) | PRESENT_WRITE;
    let one = |entry: u64| std::iter::once(entry).chain(std::iter::repeat_n(0, 511));
    let pages = (0..ENTRIES).map(|page| (page * LARGE_PAGE_BYTES) | PRESENT_WRITE | LARGE);
    let entries = one(next(1)).chain(one(next(2))).chain(pages);
    entries.flat_map(u64::to_le_bytes).collect()
}

pub(in crate::vmm) fn registers(entry: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rsi: BOOT,
        rflags: RFLAGS,
        ..kvm_regs::default()
    }
}

/// Changes what a new vCPU has.
pub(in crate::vmm) fn system_registers(fresh: kvm_sregs) -> kvm_sregs {
    let data = segment(DATA_SELECTOR, DATA_TYPE);
    let code = kvm_segment {
        l: 1,
        db: 0,
        ..segment(CODE_SELECTOR, CODE_TYPE)
    };
    kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        gdt: kvm_dtable {
            base: GDT,
            limit: size_of_val(&DESCRIPTORS) as u16 - 1,
            ..kvm_dtable::default()
        },
        cr0: CR0,
        cr3: TABLES,
        cr4: CR4,
        efer: EFER,
        ..fresh
    }
}

fn segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    }
}

/// Adds what a kernel is to know of a processor with an interrupt controller.
pub(in crate::vmm) fn features(features: &mut CpuId) {
    for entry in features.as_mut_slice() {
        if entry.function == LEAF_FEATURES {
            entry.ecx |= TSC_DEADLINE | HYPERVISOR;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{descriptors, page_tables};

    #[test]
    fn tables_lead_to_the_first_gib() {
        let tables = page_tables();
        let entry = |at: usize| u64::from_le_bytes(tables[at * 8..at * 8 + 8].try_into().unwrap());
        assert_eq!(tables.len(), 3 * 4096);
        assert_eq!((entry(0), entry(1)), (0x1_1003, 0));
        assert_eq!((entry(512), entry(513)), (0x1_2003, 0));
        assert_eq!((entry(1024), entry(1535)), (0x83, (511 << 21) | 0x83));
        assert_eq!(descriptors().len(), 32);
    }
}
