//! Bytes that depend on a seed and on where they are, and where that is.

use agent_common::guest::{CPUS_MAX, PAGE_BYTES};

/// The pattern begins here, far above the payload itself.
pub const PATTERN: u64 = 0x20_0000;

/// vCPUs other than the first, and those that spin, count here: a page each.
pub const COUNTERS: u64 = PATTERN - CPUS_MAX as u64 * PAGE_BYTES;

/// The last bytes of the RAM below the devices, where the service keeps its state.
pub const SERVICE_BYTES: u64 = 2 << 20;

/// The 64-bit word at this index. Neighbours and seeds differ in many bits
/// (the finalizer of SplitMix64: Steele, Lea, Flood, "Fast splittable
/// pseudorandom number generators", 2014).
pub const fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A running hash (FNV-1a with 64 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash(u64);

impl Hash {
    pub const NEW: Self = Self(0xcbf2_9ce4_8422_2325);

    /// One word at once, which is quicker and as good for what we compare.
    #[must_use]
    pub const fn with(self, word: u64) -> Self {
        Self((self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3))
    }

    /// FNV-1a as it was published, by bytes.
    #[must_use]
    pub fn with_bytes(self, bytes: &[u8]) -> Self {
        let word = bytes.iter().copied().map(u64::from);
        word.fold(self, Self::with)
    }

    pub const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Hash, word};

    #[test]
    fn words_are_those_of_splitmix64() {
        // The first three numbers of the generator with seed 1234567, as published with it.
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        for (index, expected) in (0..).zip(published) {
            assert_eq!(word(1_234_567, index), expected);
        }
    }

    #[test]
    fn a_hash_sees_order() {
        let ab = Hash::NEW.with(1).with(2);
        let ba = Hash::NEW.with(2).with(1);
        assert_ne!(ab, ba);
    }
}
