//! What an operator lets ghosts take, and who counts how much.

use super::{Amounts, Owner, Priority, Risk};

/// Part of something the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// In the resource's own unit; never more than the host has.
    Absolute(u64),
    /// 0 to 100.
    Percent(u8),
}

impl Portion {
    fn of(self, whole: u64) -> u64 {
        match self {
            Self::Absolute(amount) => amount.min(whole),
            Self::Percent(percent) => scaled(whole, u64::from(percent.min(100)), 100),
        }
    }
}

/// What all ghosts of this host together may take at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    pub memory: Portion,
    /// How much of that memory may be in huge pages; a percentage is one of
    /// the host's memory.
    pub huge_pages: Portion,
    pub cpu: Portion,
    pub bandwidth: Portion,
}

impl Default for Reserve {
    /// A quarter of the host for what its peers may lose: a host of four can
    /// then carry the ghosts of another one that is as full as itself. No
    /// huge pages, because they are taken from everybody else on the host and
    /// only an operator knows whether there are any to spare.
    fn default() -> Self {
        Self {
            memory: Portion::Percent(25),
            huge_pages: Portion::Absolute(0),
            cpu: Portion::Percent(25),
            bandwidth: Portion::Percent(25),
        }
    }
}

impl Reserve {
    pub fn of(&self, capacity: &Amounts) -> Amounts {
        Amounts {
            memory_bytes: self.memory.of(capacity.memory_bytes),
            huge_pages: self.huge_pages.of(capacity.huge_pages),
            cpu_milli: self.cpu.of(capacity.cpu_milli),
            bandwidth: self.bandwidth.of(capacity.bandwidth),
        }
    }
}

/// What an operator says about ghosts of all instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocation {
    pub reserve: Reserve,
    /// By name, each once.
    pub owners: Vec<Owner>,
}

/// What is at stake with one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stake {
    pub priority: Priority,
    /// Until something predicts it.
    pub risk: Risk,
}

impl Default for Stake {
    /// A risk of one in ten: it earns a resident ghost, which is what
    /// somebody wants who configures one, but no huge pages.
    fn default() -> Self {
        Self {
            priority: Priority::ORDINARY,
            risk: Risk::TENTH,
        }
    }
}

/// `amount * part / whole`, rounded down, without overflow on the way.
pub fn scaled(amount: u64, part: u64, whole: u64) -> u64 {
    let product = u128::from(amount) * u128::from(part);
    u64::try_from(product / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}
