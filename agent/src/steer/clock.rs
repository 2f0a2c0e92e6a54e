//! The kernel's clocks.

use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in ns: the clock of every time in the maps.
pub fn monotonic_ns() -> u64 {
    // Cannot fail for this clock; zero would only make everything look old.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| {
        let (s, ns) = (t.tv_sec().cast_unsigned(), t.tv_nsec().cast_unsigned());
        s.saturating_mul(1_000_000_000).saturating_add(ns)
    })
}
