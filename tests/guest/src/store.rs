//! The state of the key-value service: a table, and the journal that made it.

use crate::{
    journal::{self, Journal, RECORD_BYTES_MAX},
    request::{Key, Reply, Text, Value, Wrong},
    table::{SLOTS, Slot, Table},
};

/// What a mutation leaves to be written down before it is answered.
pub type Record = Text<RECORD_BYTES_MAX>;

/// Whether another record can be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Enough,
    Full,
}

#[derive(Debug)]
pub struct Store<'a> {
    table: Table<'a>,
    journal: Journal,
}

/// A mutation that has happened.
pub type Mutated<'a> = (Reply<'a>, Option<Record>);

impl<'a> Store<'a> {
    pub fn new(slots: &'a mut [Slot; SLOTS]) -> Self {
        Self {
            table: Table::new(slots),
            journal: Journal::NEW,
        }
    }

    pub fn journal(&self) -> Journal {
        self.journal
    }

    pub fn sum(&self) -> Reply<'static> {
        Reply::Sum(self.journal, self.table.keys())
    }

    pub fn get(&self, key: Key<'_>) -> Reply<'_> {
        self.table.get(key).map_or(Reply::None, Reply::Value)
    }

    /// A record of the journal once more.
    pub fn replay(&mut self, record: &journal::Record<'_>) -> Result<(), crate::table::Full> {
        self.table.put(record.key, record.value)?;
        self.journal = record.after;
        Ok(())
    }

    pub fn put(&mut self, key: Key<'_>, value: Value<'_>, room: Room) -> Mutated<'static> {
        match self.mutate(key, value, room) {
            Ok(record) => (Reply::Done(self.journal.count), Some(record)),
            Err(wrong) => (Reply::Wrong(wrong), None),
        }
    }

    /// One more; what is not there counts as 0.
    pub fn increment(&mut self, key: Key<'_>, room: Room) -> Mutated<'static> {
        match self.try_increment(key, room) {
            Ok((value, record)) => (Reply::Counted(self.journal.count, value), Some(record)),
            Err(wrong) => (Reply::Wrong(wrong), None),
        }
    }

    fn try_increment(&mut self, key: Key<'_>, room: Room) -> Result<(u64, Record), Wrong<'static>> {
        use core::fmt::Write as _;
        let before = self.table.get(key).unwrap_or("0");
        let before: u64 = before.parse().map_err(|_| Wrong::NotANumber)?;
        let value = before.checked_add(1).ok_or(Wrong::Overflow)?;
        let mut text = Text::<20>::new();
        // It has room for the largest.
        let _ = write!(text, "{value}");
        let digits = core::str::from_utf8(text.bytes()).unwrap_or_default();
        let digits = Value::new(digits).ok_or(Wrong::NotANumber)?;
        Ok((value, self.mutate(key, digits, room)?))
    }

    fn mutate(
        &mut self,
        key: Key<'_>,
        value: Value<'_>,
        room: Room,
    ) -> Result<Record, Wrong<'static>> {
        if room == Room::Full {
            return Err(Wrong::DiskFull);
        }
        self.table.put(key, value).map_err(|_| Wrong::TableFull)?;
        self.journal = self.journal.with(key, value);
        Ok(journal::encode(self.journal, key, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{Room, Store};
    use crate::{
        journal::{Journal, decode},
        request::{Key, Reply, Value, Wrong},
        table::{SLOTS, Slot},
    };

    fn slots() -> Box<[Slot; SLOTS]> {
        vec![Slot::FREE; SLOTS].try_into().unwrap()
    }

    proptest! {
        /// Against a plain map; and the journal replayed gives the same state.
        #[test]
        fn it_is_a_map_that_its_journal_makes_again(
            steps in proptest::collection::vec(("[ab]", proptest::option::of("[0-9]{1,3}|x|18446744073709551615")), 0..60),
        ) {
            let (mut memory, mut again) = (slots(), slots());
            let mut store = Store::new(&mut memory);
            let mut map: BTreeMap<&str, String> = BTreeMap::new();
            let mut disk = Vec::new();
            let mut count = 0;
            for (key, value) in &steps {
                let name = Key::new(key).unwrap();
                let (reply, record) = match value {
                    Some(value) => store.put(name, Value::new(value).unwrap(), Room::Enough),
                    None => store.increment(name, Room::Enough),
                };
                let before = map.get(key.as_str()).map_or("0", String::as_str);
                let next = match value {
                    Some(value) => Ok(value.clone()),
                    None => before.parse::<u64>().map_err(|_| Wrong::NotANumber)
                        .and_then(|n| n.checked_add(1).ok_or(Wrong::Overflow))
                        .map(|n| n.to_string()),
                };
                match (next, value) {
                    (Ok(next), value) => {
                        count += 1;
                        let expected = match value {
                            Some(_) => Reply::Done(count),
                            None => Reply::Counted(count, next.parse().unwrap()),
                        };
                        prop_assert_eq!(reply, expected);
                        disk.extend(record.unwrap().bytes());
                        map.insert(key, next);
                    }
                    (Err(wrong), _) => {
                        prop_assert_eq!(reply, Reply::Wrong(wrong));
                        prop_assert!(record.is_none());
                    }
                }
            }
            let mut twin = Store::new(&mut again);
            let mut text = &disk[..];
            while let Some(record) = decode(twin.journal(), text) {
                twin.replay(&record).unwrap();
                text = &text[record.bytes..];
            }
            prop_assert_eq!(text.len(), 0);
            prop_assert_eq!(twin.sum(), store.sum());
            for key in ["a", "b", "c"] {
                let expected = map.get(key).map_or(Reply::None, |value| Reply::Value(value));
                prop_assert_eq!(store.get(Key::new(key).unwrap()), expected);
                prop_assert_eq!(twin.get(Key::new(key).unwrap()), expected);
            }
        }
    }

    #[test]
    fn nothing_changes_where_nothing_can_be_written_down() {
        let mut memory = slots();
        let mut store = Store::new(&mut memory);
        let key = Key::new("k").unwrap();
        let full = Reply::Wrong(Wrong::DiskFull);
        assert_eq!(store.increment(key, Room::Full).0, full);
        assert_eq!(store.get(key), Reply::None);
        assert_eq!(store.journal(), Journal::NEW);
    }
}
