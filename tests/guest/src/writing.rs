//! Writers at work: in the poll loop, and on the other vCPUs.
//!
//! Owns: the words by which the first vCPU tells the others, and the pages
//! they write. Each vCPU has at most one writer.

use core::sync::atomic::{AtomicU64, Ordering};

use agent_common::guest::{Boot, CPUS_MAX, PAGE_BYTES};
use ghost_guest::{
    line::List,
    pattern::PATTERN,
    request::{Reply, Wrong},
    write::{Order, PACKED, Writer, pages_of},
};

use crate::machine::{Clock, store, wait_for_time};

/// Without an order a vCPU looks for one that often.
const IDLE_US: u64 = 5_000;

/// What the first vCPU and another say to each other.
struct Desk {
    order: [AtomicU64; PACKED],
    /// 1 to write, 0 to stop.
    wanted: AtomicU64,
    /// Grows with each order and each stop, after the words above.
    number: AtomicU64,
    /// The number that the other has seen, after the words below.
    seen: AtomicU64,
    is_writing: AtomicU64,
    written: AtomicU64,
}

static DESKS: [Desk; CPUS_MAX] = [const {
    Desk {
        order: [const { AtomicU64::new(0) }; PACKED],
        wanted: AtomicU64::new(0),
        number: AtomicU64::new(0),
        seen: AtomicU64::new(0),
        is_writing: AtomicU64::new(0),
        written: AtomicU64::new(0),
    }
}; CPUS_MAX];

impl Desk {
    fn order(&self) -> Order {
        let mut words = [0; PACKED];
        for (to, word) in words.iter_mut().zip(&self.order) {
            *to = word.load(Ordering::Relaxed);
        }
        Order::unpack(words)
    }

    /// Whether the other has taken note of all that was said.
    fn is_quiet(&self) -> bool {
        self.seen.load(Ordering::Acquire) == self.number.load(Ordering::Relaxed)
    }
}

/// The first vCPU's view.
pub(crate) struct Writing {
    cpus: usize,
    pages: u64,
    clock: Clock,
    own: Hand,
}

impl Writing {
    pub(crate) fn new(boot: &Boot, clock: Clock) -> Self {
        Self {
            cpus: (boot.cpus as usize).min(CPUS_MAX),
            pages: pages_of(boot.low_bytes),
            clock,
            own: Hand::new(0),
        }
    }

    /// Those of the command line. The first that cannot be is said.
    pub(crate) fn start_all(
        &mut self,
        writers: &List<Order, CPUS_MAX>,
    ) -> Result<(), Wrong<'static>> {
        writers
            .iter()
            .try_for_each(|order| match self.start(order) {
                Reply::Wrong(wrong) => Err(wrong),
                _ => Ok(()),
            })
    }

    /// In place of the writer that the vCPU had.
    pub(crate) fn start(&mut self, order: Order) -> Reply<'static> {
        let Some(desk) = self.desk(order.cpu) else {
            return Reply::Wrong(Wrong::NoSuchCpu);
        };
        if !order.fits(self.pages) {
            return Reply::Wrong(Wrong::Pages(self.pages));
        }
        if !desk.is_quiet() {
            return Reply::Wrong(Wrong::Busy);
        }
        for (to, word) in desk.order.iter().zip(order.pack()) {
            to.store(word, Ordering::Relaxed);
        }
        desk.wanted.store(1, Ordering::Relaxed);
        desk.number.fetch_add(1, Ordering::Release);
        Reply::Started
    }

    pub(crate) fn stop(&mut self, cpu: u8) -> Reply<'static> {
        let Some(desk) = self.desk(cpu) else {
            return Reply::Wrong(Wrong::NoSuchCpu);
        };
        desk.wanted.store(0, Ordering::Relaxed);
        desk.number.fetch_add(1, Ordering::Release);
        Reply::Stopping
    }

    pub(crate) fn stat(&self, cpu: u8) -> Reply<'static> {
        let Some(desk) = self.desk(cpu) else {
            return Reply::Wrong(Wrong::NoSuchCpu);
        };
        let is_quiet = desk.is_quiet();
        Reply::Stat {
            is_running: !is_quiet || desk.is_writing.load(Ordering::Acquire) == 1,
            written: desk.written.load(Ordering::Acquire),
            order: desk.order(),
        }
    }

    /// Does what is due on this vCPU. Microseconds until more is.
    pub(crate) fn turn(&mut self) -> Option<u64> {
        self.own.turn(&self.clock)
    }

    fn desk(&self, cpu: u8) -> Option<&'static Desk> {
        DESKS.iter().take(self.cpus).nth(usize::from(cpu))
    }
}

/// A vCPU's own.
struct Hand {
    desk: Option<&'static Desk>,
    number: u64,
    writer: Option<Writer>,
}

impl Hand {
    fn new(cpu: u64) -> Self {
        Self {
            desk: DESKS.get(cpu as usize),
            number: 0,
            writer: None,
        }
    }

    /// Takes note of orders, and writes what is due. Microseconds until more
    /// is; `None` without an order.
    fn turn(&mut self, clock: &Clock) -> Option<u64> {
        let desk = self.desk?;
        let number = desk.number.load(Ordering::Acquire);
        if number != self.number {
            self.number = number;
            let wanted = desk.wanted.load(Ordering::Relaxed);
            self.writer = (wanted == 1).then(|| Writer::new(desk.order(), clock.ticks()));
            if wanted == 1 {
                desk.written.store(0, Ordering::Relaxed);
            }
            desk.is_writing.store(wanted, Ordering::Relaxed);
            desk.seen.store(number, Ordering::Release);
        }
        let writer = self.writer.as_mut()?;
        for _ in 0..writer.due(clock.ticks(), clock.ticks_in_second()) {
            write(&writer.order, writer.written);
            writer.written += 1;
            desk.written.store(writer.written, Ordering::Release);
        }
        if writer.is_done() {
            desk.is_writing.store(0, Ordering::Release);
            self.writer = None;
            return None;
        }
        let ticks = writer.next_in(clock.ticks(), clock.ticks_in_second());
        Some(clock.us_of(ticks))
    }
}

fn write(order: &Order, number: u64) {
    let page = PATTERN + order.page(number) * PAGE_BYTES;
    for index in 0..order.words() {
        store(page + index as u64 * 8, order.word(number, index));
    }
}

/// A vCPU that does nothing but write when it is told to.
pub(crate) fn serve(cpu: u64, clock: &Clock) -> ! {
    let mut hand = Hand::new(cpu);
    loop {
        let us = hand.turn(clock).unwrap_or(IDLE_US);
        if us > 0 {
            wait_for_time(us.min(IDLE_US));
        }
    }
}
