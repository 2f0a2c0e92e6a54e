//! What an operator allows ghosts to take, and the planner's constants.

use crate::model::{Amounts, Grade, HUGE_PAGE_BYTES, Need, Reserve, Risk, scaled};

/// From which risk on a grade is worth its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    pub lazy: Risk,
    pub resident: Risk,
    pub huge: Risk,
}

impl Thresholds {
    pub fn of(&self, grade: Grade) -> Risk {
        match grade {
            Grade::None => Risk::NONE,
            Grade::Lazy => self.lazy,
            Grade::Resident => self.resident,
            Grade::Huge => self.huge,
        }
    }
}

/// How the planner weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub reserve: Reserve,
    pub thresholds: Thresholds,
    /// A risk has to change by more than this to count as changed, and a
    /// challenger's score must be greater by more than this to displace.
    pub margin_percent: u32,
    /// What a ghost's VMM takes beside guest memory: 5 MiB are its promise;
    /// page tables and network buffers come on top.
    pub overhead_bytes: u64,
    /// CPU that a ghost needs to take in what is sent to it.
    pub cpu_floor_milli: u64,
    pub epoch_ms_min: u32,
    pub epoch_ms_max: u32,
}

impl Default for Policy {
    fn default() -> Self {
        let percent = |percent: u32| Risk::from_ppm(percent * 10_000).unwrap_or(Risk::CERTAIN);
        Self {
            reserve: Reserve::default(),
            thresholds: Thresholds {
                lazy: percent(1),
                resident: percent(5),
                huge: percent(20),
            },
            margin_percent: 20,
            overhead_bytes: 8 << 20,
            cpu_floor_milli: 50,
            // Below 25 ms the pauses of the cuts are felt; after a second
            // there is more to lose than most services can bear.
            epoch_ms_min: 25,
            epoch_ms_max: 1000,
        }
    }
}

impl Policy {
    /// What a grade takes beyond the one below it.
    pub(super) fn step(&self, need: &Need, grade: Grade) -> Amounts {
        let pages = need.memory_bytes.div_ceil(HUGE_PAGE_BYTES);
        let rounded = pages.saturating_mul(HUGE_PAGE_BYTES);
        match grade {
            Grade::None => Amounts::default(),
            Grade::Lazy => Amounts {
                memory_bytes: self.overhead_bytes,
                huge_pages: 0,
                cpu_milli: self.cpu_floor_milli,
                bandwidth: self.bandwidth_floor(need),
            },
            Grade::Resident => Amounts {
                memory_bytes: need.memory_bytes,
                ..Amounts::default()
            },
            Grade::Huge => Amounts {
                memory_bytes: rounded.saturating_sub(need.memory_bytes),
                huge_pages: pages,
                ..Amounts::default()
            },
        }
    }

    /// With less, what is written during the longest epoch could not be sent
    /// in its time. Beyond the working set the same pages are written again.
    fn bandwidth_floor(&self, need: &Need) -> u64 {
        let epoch_ms = u64::from(self.epoch_ms_max.max(1));
        let all = u128::from(need.working_set_bytes) * 1000;
        let all = u64::try_from(all.div_ceil(u128::from(epoch_ms))).unwrap_or(u64::MAX);
        all.min(need.dirty_rate)
    }

    /// The length that a risk asks for, or the one that the bandwidth can
    /// sustain, if that is longer.
    pub(super) fn epoch_ms(&self, risk: Risk, need: &Need, bandwidth: u64) -> u32 {
        let span = self.epoch_ms_max.saturating_sub(self.epoch_ms_min);
        let gain = scaled(
            u64::from(span),
            u64::from(risk.ppm()),
            u64::from(Risk::CERTAIN.ppm()),
        );
        let asked = u64::from(self.epoch_ms_max).saturating_sub(gain);
        let sustained = if bandwidth >= need.dirty_rate {
            0
        } else {
            let all = u128::from(need.working_set_bytes) * 1000;
            let length = all.div_ceil(u128::from(bandwidth.max(1)));
            u64::try_from(length).unwrap_or(u64::MAX)
        };
        let length = asked.max(sustained).min(u64::from(self.epoch_ms_max));
        u32::try_from(length).unwrap_or(self.epoch_ms_max)
    }
}
