//! One clock for everything: CLOCK_MONOTONIC, as the kernel's `ktime` shows it.
//!
//! Owns: reading it, waiting for a condition up to a deadline, pacing a sender.

use std::time::{Duration, Instant};

use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn now_ns() -> u64 {
    read_ns(ClockId::CLOCK_MONOTONIC)
}

/// What to add to a CLOCK_REALTIME stamp to get CLOCK_MONOTONIC.
///
/// The two reads are some tens of nanoseconds apart; that is the error.
pub fn realtime_to_monotonic_ns() -> i64 {
    let monotonic = read_ns(ClockId::CLOCK_MONOTONIC);
    let realtime = read_ns(ClockId::CLOCK_REALTIME);
    monotonic.cast_signed() - realtime.cast_signed()
}

fn read_ns(clock: ClockId) -> u64 {
    // Both clocks exist on every kernel; a failure would be a broken libc.
    let now = clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    now.as_secs() * 1_000_000_000 + u64::from(now.subsec_nanos())
}

/// How often a condition is looked at. Short against what is waited for, long
/// against the cost of looking.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A condition that did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:?} in vain for {what}")]
pub struct Late {
    pub what: String,
    pub waited: Duration,
}

/// Looks until `condition` gives a value, or until `limit` has passed.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, Late> {
    let started = Instant::now();
    let mut pace = Pace::every(LOOK_EVERY);
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if started.elapsed() > limit {
            return Err(Late {
                what: what.to_owned(),
                waited: limit,
            });
        }
        pace.next();
    }
}

/// How far behind a sender may be and still catch up. After a longer stall of
/// the machine the burst would overflow queues that its rate never fills, and
/// the loss would not be the network's.
const BEHIND_NS_MAX: u64 = 5_000_000;

/// Ticks of a fixed interval, kept on absolute time so that they do not drift.
#[derive(Debug)]
pub struct Pace {
    next_ns: u64,
    interval_ns: u64,
}

impl Pace {
    pub fn every(interval: Duration) -> Self {
        Self {
            next_ns: now_ns(),
            interval_ns: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    pub fn per_second(rate: u32) -> Self {
        Self::every(Duration::from_secs(1) / rate.max(1))
    }

    /// Blocks until the next tick. A caller that was held up for long lets the
    /// ticks go that it missed.
    pub fn next(&mut self) {
        let oldest_ns = now_ns().saturating_sub(BEHIND_NS_MAX);
        self.next_ns = self.next_ns.saturating_add(self.interval_ns).max(oldest_ns);
        let at = Duration::from_nanos(self.next_ns);
        // An interrupted sleep only makes this tick early; the next is on time.
        let _ = clock_nanosleep(
            ClockId::CLOCK_MONOTONIC,
            ClockNanosleepFlags::TIMER_ABSTIME,
            &at.into(),
        );
    }
}
