//! The zero page: what a boot loader tells the kernel.
//!
//! Offsets are those of Documentation/arch/x86/zero-page.rst.

use agent_common::guest::{COMMAND_LINE, HIGH, INCARNATION, PAGE_BYTES, PAYLOAD};

use super::{acpi, kernel::HEADER, place::Initrd};
use crate::vmm::layout::Ram;

const BYTES: usize = PAGE_BYTES as usize;

const ACPI_ROOT: usize = 0x70;
const MAP_ENTRIES: usize = 0x1e8;
const LOADER: usize = 0x210;
const INITRD_ADDRESS: usize = 0x218;
const INITRD_BYTES: usize = 0x21c;
const LINE_ADDRESS: usize = 0x228;
const MAP: usize = 0x2d0;

const LOADER_UNKNOWN: u8 = 0xff;
const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// Where the memory begins that is not RAM on old machines.
pub(super) const BASE_END: u64 = 0xa_0000;

/// The page's bytes.
pub(super) fn bytes(header: &[u8], ram: Ram, initrd: Option<Initrd>) -> Vec<u8> {
    let mut page = Page(vec![0; BYTES]);
    page.put(HEADER, header);
    page.put(ACPI_ROOT, &acpi::ROOT.to_le_bytes());
    page.put(LOADER, &[LOADER_UNKNOWN]);
    page.put(LINE_ADDRESS, &low(COMMAND_LINE));
    if let Some(Initrd { address, bytes }) = initrd {
        page.put(INITRD_ADDRESS, &low(address));
        page.put(INITRD_BYTES, &low(bytes));
    }
    let map = map(ram);
    page.put(MAP_ENTRIES, &[u8::try_from(map.len()).unwrap_or_default()]);
    let map: Vec<u8> = map.iter().flat_map(Range::encode).collect();
    page.put(MAP, &map);
    page.0
}

/// All addresses below the devices fit.
fn low(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

struct Page(Vec<u8>);

impl Page {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let place = self.0.iter_mut().skip(at);
        place.zip(bytes).for_each(|(to, byte)| *to = *byte);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Range {
    from: u64,
    to: u64,
    kind: u32,
}

impl Range {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.from.to_le_bytes().to_vec();
        bytes.extend((self.to - self.from).to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes
    }
}

/// The page that we write to when the guest is activated is none of its RAM.
fn map(ram: Ram) -> Vec<Range> {
    let range = |from, to, kind| Range { from, to, kind };
    let after = INCARNATION + PAGE_BYTES;
    let mut map = vec![
        range(0, INCARNATION, RAM),
        range(INCARNATION, after, RESERVED),
        range(after, BASE_END, RAM),
        range(BASE_END, PAYLOAD, RESERVED),
        range(PAYLOAD, ram.low_bytes(), RAM),
    ];
    if ram.high_bytes() > 0 {
        map.push(range(HIGH, HIGH + ram.high_bytes(), RAM));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::{RAM, RESERVED, bytes, map};
    use crate::vmm::{layout::Ram, linux::place::Initrd};

    #[test]
    fn the_map_has_no_gap_and_no_overlap_below_the_end_of_low_memory() {
        let ram = Ram::of_mib(4096).unwrap();
        let map = map(ram);
        for pair in map[..5].windows(2) {
            assert_eq!(pair[0].to, pair[1].from);
        }
        assert_eq!((map[0].from, map[4].to), (0, 3 << 30));
        assert_eq!((map[5].from, map[5].to), (4 << 30, 5 << 30));
        let kinds: Vec<u32> = map.iter().map(|range| range.kind).collect();
        assert_eq!(kinds, [RAM, RESERVED, RAM, RESERVED, RAM, RAM]);
    }

    #[test]
    fn a_kernel_finds_what_it_is_told() {
        let initrd = Initrd {
            address: 0x1234_5000,
            bytes: 0x678,
        };
        let header = [1, 2, 3];
        let page = bytes(&header, Ram::of_mib(64).unwrap(), Some(initrd));
        assert_eq!(page.len(), 4096);
        assert_eq!(page[0x1f1..0x1f4], header);
        assert_eq!(page[0x1ef], 0, "the sentinel");
        assert_eq!(page[0x210], 0xff);
        assert_eq!(page[0x218..0x21c], 0x1234_5000_u32.to_le_bytes());
        assert_eq!(page[0x21c..0x220], 0x678_u32.to_le_bytes());
        assert_eq!(page[0x228..0x22c], 0x3000_u32.to_le_bytes());
        assert_eq!(page[0x1e8], 5);
        assert_eq!(page[0x2d0 + 8..0x2d0 + 16], 0x7000_u64.to_le_bytes());
    }
}
