//! When periodic work is due. Pure: time is an argument.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Periodic work of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// See whether interfaces came or went.
    Interfaces,
    /// See whether cgroups came or went, in case that news were missed.
    Cgroups,
    /// Bring kernel and configuration together after something failed.
    Reconcile,
    /// Look after draining switches.
    Drain,
    /// Keep the next few next hops resolved.
    Warm,
    /// Which devices take redirects.
    Egress,
    /// Watch guests, once the kernel has KVM.
    Guests,
    /// Tell the service manager that we live.
    Heartbeat,
}

/// At most one date for each job.
#[derive(Debug, Default)]
pub struct Agenda {
    dates: BTreeMap<Job, Instant>,
}

impl Agenda {
    /// Sets the date of a job, in place of the one it had.
    pub fn set(&mut self, job: Job, at: Instant) {
        self.dates.insert(job, at);
    }

    /// Sets the date unless there is an earlier one.
    pub fn no_later_than(&mut self, job: Job, at: Instant) {
        let date = self.dates.entry(job).or_insert(at);
        *date = at.min(*date);
    }

    pub fn clear(&mut self, job: Job) {
        self.dates.remove(&job);
    }

    /// The earliest date.
    pub fn next(&self) -> Option<Instant> {
        self.dates.values().min().copied()
    }

    /// Takes a job that is due, the earliest first.
    pub fn take_due(&mut self, now: Instant) -> Option<Job> {
        let (&job, _) = self
            .dates
            .iter()
            .filter(|&(_, &at)| at <= now)
            .min_by_key(|&(_, &at)| at)?;
        self.dates.remove(&job);
        Some(job)
    }
}

/// Turns a flood of news into work now and then: the first is answered at
/// once, further ones not before `gap` has passed.
#[derive(Debug)]
pub struct Pace {
    gap: Duration,
    last: Option<Instant>,
}

impl Pace {
    pub const fn new(gap: Duration) -> Self {
        Self { gap, last: None }
    }

    /// When to work, given news at `now`.
    pub fn date(&mut self, now: Instant) -> Instant {
        let date = match self.last {
            // Not worked on yet: the date stands.
            Some(last) if last > now => return last,
            Some(last) => now.max(last + self.gap),
            None => now,
        };
        self.last = Some(date);
        date
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_earliest_job_comes_first_and_once() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        agenda.set(Job::Warm, now + S);
        agenda.set(Job::Drain, now);
        agenda.no_later_than(Job::Warm, now + 9 * S);
        assert_eq!(agenda.next(), Some(now));
        assert_eq!(agenda.take_due(now), Some(Job::Drain));
        assert_eq!(agenda.take_due(now), None);
        agenda.no_later_than(Job::Warm, now);
        assert_eq!(agenda.take_due(now), Some(Job::Warm));
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn a_flood_of_news_is_answered_now_and_then() {
        let now = Instant::now();
        let mut pace = Pace::new(S);
        assert_eq!(pace.date(now), now);
        let second = pace.date(now);
        assert_eq!(second, now + S);
        assert_eq!(pace.date(now), second);
        assert_eq!(pace.date(now + 5 * S), now + 5 * S);
    }
}
