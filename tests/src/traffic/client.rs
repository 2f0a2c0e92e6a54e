//! A client: threads, and the record they write.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::ANSWER_LIMIT;
use crate::{
    clock::{Late, now_ns, wait_for},
    machine::Side,
};

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    Waiting,
    Answered {
        at_ns: u64,
        by: Side,
    },
    Failed {
        at_ns: u64,
        why: String,
    },
}

/// One request and what came of it. Times are CLOCK_MONOTONIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    pub number: u64,
    pub sent_ns: u64,
    /// When the connection it went over was opened; without connections, when sent.
    pub opened_ns: u64,
    pub outcome: Outcome,
}

impl Exchange {
    pub fn answered_by(&self) -> Option<Side> {
        match self.outcome {
            Outcome::Answered { by, .. } => Some(by),
            _ => None,
        }
    }

    pub fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { .. })
    }
}

/// The record of a client; the number of an exchange is its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Record(Arc<Mutex<Vec<Exchange>>>);

impl Record {
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Exchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down that a request is about to be sent; gives its number.
    pub(super) fn sent(&self, sent_ns: u64, opened_ns: u64) -> u64 {
        let mut exchanges = self.lock();
        let number = exchanges.len() as u64;
        exchanges.push(Exchange {
            number,
            sent_ns,
            opened_ns,
            outcome: Outcome::Waiting,
        });
        number
    }

    /// Whether a receiver may end: all is answered, or has had its time.
    pub(super) fn settled(&self, stop: &Stop, since: &mut Option<Instant>) -> bool {
        if !stop.asked() {
            return false;
        }
        let since = *since.get_or_insert_with(Instant::now);
        let waiting = || self.lock().iter().any(|e| e.outcome == Outcome::Waiting);
        stop.at_once() || since.elapsed() > ANSWER_LIMIT || !waiting()
    }

    /// Packets may be lost: what is still open now is.
    pub(super) fn give_up(&self) {
        let at_ns = now_ns();
        for exchange in self.lock().iter_mut() {
            if exchange.outcome == Outcome::Waiting {
                let why = "no answer".to_owned();
                exchange.outcome = Outcome::Failed { at_ns, why };
            }
        }
    }

    /// Writes down what came of a request. The first word stands.
    pub(super) fn close(&self, number: u64, outcome: Outcome) {
        let mut exchanges = self.lock();
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(exchange) = exchanges.get_mut(place)
            && exchange.outcome == Outcome::Waiting
        {
            exchange.outcome = outcome;
        }
    }
}

/// Tells a client's threads to stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<AtomicU8>);

const ASKED: u8 = 1;
const AT_ONCE: u8 = 2;

impl Stop {
    pub(super) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= ASKED
    }

    /// Nobody will read the record: answers under way do not matter.
    pub(super) fn at_once(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= AT_ONCE
    }

    fn ask(&self, how: u8) {
        self.0.fetch_max(how, Ordering::Relaxed);
    }
}

/// A running client; it stops on drop.
#[derive(Debug)]
pub struct Client {
    name: String,
    record: Record,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

/// The work of one thread of a client.
pub(super) type Work = Box<dyn FnOnce(&Record, &Stop) + Send>;

impl Client {
    pub(super) fn start(name: &str, works: Vec<Work>) -> Result<Self> {
        let mut client = Self {
            name: name.to_owned(),
            record: Record::default(),
            stop: Stop::default(),
            threads: Vec::new(),
        };
        for work in works {
            let (record, stop) = (client.record.clone(), client.stop.clone());
            client.threads.push(
                std::thread::Builder::new()
                    .name(name.to_owned())
                    .spawn(move || work(&record, &stop))?,
            );
        }
        Ok(client)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A look at the record so far.
    pub fn with<T>(&self, look: impl FnOnce(&[Exchange]) -> T) -> T {
        look(&self.record.lock())
    }

    /// Waits until requests sent from now on are answered by `side`: `count` of them.
    pub fn wait_answers(&self, side: Side, count: usize, limit: Duration) -> Result<(), Late> {
        let already = self.with(<[Exchange]>::len);
        let what = format!("{count} answers from the {side} to {}", self.name);
        wait_for(&what, limit, || {
            self.with(|exchanges| {
                let new = exchanges.get(already..).unwrap_or_default();
                let answered = new.iter().filter(|e| e.answered_by() == Some(side)).count();
                (answered >= count).then_some(())
            })
        })
    }

    /// Stops sending, waits for what is still under way, gives the record.
    pub fn stop(mut self) -> Vec<Exchange> {
        self.finish(ASKED);
        std::mem::take(&mut self.record.lock())
    }

    fn finish(&mut self, how: u8) {
        self.stop.ask(how);
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join()
                && !std::thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.finish(AT_ONCE);
    }
}
