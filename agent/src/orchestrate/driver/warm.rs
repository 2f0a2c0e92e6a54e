//! Keeps next hops resolved, a few at a time.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use crate::steer::{NextHop, Plane, SteerError};

/// Addresses looked at in one step: about a millisecond.
const STEP: usize = 128;
/// Between steps of one round.
const STEP_PAUSE: Duration = Duration::from_millis(50);
/// Between rounds. The kernel keeps the entries by itself where it can; a
/// round finds new routes and neighbours.
const ROUND_PAUSE: Duration = Duration::from_secs(30);

/// Walks over all targets, round after round.
#[derive(Debug, Default)]
pub(super) struct Warmer {
    targets: Vec<IpAddr>,
    at: usize,
    seen: BTreeSet<NextHop>,
}

impl Warmer {
    /// A new set of targets; the round begins anew.
    pub(super) fn set(&mut self, targets: BTreeSet<IpAddr>) {
        self.targets = targets.into_iter().collect();
        self.at = 0;
        self.seen.clear();
    }

    pub(super) fn pause(&self) -> Duration {
        if self.at == 0 {
            ROUND_PAUSE
        } else {
            STEP_PAUSE
        }
    }

    /// One step. At the end of a round next hops that are no target's any
    /// more are left to the kernel's ordinary ageing.
    pub(super) fn step(&mut self, plane: &mut Plane) -> Result<(), SteerError> {
        let end = self.targets.len().min(self.at + STEP);
        let step = self.targets.get(self.at..end).unwrap_or(&[]);
        let warmed = plane.warm(step.iter().copied())?;
        self.seen.extend(warmed.hops);
        self.at = end;
        if self.at == self.targets.len() {
            self.at = 0;
            plane.manage_only(&std::mem::take(&mut self.seen))?;
        }
        Ok(())
    }
}
