//! Writers: pages of memory written at a rate, so exactly that somebody
//! outside can say what is in them.
//!
//! Owns: which page a write goes to, what it leaves there, and when it is due.
//! Refuses: memory and clocks; time is an argument.

use core::fmt;

use agent_common::guest::{CPUS_MAX, PAGE_BYTES};

use crate::pattern::{PATTERN, SERVICE_BYTES, word};

/// 64-bit words of a page.
pub const WORDS: usize = 512;

/// Which page is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// One after the other, again and again.
    Sequential,
    /// Any, by the seed.
    Random,
    /// The first, always.
    Same,
}

/// What a write leaves in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A number in its first word; the rest stays as it is.
    Word,
    /// Bytes that do not compress.
    Random,
    /// Bytes that compress about as text does.
    Text,
}

/// What a writer is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Pages in a second; 0 is as many as it can.
    pub rate: u64,
    /// Pages of its region.
    pub pages: u64,
    /// First page of its region, from [`PATTERN`] on.
    pub first: u64,
    pub pattern: Pattern,
    pub content: Content,
    pub seed: u64,
    /// Writes after which it stops by itself; 0 is never.
    pub count: u64,
    pub cpu: u8,
}

impl Order {
    pub const NEW: Self = Self {
        rate: 1000,
        pages: 1,
        first: 0,
        pattern: Pattern::Sequential,
        content: Content::Random,
        seed: 0,
        count: 0,
        cpu: 0,
    };

    /// `None` if the word or its value is none of ours.
    pub fn set(&mut self, key: &str, value: &str) -> Option<()> {
        let number = || value.parse::<u64>().ok();
        match key {
            "rate" => self.rate = number()?,
            "pages" => self.pages = number().filter(|&pages| pages > 0)?,
            "first" => self.first = number()?,
            "seed" => self.seed = number()?,
            "count" => self.count = number()?,
            "cpu" => {
                let is_one = |&cpu: &u8| usize::from(cpu) < CPUS_MAX;
                self.cpu = value.parse().ok().filter(is_one)?;
            }
            "pattern" => {
                self.pattern = match value {
                    "sequential" => Pattern::Sequential,
                    "random" => Pattern::Random,
                    "same" => Pattern::Same,
                    _ => return None,
                }
            }
            "content" => {
                self.content = match value {
                    "word" => Content::Word,
                    "random" => Content::Random,
                    "text" => Content::Text,
                    _ => return None,
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether its region is within that many pages.
    pub fn fits(&self, pages: u64) -> bool {
        let end = self.first.checked_add(self.pages);
        end.is_some_and(|end| end <= pages)
    }

    /// The page, from [`PATTERN`] on, of the write with this number, from 0.
    pub fn page(&self, write: u64) -> u64 {
        let pages = self.pages.max(1);
        let page = match self.pattern {
            Pattern::Sequential => write % pages,
            Pattern::Random => word(!self.seed, write) % pages,
            Pattern::Same => 0,
        };
        self.first.saturating_add(page)
    }

    /// Words at the beginning of a page that a write changes.
    pub fn words(&self) -> usize {
        match self.content {
            Content::Word => 1,
            Content::Random | Content::Text => WORDS,
        }
    }

    /// A word that the write with this number leaves in its page.
    pub fn word(&self, write: u64, index: usize) -> u64 {
        /// Eight letters each.
        const VOCABULARY: [u64; 8] = [
            u64::from_le_bytes(*b"the page"),
            u64::from_le_bytes(*b" and its"),
            u64::from_le_bytes(*b" ghost, "),
            u64::from_le_bytes(*b"while a "),
            u64::from_le_bytes(*b"client i"),
            u64::from_le_bytes(*b"s still "),
            u64::from_le_bytes(*b"writing."),
            u64::from_le_bytes(*b" So be  "),
        ];
        let own = word(self.seed, write);
        let random = word(own, index as u64);
        match self.content {
            Content::Word => own,
            Content::Random => random,
            // The first word tells writes apart.
            Content::Text if index == 0 => own,
            Content::Text => {
                let entry = (random % VOCABULARY.len() as u64) as usize;
                VOCABULARY.get(entry).copied().unwrap_or_default()
            }
        }
    }

    /// As words of 64 bits, to be handed to another vCPU.
    pub fn pack(&self) -> [u64; PACKED] {
        let pattern = match self.pattern {
            Pattern::Sequential => 0,
            Pattern::Random => 1,
            Pattern::Same => 2,
        };
        let content = match self.content {
            Content::Word => 0,
            Content::Random => 1,
            Content::Text => 2,
        };
        let kind = pattern | content << 8 | u64::from(self.cpu) << 16;
        [
            self.rate, self.pages, self.first, self.seed, self.count, kind,
        ]
    }

    pub fn unpack([rate, pages, first, seed, count, kind]: [u64; PACKED]) -> Self {
        Self {
            rate,
            pages,
            first,
            seed,
            count,
            pattern: match kind & 0xff {
                0 => Pattern::Sequential,
                1 => Pattern::Random,
                _ => Pattern::Same,
            },
            content: match kind >> 8 & 0xff {
                0 => Content::Word,
                1 => Content::Random,
                _ => Content::Text,
            },
            cpu: (kind >> 16) as u8,
        }
    }
}

/// Words of a packed order.
pub const PACKED: usize = 6;

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rate,
            pages,
            first,
            pattern,
            content,
            seed,
            count,
            cpu,
        } = self;
        let pattern = match pattern {
            Pattern::Sequential => "sequential",
            Pattern::Random => "random",
            Pattern::Same => "same",
        };
        let content = match content {
            Content::Word => "word",
            Content::Random => "random",
            Content::Text => "text",
        };
        write!(
            f,
            "rate={rate} pages={pages} first={first} pattern={pattern} content={content} seed={seed} count={count} cpu={cpu}"
        )
    }
}

/// Pages that writers may use in a machine with that much RAM below the devices.
pub fn pages_of(low_bytes: u64) -> u64 {
    low_bytes.saturating_sub(PATTERN + SERVICE_BYTES) / PAGE_BYTES
}

/// A writer under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    pub order: Order,
    /// Writes done.
    pub written: u64,
    /// Writes that were done before `since`.
    before: u64,
    /// Ticks from when on the rate is reckoned.
    since: u64,
}

/// What is overdue by more than this part of a second is not made up for:
/// the vCPU was paused, or cannot keep the rate.
const OVERDUE_PART: u64 = 50;

/// At once, where there is no rate.
const BURST: u64 = 64;

impl Writer {
    pub fn new(order: Order, now_ticks: u64) -> Self {
        Self {
            order,
            written: 0,
            before: 0,
            since: now_ticks,
        }
    }

    pub fn is_done(&self) -> bool {
        self.order.count > 0 && self.written >= self.order.count
    }

    /// Writes to be done now.
    pub fn due(&mut self, now_ticks: u64, ticks_in_second: u64) -> u64 {
        let left = match self.order.count {
            0 => u64::MAX,
            count => count.saturating_sub(self.written),
        };
        if self.order.rate == 0 {
            return left.min(BURST);
        }
        let ticks = u128::from(now_ticks.saturating_sub(self.since));
        let wanted = ticks * u128::from(self.order.rate) / u128::from(ticks_in_second.max(1));
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        let done = self.written.saturating_sub(self.before);
        let due = wanted.saturating_sub(done);
        let most = (self.order.rate / OVERDUE_PART).max(1);
        if due <= most {
            return left.min(due);
        }
        self.before = self.written.saturating_add(most);
        self.since = now_ticks;
        left.min(most)
    }

    /// Ticks until the next write is due; at most a second's.
    pub fn next_in(&self, now_ticks: u64, ticks_in_second: u64) -> u64 {
        if self.order.rate == 0 {
            return 0;
        }
        let done = self.written.saturating_sub(self.before);
        let at = (u128::from(done) + 1) * u128::from(ticks_in_second);
        let at = at.div_ceil(u128::from(self.order.rate));
        let at = self
            .since
            .saturating_add(u64::try_from(at).unwrap_or(u64::MAX));
        at.saturating_sub(now_ticks).min(ticks_in_second)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Order, WORDS, Writer, pages_of};

    const SECOND: u64 = 2_000_000_000;

    fn order(words: &str) -> Order {
        let mut order = Order::NEW;
        for word in words.split(' ') {
            let (key, value) = word.split_once('=').unwrap();
            order.set(key, value).unwrap();
        }
        order
    }

    fn orders() -> impl Strategy<Value = Order> {
        (
            (0..100_000_u64, 1..20_000_u64, 0..100_u64, any::<u64>()),
            (0..1000_u64, 0..8_u8, 0..3_usize, 0..3_usize),
        )
            .prop_map(|((rate, pages, first, seed), (count, cpu, pattern, content))| {
                let pattern = ["sequential", "random", "same"][pattern];
                let content = ["word", "random", "text"][content];
                order(&format!(
                    "rate={rate} pages={pages} first={first} seed={seed} count={count} cpu={cpu} pattern={pattern} content={content}"
                ))
            })
    }

    proptest! {
        #[test]
        fn orders_survive_being_packed_and_shown(one in orders()) {
            prop_assert_eq!(Order::unpack(one.pack()), one);
            prop_assert_eq!(order(&one.to_string()), one);
        }

        #[test]
        fn pages_stay_in_their_region(order in orders(), write in any::<u64>()) {
            let page = order.page(write);
            prop_assert!(page >= order.first && page < order.first + order.pages);
        }

        #[test]
        fn the_rate_is_kept_however_often_it_is_looked_at(
            rate in 1..50_000_u64, steps in proptest::collection::vec(1..SECOND / 100, 1..200),
        ) {
            let mut writer = Writer::new(order(&format!("rate={rate}")), 7);
            let mut now = 7;
            for step in steps {
                now += step;
                writer.written += writer.due(now, SECOND);
            }
            let exact = u128::from(now - 7) * u128::from(rate) / u128::from(SECOND);
            // Waits of up to 10 ms are made up for, as long as they are no more than one write.
            if rate >= 100 {
                prop_assert_eq!(u128::from(writer.written), exact);
            } else {
                prop_assert!(u128::from(writer.written) <= exact);
            }
        }

        #[test]
        fn the_next_write_is_due_when_it_says(rate in 1..50_000_u64, written in 0..1000_u64) {
            let mut writer = Writer::new(order(&format!("rate={rate}")), 7);
            writer.written = written;
            let wait = writer.next_in(7, SECOND * 2000);
            let mut early = writer;
            prop_assert_eq!(early.due(7 + wait - 1, SECOND * 2000), 0);
            prop_assert!(wait == SECOND * 2000 || writer.due(7 + wait, SECOND * 2000) == 1);
        }
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let mut writer = Writer::new(order("rate=5000"), 0);
        writer.written += writer.due(3600 * SECOND, SECOND);
        assert_eq!(writer.written, 100);
        assert_eq!(writer.due(3600 * SECOND, SECOND), 0);
        assert_eq!(writer.due(3600 * SECOND + SECOND / 5000, SECOND), 1);
    }

    #[test]
    fn it_stops_after_its_count() {
        let mut writer = Writer::new(order("rate=0 count=100"), 0);
        while !writer.is_done() {
            let due = writer.due(0, SECOND);
            assert!(due > 0);
            writer.written += due;
        }
        assert_eq!(writer.written, 100);
        assert_eq!(writer.due(0, SECOND), 0);
    }

    #[test]
    fn words_that_are_not_ours_are_refused() {
        for (key, value) in [
            ("rate", "-1"),
            ("pages", "0"),
            ("cpu", "8"),
            ("pattern", "zigzag"),
            ("content", ""),
            ("speed", "1"),
        ] {
            let mut order = Order::NEW;
            assert_eq!(order.set(key, value), None, "{key}");
        }
        assert!(!order("pages=10 first=1").fits(10));
        assert!(!order("pages=10 first=18446744073709551615").fits(10));
        assert!(order("pages=10").fits(10));
        assert_eq!(pages_of(4 << 20), 0);
        assert_eq!(pages_of(16 << 20), 3072);
    }

    #[test]
    fn text_is_made_of_few_words_and_tells_writes_apart() {
        let text = order("content=text");
        let page = |write| {
            (0..WORDS)
                .map(|at| text.word(write, at))
                .collect::<Vec<_>>()
        };
        let (one, two) = (page(1), page(2));
        assert_ne!(one, two);
        let distinct: std::collections::BTreeSet<_> = one.into_iter().collect();
        assert!(distinct.len() <= 9);
    }
}
