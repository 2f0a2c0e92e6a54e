//! Page tables and segment descriptors of a payload.
//!
//! Guest addresses are mapped to themselves. A payload runs at CPL 3, so what
//! it may touch has the user bit. Page 0 is not mapped, so that a stray null
//! pointer ends the guest; the tables themselves are out of its reach.

use agent_common::guest::{
    BOOT, COMMAND_LINE, DEVICES, GDT, HIGH, INCARNATION, LARGE_PAGE_BYTES, PAGE_BYTES, STACKS,
    TABLES, TABLES_END, TASK, TASK_BYTES,
};

use super::layout::Ram;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;

const ENTRIES: u64 = 512;
const GIB: u64 = 1 << 30;

const DIRECTORY_POINTERS: u64 = TABLES + PAGE_BYTES;
/// Small pages for the first large one.
const FIRST: u64 = TABLES + 2 * PAGE_BYTES;
/// One directory for each GiB.
const DIRECTORIES: u64 = TABLES + 3 * PAGE_BYTES;

const _: () =
    assert!(DIRECTORIES + (super::layout::MEMORY_MIB_MAX / 1024 + 1) * PAGE_BYTES <= TABLES_END);
const _: () = assert!(super::layout::MEMORY_MIB_MAX / 1024 < ENTRIES);

/// Where the processor starts its walk.
pub(super) const ROOT: u64 = TABLES;

/// The tables' bytes, to be written at [`TABLES`].
pub(super) fn page_tables(ram: Ram) -> Vec<u8> {
    let gibs = if ram.high_bytes() == 0 {
        HIGH / GIB
    } else {
        (HIGH + ram.high_bytes()).div_ceil(GIB)
    };
    let mut entries = Vec::new();
    entries.extend(table([DIRECTORY_POINTERS | PRESENT | WRITE | USER]));
    entries.extend(table(
        (0..gibs).map(|gib| (DIRECTORIES + gib * PAGE_BYTES) | PRESENT | WRITE | USER),
    ));
    entries.extend(table((0..ENTRIES).map(|page| small(page * PAGE_BYTES))));
    for large in 0..gibs * ENTRIES {
        entries.push(self::large(large * LARGE_PAGE_BYTES, ram));
    }
    entries.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn table(entries: impl IntoIterator<Item = u64>) -> impl Iterator<Item = u64> {
    let zeros = std::iter::repeat(0);
    entries.into_iter().chain(zeros).take(ENTRIES as usize)
}

const TASK_END: u64 = TASK + TASK_BYTES as u64;

fn small(address: u64) -> u64 {
    match address {
        0 => 0,
        BOOT | COMMAND_LINE | INCARNATION => address | PRESENT | USER,
        GDT => address | PRESENT | WRITE,
        TASK..TASK_END => address | PRESENT | WRITE,
        address if address < STACKS => 0,
        address => address | PRESENT | WRITE | USER,
    }
}

fn large(address: u64, ram: Ram) -> u64 {
    let is_low = address < ram.low_bytes();
    let is_high = address >= HIGH && address - HIGH < ram.high_bytes();
    if address == 0 {
        FIRST | PRESENT | WRITE | USER
    } else if is_low || is_high {
        address | PRESENT | WRITE | USER | LARGE
    } else if (DEVICES..HIGH).contains(&address) {
        address | PRESENT | WRITE | USER | LARGE | WRITE_THROUGH | CACHE_DISABLE
    } else {
        0
    }
}

/// Code at CPL 3: index 3, so selector 0x1b.
pub(super) const CODE_SELECTOR: u16 = 0x1b;
/// Data and stack at CPL 3: index 4, so selector 0x23.
pub(super) const DATA_SELECTOR: u16 = 0x23;

/// The task segment, whose descriptor takes two places.
pub(super) const TASK_SELECTOR: u16 = 0x28;

/// 64-bit code: present, DPL 3, execute and read, accessed.
const CODE: u64 = 0x00af_fb00_0000_ffff;
/// Data: present, DPL 3, read and write, accessed.
const DATA: u64 = 0x00cf_f300_0000_ffff;

/// Bytes of the task segment less one, as descriptors take it.
pub(super) const TASK_LIMIT: u32 = TASK_BYTES as u32 - 1;
/// Busy 64-bit task segment: present, DPL 0. Base and limit are small.
const TASK_LOW: u64 = 0x0000_8b00_0000_0000 | (TASK << 16) | TASK_LIMIT as u64;

const _: () = assert!(TASK <= 0xffff && TASK_LIMIT <= 0xffff);

const DESCRIPTORS: [u64; 7] = [0, 0, 0, CODE, DATA, TASK_LOW, 0];

/// Bytes of the descriptor table less one, as the register takes it.
pub(super) const GDT_LIMIT: u16 = size_of_val(&DESCRIPTORS) as u16 - 1;

/// The descriptor table's bytes, to be written at [`GDT`].
pub(super) fn descriptors() -> Vec<u8> {
    DESCRIPTORS.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// The task segment's bytes, to be written at [`TASK`]: all ports are allowed.
///
/// IOPL 3 says the same, but a KVM without VMX and SVM loses it when the guest
/// runs natively, and then looks here.
pub(super) fn task() -> Vec<u8> {
    const MAP_OFFSET: usize = 102;
    const MAP: u16 = 104;
    let mut task = vec![0; TASK_BYTES];
    let offset = task.iter_mut().skip(MAP_OFFSET);
    for (to, byte) in offset.zip(MAP.to_le_bytes()) {
        *to = byte;
    }
    if let Some(end) = task.last_mut() {
        *end = 0xff;
    }
    task
}

#[cfg(test)]
mod tests {
    use agent_common::guest::{
        BOOT, DEVICES, GDT, HIGH, INCARNATION, PAYLOAD, STACKS, TABLES, TABLES_END, TASK,
    };

    use super::{PRESENT, TASK_END, USER, WRITE, page_tables, task};
    use crate::vmm::layout::Ram;

    /// A walk as the processor does it: the physical address and the rights.
    fn walk(tables: &[u8], address: u64) -> Option<(u64, u64)> {
        let entry = |table: u64, index: u64| {
            let at = (table - TABLES + index * 8) as usize;
            let entry = u64::from_le_bytes(tables[at..at + 8].try_into().unwrap());
            (entry & PRESENT != 0).then_some(entry)
        };
        let base = |entry: u64| entry & 0x000f_ffff_ffff_f000;
        let index = |shift: u32| (address >> shift) & 511;
        let mut rights = WRITE | USER;
        let pml4 = entry(TABLES, index(39))?;
        let pdpt = entry(base(pml4), index(30))?;
        let pd = entry(base(pdpt), index(21))?;
        rights &= pml4 & pdpt & pd;
        if pd & (1 << 7) != 0 {
            return Some((base(pd) + (address & 0x1f_ffff), rights));
        }
        let pt = entry(base(pd), index(12))?;
        Some((base(pt) + (address & 0xfff), rights & pt))
    }

    #[test]
    fn each_port_is_allowed() {
        let task = task();
        let map = usize::from(u16::from_le_bytes([task[102], task[103]]));
        for port in 0..=usize::from(u16::MAX) {
            // The processor reads two bytes, whichever port it is.
            assert!(map + port / 8 + 1 < task.len());
            assert_eq!(task[map + port / 8] & (1 << (port % 8)), 0, "{port}");
        }
        assert_eq!(task.last(), Some(&0xff));
    }

    #[test]
    fn everything_is_mapped_to_itself_with_the_rights_it_needs() {
        for mib in [4, 64, 3072, 4096, 65_536] {
            let ram = Ram::of_mib(mib).unwrap();
            let tables = page_tables(ram);
            assert!(tables.len() as u64 <= TABLES_END - TABLES);
            let all = WRITE | USER;
            assert_eq!(walk(&tables, 0), None);
            assert_eq!(walk(&tables, GDT), Some((GDT, WRITE)));
            assert_eq!(walk(&tables, TASK), Some((TASK, WRITE)));
            assert_eq!(walk(&tables, TASK_END), Some((TASK_END, WRITE)));
            assert_eq!(walk(&tables, INCARNATION), Some((INCARNATION, USER)));
            assert_eq!(walk(&tables, INCARNATION + 4096), None);
            assert_eq!(walk(&tables, BOOT), Some((BOOT, USER)));
            assert_eq!(walk(&tables, TABLES), None);
            let last = ram.low_bytes() - 1;
            for address in [
                STACKS,
                PAYLOAD,
                0x1f_ffff,
                0x20_0000,
                last,
                DEVICES,
                HIGH - 1,
            ] {
                assert_eq!(walk(&tables, address), Some((address, all)), "{address:#x}");
            }
            let end = HIGH + ram.high_bytes();
            if ram.high_bytes() > 0 {
                assert_eq!(walk(&tables, end - 1), Some((end - 1, all)));
            }
            if ram.low_bytes() < DEVICES {
                assert_eq!(walk(&tables, last + 1), None);
            }
        }
    }
}
