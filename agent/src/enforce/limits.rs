//! Which limits a copy gets, and whether the kernel took them.

use std::fmt;

use crate::model::{Grade, Grant, HUGE_PAGE_BYTES};

/// For `cpu.max`, in microseconds: the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// Tasks of a VMM: eight vCPUs and what serves devices and control, with room.
const TASKS_MAX: u64 = 64;

/// The kernel keeps amounts of memory in pages of at least this size.
const PAGE_BYTES: u64 = 4096;

/// One file of a cgroup v2 folder, and what is to be in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub file: &'static str,
    pub value: String,
}

impl Setting {
    fn new(file: &'static str, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        Self { file, value }
    }

    /// The controller whose file it is.
    pub fn controller(&self) -> &'static str {
        self.file.split_once('.').map_or("", |(name, _)| name)
    }

    /// Whether what the kernel shows is what was written: it rounds amounts
    /// of memory down to pages, and `io.weight` names what it is a default of.
    pub(super) fn is_shown_as(&self, shown: &str) -> bool {
        let shown = shown.trim();
        let shown = shown.strip_prefix("default ").unwrap_or(shown);
        if shown == self.value {
            return true;
        }
        match (self.value.parse::<u64>(), shown.parse::<u64>()) {
            (Ok(value), Ok(shown)) => value / PAGE_BYTES * PAGE_BYTES == shown,
            _ => false,
        }
    }
}

/// Limits of a ghost. What memory it has in huge pages is not counted by the
/// memory controller, but by that of huge pages.
pub fn of_ghost(grant: &Grant) -> Vec<Setting> {
    let huge_bytes = match grant.grade {
        Grade::Huge => grant.amounts.huge_pages.saturating_mul(HUGE_PAGE_BYTES),
        Grade::None | Grade::Lazy | Grade::Resident => 0,
    };
    let memory = grant.amounts.memory_bytes.saturating_sub(huge_bytes);
    let quota_us = grant.amounts.cpu_milli.saturating_mul(PERIOD_US) / 1000;
    vec![
        Setting::new("cpu.weight", grant.cpu_weight.max(1)),
        Setting::new("cpu.max", format_args!("{quota_us} {PERIOD_US}")),
        // Nothing of a ghost is protected from a primary's need.
        Setting::new("memory.min", 0),
        Setting::new("memory.low", 0),
        Setting::new("memory.high", "max"),
        Setting::new("memory.max", memory),
        Setting::new("io.weight", grant.cpu_weight.max(1)),
        Setting::new("pids.max", TASKS_MAX),
        Setting::new("hugetlb.2MB.max", huge_bytes),
    ]
}

/// Protection of a primary: nobody else's need takes its memory.
pub fn of_primary(memory_bytes: u64) -> Vec<Setting> {
    vec![
        Setting::new("memory.min", memory_bytes),
        Setting::new("pids.max", TASKS_MAX),
    ]
}

/// A ghost that gives way: all above what its VMM needs is reclaimed.
pub fn squeezed(vmm_bytes: u64) -> Setting {
    Setting::new("memory.high", vmm_bytes)
}

/// And no longer.
pub fn released() -> Setting {
    Setting::new("memory.high", "max")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Amounts, Risk};

    fn grant(grade: Grade, huge_pages: u64) -> Grant {
        Grant {
            name: "web".parse().unwrap(),
            grade,
            risk: Risk::TENTH,
            amounts: Amounts {
                memory_bytes: 72 << 20,
                huge_pages,
                cpu_milli: 250,
                bandwidth: 1,
            },
            cpu_weight: 5,
            epoch_ms: 100,
        }
    }

    fn value<'s>(settings: &'s [Setting], file: &str) -> &'s str {
        let found = settings.iter().find(|setting| setting.file == file);
        &found.unwrap().value
    }

    #[test]
    fn a_ghost_is_held_to_its_grant() {
        let settings = of_ghost(&grant(Grade::Resident, 0));
        assert_eq!(value(&settings, "cpu.max"), "25000 100000");
        assert_eq!(value(&settings, "cpu.weight"), "5");
        assert_eq!(value(&settings, "memory.max"), (72 << 20).to_string());
        assert_eq!(value(&settings, "hugetlb.2MB.max"), "0");
        let settings = of_ghost(&grant(Grade::Huge, 32));
        assert_eq!(value(&settings, "memory.max"), (8 << 20).to_string());
        assert_eq!(value(&settings, "hugetlb.2MB.max"), (64 << 20).to_string());
    }

    #[test]
    fn the_kernels_way_of_showing_is_understood() {
        let shown = |file, value: &str, shown: &str| Setting::new(file, value).is_shown_as(shown);
        assert!(shown("memory.max", "10000", "8192\n"));
        assert!(!shown("memory.max", "10000", "12288\n"));
        assert!(shown("cpu.max", "25000 100000", "25000 100000\n"));
        assert!(!shown("cpu.max", "25000 100000", "max 100000\n"));
        assert!(shown("io.weight", "5", "default 5\n"));
        assert!(!shown("memory.high", "max", "4096\n"));
    }
}
