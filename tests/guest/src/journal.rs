//! The journal: every mutation ever, as text with a running hash.
//!
//! A record is a line, `key value hash`: the value after the mutation, and the
//! running hash in 16 hexadecimal digits. The hash is FNV-1a with 64 bits
//! (Fowler, Noll, Vo) over `key value\n` of all mutations so far, one after
//! the other. It is a record's checksum too: a record that is damaged, half
//! written, or left over from another past does not continue the hash.

use core::fmt::Write as _;

use crate::{
    pattern::Hash,
    request::{KEY_BYTES_MAX, Key, Text, VALUE_BYTES_MAX, Value},
};

/// Where a disk's journal begins; the line before says what it is.
pub const HEADER: &[u8; 20] = b"ghost-guest journal\n";

const HASH_DIGITS: usize = 16;
pub const RECORD_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + HASH_DIGITS + 3;

/// All mutations so far: how many, and their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Journal {
    pub count: u64,
    hash: Hash,
}

impl Journal {
    pub const NEW: Self = Self {
        count: 0,
        hash: Hash::NEW,
    };

    #[must_use]
    pub fn with(self, key: Key<'_>, value: Value<'_>) -> Self {
        let hash = self.hash.with_bytes(key.text().as_bytes()).with_bytes(b" ");
        Self {
            count: self.count + 1,
            hash: hash.with_bytes(value.text().as_bytes()).with_bytes(b"\n"),
        }
    }

    pub fn hash(self) -> u64 {
        self.hash.value()
    }
}

/// The record of a mutation, given the journal that ends with it.
pub fn encode(after: Journal, key: Key<'_>, value: Value<'_>) -> Text<RECORD_BYTES_MAX> {
    let mut text = Text::new();
    // It has room for the longest.
    let _ = writeln!(
        text,
        "{} {} {:016x}",
        key.text(),
        value.text(),
        after.hash()
    );
    text
}

/// A record as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub key: Key<'a>,
    pub value: Value<'a>,
    /// The journal that ends with it.
    pub after: Journal,
    pub bytes: usize,
}

/// The record at the beginning of this text, if it continues the journal.
pub fn decode(before: Journal, text: &[u8]) -> Option<Record<'_>> {
    let text = text.get(..RECORD_BYTES_MAX).unwrap_or(text);
    let end = text.iter().position(|&byte| byte == b'\n')?;
    let line = core::str::from_utf8(text.get(..end)?).ok()?;
    let mut words = line.split(' ');
    let key = Key::new(words.next()?)?;
    let value = Value::new(words.next()?)?;
    let hash = words.next()?;
    let after = before.with(key, value);
    // As we write it, and not as it could be written too.
    let is_whole = words.next().is_none()
        && encode(after, key, value).bytes() == text.get(..=end)?
        && hash.len() == HASH_DIGITS;
    is_whole.then_some(Record {
        key,
        value,
        after,
        bytes: end + 1,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Journal, RECORD_BYTES_MAX, decode, encode};
    use crate::request::{Key, Value};

    fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
        proptest::collection::vec(("[!-~]{1,64}", "[!-~]{1,192}"), 1..12)
    }

    fn write(mut journal: Journal, pairs: &[(String, String)]) -> Vec<u8> {
        let mut text = Vec::new();
        for (key, value) in pairs {
            let (key, value) = (Key::new(key).unwrap(), Value::new(value).unwrap());
            journal = journal.with(key, value);
            text.extend(encode(journal, key, value).bytes());
        }
        text
    }

    fn read(mut text: &[u8]) -> Vec<(String, String)> {
        let mut journal = Journal::NEW;
        let mut pairs = Vec::new();
        while let Some(record) = decode(journal, text) {
            pairs.push((record.key.text().to_owned(), record.value.text().to_owned()));
            journal = record.after;
            text = &text[record.bytes..];
        }
        assert_eq!(journal.count, pairs.len() as u64);
        pairs
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // Published test vector: the hash of "foobar" is 85944171f73967e8. Ours
        // has a blank and an end of line, computed from the definition here.
        let fnv = |text: &[u8]| {
            text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
        };
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
        let (key, value) = (Key::new("a").unwrap(), Value::new("1").unwrap());
        let journal = Journal::NEW.with(key, value).with(key, value);
        assert_eq!(journal.hash(), fnv(b"a 1\na 1\n"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(pairs in pairs()) {
            let text = write(Journal::NEW, &pairs);
            prop_assert!(text.len() <= pairs.len() * RECORD_BYTES_MAX);
            prop_assert_eq!(read(&text), pairs);
        }

        /// A crash leaves the beginning of what was to be written, and behind
        /// it zeros, noise, or records of another past.
        #[test]
        fn a_crash_at_any_byte_leaves_a_prefix(
            pairs in pairs(), other in pairs(), at in any::<prop::sample::Index>(), kind in 0..3,
        ) {
            let text = write(Journal::NEW, &pairs);
            let cut = at.index(text.len());
            let kept = text[..cut].iter().filter(|&&byte| byte == b'\n').count();
            let mut disk = text[..cut].to_vec();
            match kind {
                0 => disk.extend([0; 512]),
                1 => disk.extend([0xa5; 512]),
                _ => disk.extend(write(Journal::NEW.with(
                    Key::new("x").unwrap(), Value::new("y").unwrap()), &other)),
            }
            prop_assert_eq!(read(&disk), pairs[..kept].to_vec());
        }

        #[test]
        fn a_damaged_byte_ends_it_there(
            pairs in pairs(), at in any::<prop::sample::Index>(), flip in 1..=255_u8,
        ) {
            let mut text = write(Journal::NEW, &pairs);
            let hit = at.index(text.len());
            let before = text[..hit].iter().filter(|&&byte| byte == b'\n').count();
            text[hit] ^= flip;
            prop_assert_eq!(read(&text), pairs[..before].to_vec());
        }

        #[test]
        fn noise_is_no_record(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(decode(Journal::NEW, &noise), None);
        }
    }
}
