//! Incremental Internet checksum (RFC 1624, equation 3).

/// A change to bytes that a checksum covers: the one's-complement sum of
/// `~old + new`, not folded.
///
/// 32-bit words may be added as they are: 2^16 is 1 modulo 2^16 - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    pub const NONE: Self = Self(0);

    #[inline(always)]
    #[must_use]
    pub const fn u16(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    #[inline(always)]
    #[must_use]
    pub const fn u32(self, old: u32, new: u32) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum field after the change, given the one before; both raw.
    ///
    /// `HC' = ~(~HC + ~m + m')`: the form that never turns a valid 0x0000
    /// into 0xffff (RFC 1624, section 3).
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, check: u16) -> u16 {
        !fold(self.0 + (!check) as u64)
    }
}

/// Folds a sum of 16- and 32-bit words to 16 bits with end-around carry.
#[inline(always)]
pub(super) const fn fold(sum: u64) -> u16 {
    let s = (sum & 0xffff_ffff) + (sum >> 32);
    let s = (s & 0xffff) + (s >> 16);
    let s = (s & 0xffff) + (s >> 16);
    let s = (s & 0xffff) + (s >> 16);
    s as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Full recomputation over 16-bit words, the slow way (RFC 1071).
    fn full(words: &[u16]) -> u16 {
        let mut sum = 0u32;
        for w in words {
            sum += u32::from(*w);
            if sum > 0xffff {
                sum = (sum & 0xffff) + 1;
            }
        }
        !(sum as u16)
    }

    #[test]
    fn incremental_equals_full_for_every_value_of_a_word() {
        // Every old value against a spread of new ones, with contexts that
        // bring the sum to both ends of its range.
        let rest = [[0x4500, 0x0001], [0xffff, 0x0000], [0x0000, 0x0001], [0x8000, 0x7fff]];
        for rest in rest {
            for old in 0..=u16::MAX {
                for new in [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff, !old, old, old.wrapping_add(1)] {
                    let before = full(&[old, rest[0], rest[1]]);
                    let after = full(&[new, rest[0], rest[1]]);
                    assert_eq!(Delta::NONE.u16(old, new).apply(before), after, "{old:#06x} -> {new:#06x}");
                }
            }
        }
    }

    #[test]
    fn every_checksum_field_survives_a_change_and_its_undoing() {
        for check in 0..=u16::MAX {
            let there = Delta::NONE.u32(0x0a00_0001, 0xc633_640a).apply(check);
            let back = Delta::NONE.u32(0xc633_640a, 0x0a00_0001).apply(there);
            // 0xffff and 0x0000 are the same number; a valid field over data
            // that is not all zero is never 0xffff.
            if check != 0xffff {
                assert_eq!(back, check);
            }
        }
    }

    #[test]
    fn words_of_32_bits_count_as_two_of_16() {
        for (old, new) in [(0u32, 1u32), (0xffff_ffff, 0), (0x1234_5678, 0x9abc_def0), (0, 0xffff_0000)] {
            let (o, n) = (old.to_ne_bytes(), new.to_ne_bytes());
            let halves = Delta::NONE
                .u16(u16::from_ne_bytes([o[0], o[1]]), u16::from_ne_bytes([n[0], n[1]]))
                .u16(u16::from_ne_bytes([o[2], o[3]]), u16::from_ne_bytes([n[2], n[3]]));
            for check in [0u16, 1, 0x7fff, 0x8000, 0xfffe] {
                assert_eq!(Delta::NONE.u32(old, new).apply(check), halves.apply(check));
            }
        }
    }
}
