//! What ghosts need, what a host has, and who gets what of it.

use std::{cmp::Ordering, fmt, str::FromStr};

use super::InstanceName;

/// Bytes of a huge page on x86-64.
pub const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// Probability of a disruption within the planning horizon, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Risk(u32);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a risk is a number from 0 to 1 with at most six decimals, such as 0.4")]
pub struct RiskError;

impl Risk {
    pub const NONE: Self = Self(0);
    pub const TENTH: Self = Self(100_000);
    pub const CERTAIN: Self = Self(1_000_000);

    /// `None` above a million.
    pub const fn from_ppm(ppm: u32) -> Option<Self> {
        if ppm <= Self::CERTAIN.0 {
            Some(Self(ppm))
        } else {
            None
        }
    }

    pub const fn ppm(self) -> u32 {
        self.0
    }
}

impl FromStr for Risk {
    type Err = RiskError;

    fn from_str(text: &str) -> Result<Self, RiskError> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || whole.len() > 1 || decimals.len() > 6 {
            return Err(RiskError);
        }
        let whole: u32 = whole.parse().map_err(|_| RiskError)?;
        let decimals: u32 = format!("{decimals:0<6}").parse().map_err(|_| RiskError)?;
        Self::from_ppm(whole * Self::CERTAIN.0 + decimals).ok_or(RiskError)
    }
}

impl fmt::Display for Risk {
    /// Without trailing zeros: `0.4`, `1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / Self::CERTAIN.0, self.0 % Self::CERTAIN.0);
        let text = format!("{whole}.{decimals:06}");
        f.pad(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// How important an owner or an instance is against others, 1 to 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u16);

impl Priority {
    pub const MAX: u32 = 1000;
    pub const ORDINARY: Self = Self(100);

    /// `None` outside of 1 to 1,000.
    pub fn new(value: u32) -> Option<Self> {
        let small = u16::try_from(value).ok()?;
        (1..=Self::MAX).contains(&value).then_some(Self(small))
    }

    pub const fn get(self) -> u16 {
        self.0
    }
}

/// What is shared out. An amount of each, one after the other in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    Memory,
    HugePages,
    Cpu,
    Bandwidth,
}

impl Resource {
    pub const ALL: [Self; 4] = [Self::Memory, Self::HugePages, Self::Cpu, Self::Bandwidth];
}

/// An amount of each resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Amounts {
    /// All memory of ghosts, that in huge pages included.
    pub memory_bytes: u64,
    /// How many 2 MiB pages of that memory are huge pages.
    pub huge_pages: u64,
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Of sync, in bytes a second.
    pub bandwidth: u64,
}

impl Amounts {
    pub const fn get(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Memory => self.memory_bytes,
            Resource::HugePages => self.huge_pages,
            Resource::Cpu => self.cpu_milli,
            Resource::Bandwidth => self.bandwidth,
        }
    }

    /// Each resource through `join`.
    pub fn with(&self, other: &Self, join: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            memory_bytes: join(self.memory_bytes, other.memory_bytes),
            huge_pages: join(self.huge_pages, other.huge_pages),
            cpu_milli: join(self.cpu_milli, other.cpu_milli),
            bandwidth: join(self.bandwidth, other.bandwidth),
        }
    }

    /// Saturating: no sum of real amounts comes near the end of `u64`.
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// What is left; zero where there is not enough.
    pub fn less(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    pub fn fits_in(&self, other: &Self) -> bool {
        let fits = |resource: &Resource| self.get(*resource) <= other.get(*resource);
        Resource::ALL.iter().all(fits)
    }
}

/// How far a ghost is prepared. Each grade has all that the ones before have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// No ghost.
    None,
    /// Its VMM runs; its memory is read when it is touched.
    Lazy,
    /// All of its memory is resident.
    Resident,
    /// All of its memory is resident, in huge pages.
    Huge,
}

impl Grade {
    /// Those that take something, upwards.
    pub const RISING: [Self; 3] = [Self::Lazy, Self::Resident, Self::Huge];

    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lazy => "lazy",
            Self::Resident => "resident",
            Self::Huge => "huge",
        }
    }
}

/// A customer, who may have many instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub name: String,
    pub priority: Priority,
    /// Percent of the reserve that all its ghosts together take at most, of
    /// each resource.
    pub share_percent: u8,
}

/// An instance that wants a ghost on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    pub name: InstanceName,
    /// Instances without an owner have ordinary priority, and share no limit.
    pub owner: Option<Owner>,
    /// Of the instance.
    pub priority: Priority,
    pub risk: Risk,
    pub need: Need,
}

/// What an instance's ghost needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Guest memory.
    pub memory_bytes: u64,
    /// The part of it that is written to again and again.
    pub working_set_bytes: u64,
    pub vcpus: u8,
    /// How fast it dirties memory and disk, in bytes a second.
    pub dirty_rate: u64,
}

/// What one instance gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub name: InstanceName,
    pub grade: Grade,
    /// The risk that this plan went by, which small changes do not move.
    pub risk: Risk,
    pub amounts: Amounts,
    /// For `cpu.weight`, 1 to 100: a primary has 100.
    pub cpu_weight: u16,
    /// Between two cuts; zero without a ghost.
    pub epoch_ms: u32,
}

/// A grade that an instance's risk would have earned, and why it is not had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub name: InstanceName,
    pub wanted: Grade,
    pub reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Risks as small as this are not worth a ghost.
    SmallRisk { threshold: Risk },
    /// Each resource of which there is too little left in the reserve.
    Short(Vec<Shortage>),
    /// Each resource of which the owner's share has too little left.
    OwnersShare(Vec<Shortage>),
}

/// Of one resource, in its own unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    pub resource: Resource,
    /// What the grade would take beyond what the instance has.
    pub wanted: u64,
    /// What those who come first have left.
    pub left: u64,
    /// What would do for everybody whose risk earns the grade: of the reserve,
    /// or of the owner's share.
    pub enough_for_all: u64,
}

/// A limit that is not in force, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotInForce {
    pub file: &'static str,
    pub why: String,
}

impl fmt::Display for NotInForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not in force: {} ({})", self.file, self.why)
    }
}

/// Who gets what. Both lists are sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub grants: Vec<Grant>,
    pub refusals: Vec<Refusal>,
    pub reserve: Amounts,
    pub used: Amounts,
}

/// The plan, and how it would be under other risks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub plan: Plan,
    pub capacity: Amounts,
    /// If risks were supposed.
    pub supposed: Option<Plan>,
}

impl Plan {
    pub fn grant(&self, name: &InstanceName) -> Option<&Grant> {
        let by_name = |grant: &Grant| -> Ordering { grant.name.cmp(name) };
        let at = self.grants.binary_search_by(by_name).ok()?;
        self.grants.get(at)
    }
}
