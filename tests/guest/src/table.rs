//! Keys and values in a table of fixed size, which nothing leaves.

use crate::{
    pattern::Hash,
    request::{KEY_BYTES_MAX, Key, VALUE_BYTES_MAX, Value},
};

/// Places; a power of two.
pub const SLOTS: usize = 4096;
/// More would make searches long.
pub const KEYS_MAX: usize = SLOTS / 4 * 3;

/// A place. All zeros is a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    key_bytes: u8,
    value_bytes: u8,
    key: [u8; KEY_BYTES_MAX],
    value: [u8; VALUE_BYTES_MAX],
}

impl Slot {
    pub const FREE: Self = Self {
        key_bytes: 0,
        value_bytes: 0,
        key: [0; KEY_BYTES_MAX],
        value: [0; VALUE_BYTES_MAX],
    };

    fn key(&self) -> &[u8] {
        let bytes = usize::from(self.key_bytes);
        self.key.get(..bytes).unwrap_or_default()
    }

    fn value(&self) -> &str {
        let bytes = usize::from(self.value_bytes);
        let value = self.value.get(..bytes).unwrap_or_default();
        // Only text comes in.
        core::str::from_utf8(value).unwrap_or_default()
    }
}

#[derive(Debug)]
pub struct Table<'a> {
    slots: &'a mut [Slot; SLOTS],
    keys: usize,
}

/// There is no room for another key.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl<'a> Table<'a> {
    /// Of slots that are all free.
    pub fn new(slots: &'a mut [Slot; SLOTS]) -> Self {
        Self { slots, keys: 0 }
    }

    pub fn keys(&self) -> usize {
        self.keys
    }

    pub fn get(&self, key: Key<'_>) -> Option<&str> {
        let slot = self.slots.get(self.place(key))?;
        (slot.key_bytes > 0).then(|| slot.value())
    }

    /// Whether [`Self::put`] would be refused.
    pub fn has_room_for(&self, key: Key<'_>) -> bool {
        self.keys < KEYS_MAX || self.get(key).is_some()
    }

    pub fn put(&mut self, key: Key<'_>, value: Value<'_>) -> Result<(), Full> {
        if !self.has_room_for(key) {
            return Err(Full);
        }
        let place = self.place(key);
        let slot = self.slots.get_mut(place).ok_or(Full)?;
        self.keys += usize::from(slot.key_bytes == 0);
        slot.key_bytes = fill(&mut slot.key, key.text());
        slot.value_bytes = fill(&mut slot.value, value.text());
        Ok(())
    }

    /// Where the key is, or where it would be. There is always a free slot.
    fn place(&self, key: Key<'_>) -> usize {
        let start = Hash::NEW.with_bytes(key.text().as_bytes()).value() as usize;
        let places = (0..SLOTS).map(|step| start.wrapping_add(step) % SLOTS);
        let mut fitting = places.filter(|&place| {
            self.slots
                .get(place)
                .is_none_or(|slot| slot.key_bytes == 0 || slot.key() == key.text().as_bytes())
        });
        fitting.next().unwrap_or(SLOTS)
    }
}

/// Bytes that were copied, which all fit.
fn fill(to: &mut [u8], text: &str) -> u8 {
    let mut bytes = 0;
    for (to, byte) in to.iter_mut().zip(text.bytes()) {
        *to = byte;
        bytes += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{Full, KEYS_MAX, SLOTS, Slot, Table};
    use crate::request::{Key, Value};

    fn slots() -> Box<[Slot; SLOTS]> {
        vec![Slot::FREE; SLOTS].try_into().unwrap()
    }

    proptest! {
        #[test]
        fn it_is_a_map(puts in proptest::collection::vec(("[a-c]{1,3}", "[!-~]{1,192}"), 0..200)) {
            let mut slots = slots();
            let mut table = Table::new(&mut slots);
            let mut map = BTreeMap::new();
            for (key, value) in &puts {
                table.put(Key::new(key).unwrap(), Value::new(value).unwrap()).unwrap();
                map.insert(key, value.as_str());
            }
            prop_assert_eq!(table.keys(), map.len());
            for (key, value) in map {
                prop_assert_eq!(table.get(Key::new(key).unwrap()), Some(value));
            }
            prop_assert_eq!(table.get(Key::new("d").unwrap()), None);
        }
    }

    #[test]
    fn a_full_table_takes_new_values_but_no_new_key() {
        let mut slots = slots();
        let mut table = Table::new(&mut slots);
        for key in 0..KEYS_MAX {
            let key = key.to_string();
            table
                .put(Key::new(&key).unwrap(), Value::new("1").unwrap())
                .unwrap();
        }
        let two = Value::new("2").unwrap();
        assert_eq!(table.put(Key::new("one-more").unwrap(), two), Err(Full));
        assert_eq!(table.put(Key::new("17").unwrap(), two), Ok(()));
        assert_eq!(table.get(Key::new("17").unwrap()), Some("2"));
        assert_eq!(table.keys(), KEYS_MAX);
    }
}
