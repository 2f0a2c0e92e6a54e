//! Where guest memory lies.

use agent_common::guest;

/// Guests smaller than this have no room for a payload.
pub(super) const MEMORY_MIB_MIN: u64 = 4;
/// Page tables for more would not fit where they have to.
pub(super) const MEMORY_MIB_MAX: u64 = 64 * 1024;

const MIB: u64 = 1 << 20;

/// Guest RAM: from zero on, and what does not fit below the devices, from 4 GiB on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ram {
    low_bytes: u64,
    high_bytes: u64,
}

/// A piece of RAM, and where it is in the file that holds guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) address: u64,
    pub(super) bytes: u64,
    pub(super) file_offset: u64,
}

impl Ram {
    /// `None` if the size is out of bounds, or no multiple of a large page.
    pub(super) fn of_mib(mib: u64) -> Option<Self> {
        if !(MEMORY_MIB_MIN..=MEMORY_MIB_MAX).contains(&mib) {
            return None;
        }
        let bytes = mib * MIB;
        let low_bytes = bytes.min(guest::LOW_END);
        bytes
            .is_multiple_of(guest::LARGE_PAGE_BYTES)
            .then_some(Self {
                low_bytes,
                high_bytes: bytes - low_bytes,
            })
    }

    pub(super) fn bytes(self) -> u64 {
        self.low_bytes + self.high_bytes
    }

    pub(super) fn low_bytes(self) -> u64 {
        self.low_bytes
    }

    pub(super) fn high_bytes(self) -> u64 {
        self.high_bytes
    }

    pub(super) fn regions(self) -> impl Iterator<Item = Region> {
        let low = Region {
            address: 0,
            bytes: self.low_bytes,
            file_offset: 0,
        };
        let high = Region {
            address: guest::HIGH,
            bytes: self.high_bytes,
            file_offset: self.low_bytes,
        };
        [low, high].into_iter().filter(|region| region.bytes > 0)
    }

    /// Whether these bytes are RAM that belongs to the payload.
    pub(super) fn is_for_payload(self, address: u64, bytes: u64) -> bool {
        let Some(end) = address.checked_add(bytes) else {
            return false;
        };
        self.regions().any(|region| {
            let start = region.address.max(guest::PAYLOAD);
            address >= start && end <= region.address + region.bytes
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Ram, Region};

    #[test]
    fn sizes_are_bounded_and_even() {
        for bad in [0, 2, 5, 65_538, u64::MAX] {
            assert_eq!(Ram::of_mib(bad), None, "{bad}");
        }
        assert_eq!(Ram::of_mib(4).unwrap().bytes(), 4 << 20);
    }

    #[test]
    fn what_is_above_three_gib_moves_up() {
        let ram = Ram::of_mib(4096).unwrap();
        let regions: Vec<Region> = ram.regions().collect();
        assert_eq!(regions[1].address, 4 << 30);
        assert_eq!(regions[1].file_offset, 3 << 30);
        assert_eq!(regions[1].bytes, 1 << 30);
        assert_eq!(Ram::of_mib(3072).unwrap().regions().count(), 1);
    }

    #[test]
    fn a_payload_has_ram_but_not_what_the_vmm_put_there() {
        let ram = Ram::of_mib(4096).unwrap();
        assert!(ram.is_for_payload(0x10_0000, 4096));
        assert!(!ram.is_for_payload(0xf_ffff, 4096));
        assert!(!ram.is_for_payload((3 << 30) - 1, 2));
        assert!(ram.is_for_payload(4 << 30, 1 << 30));
        assert!(!ram.is_for_payload(4 << 30, (1 << 30) + 1));
        assert!(!ram.is_for_payload(u64::MAX, 2));
    }
}
