//! The wait port: a vCPU that has nothing to do is parked in its thread.
//!
//! Owns: what ends such a wait, which is news from a device, an order to the
//! vCPU, or time. Refuses: to keep a vCPU from an order. What came while
//! nobody waited ends the next wait at once, so nothing is missed.

use std::{os::fd::AsFd as _, sync::Arc, time::Duration};

use agent_common::guest::WAIT_TIME_ONLY;
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{eventfd::EventFd, time::TimeSpec},
};

/// Where a vCPU waits.
pub(super) struct Waiting {
    /// Written to by devices that have used a buffer.
    news: Arc<EventFd>,
    /// Written to with each order to this vCPU that cannot wait.
    call: Arc<EventFd>,
}

impl Waiting {
    pub(super) fn new(news: Arc<EventFd>, call: Arc<EventFd>) -> Self {
        Self { news, call }
    }

    /// As the guest wrote it to the port.
    pub(super) fn park(&self, word: u32) {
        let time = Duration::from_micros(u64::from(word & !WAIT_TIME_ONLY));
        let call = PollFd::new(self.call.as_fd(), PollFlags::POLLIN);
        // A signal ends it too; whatever does, the guest looks for itself.
        if word & WAIT_TIME_ONLY == 0 {
            let news = PollFd::new(self.news.as_fd(), PollFlags::POLLIN);
            let _ = ppoll(&mut [call, news], Some(TimeSpec::from(time)), None);
            let _ = self.news.read();
        } else {
            let _ = ppoll(&mut [call], Some(TimeSpec::from(time)), None);
        }
        let _ = self.call.read();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use agent_common::guest::WAIT_TIME_ONLY;

    use super::Waiting;
    use crate::vmm::eventfd;

    const LONG_US: u32 = 60_000_000;

    #[test]
    fn what_came_before_a_wait_ends_it_and_only_one() {
        let news = Arc::new(eventfd::new().unwrap());
        let call = Arc::new(eventfd::new().unwrap());
        let waiting = Waiting::new(Arc::clone(&news), Arc::clone(&call));
        let start = Instant::now();
        news.write(1).unwrap();
        news.write(1).unwrap();
        waiting.park(LONG_US);
        call.write(1).unwrap();
        waiting.park(LONG_US);
        call.write(1).unwrap();
        waiting.park(LONG_US | WAIT_TIME_ONLY);
        assert!(start.elapsed() < Duration::from_secs(30));
        // Nothing is left of either.
        let start = Instant::now();
        waiting.park(20_000);
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn news_does_not_end_a_wait_for_time_and_is_kept() {
        let news = Arc::new(eventfd::new().unwrap());
        let waiting = Waiting::new(Arc::clone(&news), Arc::new(eventfd::new().unwrap()));
        news.write(1).unwrap();
        let start = Instant::now();
        waiting.park(20_000 | WAIT_TIME_ONLY);
        assert!(start.elapsed() >= Duration::from_millis(20));
        waiting.park(LONG_US);
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
