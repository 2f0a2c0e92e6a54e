use proptest::prelude::*;

use super::{Broken, NoJournal, SECTOR_BYTES, Sectors, TAIL_BYTES, Tail, open};
use crate::{
    journal::HEADER,
    request::{Key, Reply, Value},
    store::{Room, Store},
    table::{SLOTS, Slot},
};

/// A disk in memory whose power fails after some more bytes.
struct Memory {
    bytes: Vec<u8>,
    left: usize,
}

impl Memory {
    fn new(sectors: usize) -> Self {
        Self {
            bytes: vec![0; sectors * SECTOR_BYTES],
            left: usize::MAX,
        }
    }
}

impl Sectors for Memory {
    fn count(&self) -> u64 {
        (self.bytes.len() / SECTOR_BYTES) as u64
    }

    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), Broken> {
        let at = sector as usize * SECTOR_BYTES;
        to.copy_from_slice(self.bytes.get(at..at + to.len()).ok_or(Broken)?);
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), Broken> {
        assert!(from.len().is_multiple_of(SECTOR_BYTES));
        let at = sector as usize * SECTOR_BYTES;
        let to = self.bytes.get_mut(at..at + from.len()).ok_or(Broken)?;
        let bytes = from.len().min(self.left);
        to[..bytes].copy_from_slice(&from[..bytes]);
        self.left -= bytes;
        if bytes == from.len() {
            Ok(())
        } else {
            Err(Broken)
        }
    }
}

fn slots() -> Box<[Slot; SLOTS]> {
    vec![Slot::FREE; SLOTS].try_into().unwrap()
}

fn buffer() -> Box<[u8; TAIL_BYTES]> {
    // Whatever was in it before.
    vec![0x5a; TAIL_BYTES].try_into().unwrap()
}

fn put(store: &mut Store<'_>, tail: &mut Tail<'_>, key: &str, value: &str) -> Reply<'static> {
    let (key, value) = (Key::new(key).unwrap(), Value::new(value).unwrap());
    let (reply, record) = store.put(key, value, tail.room());
    if let Some(record) = record {
        tail.append(&record);
    }
    reply
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Runs, each ended by a loss of power in the middle of a write: the state
    /// after each is that of a prefix of what was asked for, with all that was
    /// answered in it, and nothing of a lost end ever comes back.
    #[test]
    fn whatever_was_answered_survives_and_nothing_else_comes_back(
        runs in proptest::collection::vec(
            (proptest::collection::vec(("[a-d]{1,9}", "[!-~]{1,192}", 0..4_u8), 1..80), 0..20_000_usize), 1..5),
    ) {
        let mut disk = Memory::new(256);
        let mut past: Vec<(String, String)> = Vec::new();
        for (puts, power) in runs {
            let (mut slots, mut buffer) = (slots(), buffer());
            let mut store = Store::new(&mut slots);
            disk.left = usize::MAX;
            let mut tail = open(&mut disk, &mut buffer, &mut store).unwrap();
            disk.left = power;
            let (mut answered, mut asked) = (past.len(), past.clone());
            for (key, value, mood) in puts {
                prop_assert_eq!(put(&mut store, &mut tail, &key, &value), Reply::Done(asked.len() as u64 + 1));
                asked.push((key, value));
                if mood == 0 || tail.is_full() {
                    if tail.write(&mut disk).is_err() {
                        break;
                    }
                    answered = asked.len();
                }
            }
            let (mut slots, mut buffer) = (self::slots(), self::buffer());
            let mut again = Store::new(&mut slots);
            disk.left = usize::MAX;
            open(&mut disk, &mut buffer, &mut again).unwrap();
            let kept = again.journal().count as usize;
            prop_assert!(kept >= answered && kept <= asked.len(), "{} {} {}", answered, kept, asked.len());
            let mut journal = crate::journal::Journal::NEW;
            for (key, value) in &asked[..kept] {
                journal = journal.with(Key::new(key).unwrap(), Value::new(value).unwrap());
            }
            prop_assert_eq!(again.journal(), journal);
            for (key, _) in &asked {
                let value = asked[..kept].iter().rev().find(|(other, _)| other == key);
                let expected = value.map_or(Reply::None, |(_, value)| Reply::Value(value));
                prop_assert_eq!(again.get(Key::new(key).unwrap()), expected);
            }
            past = asked;
            past.truncate(kept);
        }
    }

    #[test]
    fn any_disk_is_read_or_refused(
        sectors in 0..70_usize, noise in proptest::collection::vec(any::<u8>(), 0..2000), has_header: bool,
    ) {
        let mut disk = Memory::new(sectors);
        let start = if has_header { &HEADER[..] } else { &[] };
        for (to, byte) in disk.bytes.iter_mut().zip(start.iter().chain(&noise)) {
            *to = *byte;
        }
        let (mut slots, mut buffer) = (slots(), buffer());
        let mut store = Store::new(&mut slots);
        let opened = open(&mut disk, &mut buffer, &mut store).map(drop);
        match (sectors, has_header) {
            (0, _) => prop_assert_eq!(opened, Err(NoJournal::TooSmall)),
            (_, true) => prop_assert_eq!(opened, Ok(())),
            (_, false) if noise.iter().take(SECTOR_BYTES).any(|&byte| byte != 0) =>
                prop_assert_eq!(opened, Err(NoJournal::Foreign)),
            (_, false) => prop_assert_eq!(opened, Ok(())),
        }
    }
}

#[test]
fn a_full_disk_keeps_all_that_was_answered() {
    let mut disk = Memory::new(4);
    let (mut slots, mut buffer) = (slots(), buffer());
    let mut store = Store::new(&mut slots);
    let mut tail = open(&mut disk, &mut buffer, &mut store).unwrap();
    let value = "v".repeat(192);
    let mut count = 0;
    while tail.room() == Room::Enough {
        count += 1;
        assert_eq!(
            put(&mut store, &mut tail, "key", &value),
            Reply::Done(count)
        );
        assert_eq!(tail.write(&mut disk), Ok(true));
    }
    // 20 bytes of header and 214 of each record; the longest has 275.
    assert_eq!(count, 9);
    assert_eq!(tail.write(&mut disk), Ok(false));
    let sum = store.sum();
    let (mut slots, mut buffer) = (self::slots(), self::buffer());
    let mut again = Store::new(&mut slots);
    let tail = open(&mut disk, &mut buffer, &mut again).unwrap();
    assert_eq!(again.sum(), sum);
    assert_eq!(tail.room(), Room::Full);
}

#[test]
fn a_journal_longer_than_the_buffer_is_read_in_pieces() {
    let mut disk = Memory::new(1024);
    let (mut slots, mut buffer) = (slots(), buffer());
    let mut store = Store::new(&mut slots);
    let mut tail = open(&mut disk, &mut buffer, &mut store).unwrap();
    for number in 0..2500 {
        put(
            &mut store,
            &mut tail,
            &format!("k{}", number % 700),
            &"v".repeat(1 + number % 192),
        );
        if tail.is_full() {
            tail.write(&mut disk).unwrap();
        }
    }
    tail.write(&mut disk).unwrap();
    let (mut slots, mut buffer) = (self::slots(), self::buffer());
    let mut again = Store::new(&mut slots);
    open(&mut disk, &mut buffer, &mut again).unwrap();
    assert_eq!(again.sum(), store.sum());
}
