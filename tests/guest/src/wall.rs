//! Who we are and what time it is.
//!
//! Owns: when we first saw the incarnation that we are. Time is that of the
//! beginning of the incarnation, and what the counter says since.

use agent_common::guest::Incarnation;
use ghost_guest::request::Reply;

use crate::machine::{Clock, incarnation};

pub(crate) struct Wall {
    clock: Clock,
    now: Incarnation,
    seen_us: u64,
}

impl Wall {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            now: incarnation(),
            seen_us: clock.us(),
        }
    }

    /// To be called whenever we may have become another.
    pub(crate) fn look(&mut self) {
        let now = incarnation();
        if now.count != self.now.count {
            *self = Self::new(self.clock);
        }
    }

    pub(crate) fn generation(&self) -> Reply<'static> {
        Reply::Generation(u128::from_be_bytes(self.now.generation), self.now.count)
    }

    pub(crate) fn time(&self) -> Reply<'static> {
        let since_us = self.clock.us().saturating_sub(self.seen_us);
        let since_ns = since_us.saturating_mul(1000);
        Reply::Time(self.now.wall_clock_ns.saturating_add(since_ns))
    }
}
