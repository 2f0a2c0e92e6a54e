//! Who gives way when the host is short of memory. Pure.
//!
//! Ghosts do, one at each look, from the least score up: a resident one
//! becomes a lazy one. Memory in huge pages cannot be reclaimed, so such a
//! ghost is to be given up; that comes last. Primaries never give way. When
//! there has been no pressure for a while they come back, one at each look,
//! in the opposite order.

use std::{collections::BTreeSet, time::Duration};

use crate::model::{Grade, Grant, InstanceName};

/// Ghosts give way from here on: the part of the last ten seconds in which
/// somebody waited for memory, in hundredths of a percent. Primaries feel it.
const STALLED_MAX: u32 = 500;

/// Or from here on: the part of the host's memory that is available. The
/// kernel begins to reclaim from everybody not far below.
const AVAILABLE_MIN_PERCENT: u64 = 5;

/// There is no pressure with less waiting and more memory than this.
const STALLED_CALM: u32 = 50;
const AVAILABLE_CALM_PERCENT: u64 = 10;

/// For how long it has to be calm before a ghost comes back: several times
/// the ten seconds over which the kernel averages.
const CALM: Duration = Duration::from_secs(30);

/// What was read of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// `some avg10` of memory pressure, in hundredths of a percent; `None`
    /// where the kernel does not tell.
    pub stalled: Option<u32>,
    pub available_bytes: u64,
    pub total_bytes: u64,
}

/// What is to be done to one ghost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Yield {
    /// Reclaim its memory; it stays, as a lazy one.
    Squeeze(InstanceName),
    /// Let it be resident again.
    Release(InstanceName),
    /// Destroy it: its memory cannot be reclaimed.
    GiveUp(InstanceName),
}

/// Who has given way, and since when it is calm.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pressure {
    squeezed: BTreeSet<InstanceName>,
    given_up: BTreeSet<InstanceName>,
    calm_since: Option<Duration>,
}

impl Pressure {
    /// Looks at a reading taken at `now`, and says who is next, if anybody.
    pub fn step(&mut self, now: Duration, reading: &Reading, grants: &[Grant]) -> Option<Yield> {
        let has = |name: &InstanceName, grade: Grade| {
            grants.iter().any(|g| g.name == *name && g.grade == grade)
        };
        // Ghosts that are planned otherwise by now have nothing to give back.
        self.squeezed.retain(|name| has(name, Grade::Resident));
        self.given_up.retain(|name| has(name, Grade::Huge));
        if reading.is_tight() {
            self.calm_since = None;
            return self.next(grants);
        }
        if !reading.is_calm() {
            self.calm_since = None;
            return None;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now.saturating_sub(since) < CALM {
            return None;
        }
        self.back(grants)
    }

    fn next(&mut self, grants: &[Grant]) -> Option<Yield> {
        let of = |grade: Grade, gone: &BTreeSet<InstanceName>| {
            let still = grants
                .iter()
                .filter(|g| g.grade == grade && !gone.contains(&g.name));
            still.min_by_key(|g| rank(g)).map(|g| g.name.clone())
        };
        if let Some(name) = of(Grade::Resident, &self.squeezed) {
            self.squeezed.insert(name.clone());
            return Some(Yield::Squeeze(name));
        }
        let name = of(Grade::Huge, &self.given_up)?;
        self.given_up.insert(name.clone());
        Some(Yield::GiveUp(name))
    }

    fn back(&mut self, grants: &[Grant]) -> Option<Yield> {
        let squeezed = grants.iter().filter(|g| self.squeezed.contains(&g.name));
        let name = squeezed.max_by_key(|g| rank(g))?.name.clone();
        self.squeezed.remove(&name);
        Some(Yield::Release(name))
    }
}

fn rank(grant: &Grant) -> (u16, u32, &InstanceName) {
    (grant.cpu_weight, grant.risk.ppm(), &grant.name)
}

impl Reading {
    fn available_percent(&self) -> u64 {
        self.available_bytes.saturating_mul(100) / self.total_bytes.max(1)
    }

    fn is_tight(&self) -> bool {
        self.stalled.is_some_and(|stalled| stalled >= STALLED_MAX)
            || self.available_percent() < AVAILABLE_MIN_PERCENT
    }

    fn is_calm(&self) -> bool {
        self.stalled.is_none_or(|stalled| stalled < STALLED_CALM)
            && self.available_percent() >= AVAILABLE_CALM_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Amounts, Risk};

    fn grant(name: &str, grade: Grade, cpu_weight: u16) -> Grant {
        Grant {
            name: name.parse().unwrap(),
            grade,
            risk: Risk::TENTH,
            amounts: Amounts::default(),
            cpu_weight,
            epoch_ms: 100,
        }
    }

    const fn reading(stalled: u32, available_bytes: u64) -> Reading {
        Reading {
            stalled: Some(stalled),
            available_bytes,
            total_bytes: 100,
        }
    }

    #[test]
    fn ghosts_give_way_from_the_least_up_and_come_back_when_it_is_calm() {
        let grants = [
            grant("big", Grade::Huge, 1),
            grant("high", Grade::Resident, 9),
            grant("lazy", Grade::Lazy, 1),
            grant("low", Grade::Resident, 2),
        ];
        let name = |name: &str| name.parse::<InstanceName>().unwrap();
        let mut pressure = Pressure::default();
        let mut at =
            |seconds, reading| pressure.step(Duration::from_secs(seconds), &reading, &grants);
        assert_eq!(at(0, reading(0, 50)), None);
        assert_eq!(at(1, reading(900, 50)), Some(Yield::Squeeze(name("low"))));
        assert_eq!(at(2, reading(0, 4)), Some(Yield::Squeeze(name("high"))));
        assert_eq!(at(3, reading(500, 50)), Some(Yield::GiveUp(name("big"))));
        assert_eq!(at(4, reading(500, 50)), None, "nobody is left");
        assert_eq!(at(5, reading(0, 50)), None);
        assert_eq!(
            at(20, reading(100, 50)),
            None,
            "not calm, so it counts anew"
        );
        assert_eq!(at(21, reading(0, 50)), None);
        assert_eq!(at(50, reading(0, 50)), None);
        assert_eq!(at(51, reading(0, 50)), Some(Yield::Release(name("high"))));
        assert_eq!(at(52, reading(0, 50)), Some(Yield::Release(name("low"))));
        assert_eq!(at(53, reading(0, 50)), None);
    }

    #[test]
    fn without_pressure_figures_memory_decides() {
        let grants = [grant("a", Grade::Resident, 1)];
        let silent = |available_bytes| Reading {
            stalled: None,
            available_bytes,
            total_bytes: 100,
        };
        let mut pressure = Pressure::default();
        let now = Duration::from_secs(1);
        assert_eq!(pressure.step(now, &silent(5), &grants), None);
        let squeeze = Some(Yield::Squeeze("a".parse().unwrap()));
        assert_eq!(pressure.step(now, &silent(4), &grants), squeeze);
    }
}
