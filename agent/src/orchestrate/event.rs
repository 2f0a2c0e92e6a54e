//! The event log: every decision, explained, in order.
//!
//! Owns: the last [`EVENTS_KEPT`] events and the line to those who follow.
//! The driver and the ghost manager write ([`EventLog`]); anyone may read
//! ([`EventFeed`]).
//!
//! How it fails: a follower that falls behind by more than [`EVENTS_LIVE`]
//! events loses the oldest and is told how many. A writer never waits.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use agent_common::abi::{Position, Side};
use tokio::sync::broadcast;

use super::command::Caller;
use crate::model::EventView;

/// Events kept in memory for those who ask later. At a few per reboot this is
/// months; a storm costs the oldest.
pub const EVENTS_KEPT: usize = 1024;

/// Events a follower may be behind before it loses some. One host reboot with
/// hundreds of instances fits; a stuck reader costs no more than this.
pub const EVENTS_LIVE: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts up from 1 within one run of the daemon; gaps never occur.
    pub sequence: u64,
    pub at: SystemTime,
    pub kind: EventKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    Started {
        version: String,
        adopted: bool,
    },
    Stopping,
    ConfigReloaded {
        instances: usize,
        routes: usize,
    },
    ConfigRefused {
        diagnostic: String,
    },
    /// The kernel saw a reboot and, unless unarmed, threw a switch.
    Reboot {
        instance: Option<String>,
        seen: EventView,
    },
    /// A switch was moved by a command.
    SwitchMoved {
        instance: Option<String>,
        to: Position,
        by: Caller,
    },
    /// Draining came to its end.
    Drained {
        instance: String,
        flows_left: u64,
        reason: DrainEnd,
    },
    Attached {
        interface: String,
        mode: &'static str,
    },
    InterfaceGone {
        interface: String,
    },
    /// A microVM that this host runs is something else now.
    CopyChanged {
        instance: String,
        side: Side,
        state: &'static str,
        epoch: Option<u64>,
        reason: Option<String>,
    },
    /// A ghost was tried out.
    Drilled {
        instance: String,
        is_healthy: bool,
        what: String,
    },
    /// Something an operator should look at; the daemon goes on.
    Degraded {
        what: String,
    },
    /// Kernel events that came faster than the daemon read them.
    Lost {
        count: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainEnd {
    /// No flow of the ghost was left.
    Empty,
    /// The limit was reached with flows left.
    TimedOut,
}

/// The writing end.
#[derive(Debug)]
pub struct EventLog {
    shared: Arc<Shared>,
}

/// A reading end: cheap to clone, never slows the driver down.
#[derive(Debug, Clone)]
pub struct EventFeed {
    shared: Arc<Shared>,
}

/// What a reader missed and what it did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// Events after the asked one that are no longer kept.
    pub lost: u64,
    pub events: Vec<Arc<Event>>,
}

#[derive(Debug)]
struct Shared {
    kept: Mutex<Kept>,
    live: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    /// Sequence of the newest event; 0 before the first.
    newest: u64,
}

impl Shared {
    /// No code panics while it holds the lock, so a poisoned one is as good.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

impl EventLog {
    pub fn new() -> Self {
        let kept = Kept {
            events: VecDeque::with_capacity(EVENTS_KEPT),
            newest: 0,
        };
        Self {
            shared: Arc::new(Shared {
                kept: Mutex::new(kept),
                live: broadcast::Sender::new(EVENTS_LIVE),
            }),
        }
    }

    /// Numbers and records an event, and hands it to all who follow.
    pub fn push(&mut self, at: SystemTime, kind: EventKind) -> Arc<Event> {
        let mut kept = self.shared.kept();
        kept.newest += 1;
        let event = Arc::new(Event {
            sequence: kept.newest,
            at,
            kind,
        });
        if kept.events.len() == EVENTS_KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(Arc::clone(&event));
        // Sent under the lock, so that a new follower sees each event once: in
        // its backlog or live. An error only says that nobody follows.
        let _ = self.shared.live.send(Arc::clone(&event));
        event
    }

    /// Another pen for the same log.
    pub fn writer(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }

    pub fn feed(&self) -> EventFeed {
        EventFeed {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl EventFeed {
    /// Kept events with a sequence above `since`; 0 asks for all. A `since`
    /// above the newest comes from an earlier run of the daemon and asks for all.
    pub fn since(&self, since: u64) -> Backlog {
        Self::backlog(&self.shared.kept(), since)
    }

    /// As [`Self::since`], and everything that comes after, without a gap.
    pub fn follow(&self, since: u64) -> (Backlog, broadcast::Receiver<Arc<Event>>) {
        let kept = self.shared.kept();
        let live = self.shared.live.subscribe();
        (Self::backlog(&kept, since), live)
    }

    fn backlog(kept: &Kept, since: u64) -> Backlog {
        let since = if since > kept.newest { 0 } else { since };
        let oldest = kept.events.front().map_or(kept.newest + 1, |e| e.sequence);
        let events = kept.events.iter().filter(|e| e.sequence > since);
        Backlog {
            lost: oldest.saturating_sub(since + 1),
            events: events.cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(count: u64) -> EventLog {
        let mut log = EventLog::new();
        for i in 0..count {
            log.push(SystemTime::UNIX_EPOCH, EventKind::Lost { count: i });
        }
        log
    }

    fn sequences(backlog: &Backlog) -> Vec<u64> {
        backlog.events.iter().map(|e| e.sequence).collect()
    }

    #[test]
    fn sequences_start_at_one_and_have_no_gap() {
        let backlog = log_of(5).feed().since(0);
        assert_eq!(
            (backlog.lost, sequences(&backlog)),
            (0, vec![1, 2, 3, 4, 5])
        );
        assert_eq!(sequences(&log_of(5).feed().since(3)), [4, 5]);
        assert_eq!(sequences(&log_of(5).feed().since(5)), [0u64; 0]);
    }

    #[test]
    fn since_of_an_earlier_run_gives_everything() {
        let backlog = log_of(3).feed().since(900);
        assert_eq!((backlog.lost, sequences(&backlog)), (0, vec![1, 2, 3]));
    }

    #[test]
    fn an_empty_log_has_lost_nothing() {
        let backlog = EventLog::new().feed().since(0);
        assert_eq!((backlog.lost, backlog.events.len()), (0, 0));
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let log = log_of(EVENTS_KEPT as u64 + 10);
        let all = log.feed().since(0);
        assert_eq!((all.lost, all.events.len()), (10, EVENTS_KEPT));
        assert_eq!(log.feed().since(4).lost, 6);
        assert_eq!(log.feed().since(10).lost, 0);
        assert_eq!(log.feed().since(20).events.len(), EVENTS_KEPT - 10);
    }

    #[test]
    fn a_follower_sees_each_event_once() {
        let mut log = log_of(3);
        let (backlog, mut live) = log.feed().follow(1);
        assert_eq!(sequences(&backlog), [2, 3]);
        log.push(SystemTime::UNIX_EPOCH, EventKind::Stopping);
        assert_eq!(live.try_recv().unwrap().sequence, 4);
        assert!(live.try_recv().is_err());
    }

    #[test]
    fn a_follower_that_lags_is_told_how_many_it_lost() {
        let mut log = log_of(0);
        let (_, mut live) = log.feed().follow(0);
        for _ in 0..EVENTS_LIVE + 7 {
            log.push(SystemTime::UNIX_EPOCH, EventKind::Stopping);
        }
        let lagged = broadcast::error::TryRecvError::Lagged(7);
        assert_eq!(live.try_recv().unwrap_err(), lagged);
        assert_eq!(live.try_recv().unwrap().sequence, 8);
    }
}
