//! The event log: every decision, explained, in order.

use std::time::SystemTime;

use agent_common::abi::Position;

use super::command::Caller;
use crate::model::EventView;

/// Events kept in memory for those who ask later. At a few per reboot this is
/// months; a storm costs the oldest.
pub const EVENTS_KEPT: usize = 1024;

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
