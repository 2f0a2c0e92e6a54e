//! When draining ends. Pure.

use std::time::Duration;

use super::event::DrainEnd;

/// How often the flows of draining instances are counted: a person sees the
/// end at once, and a walk over all flows takes milliseconds.
pub const DRAIN_LOOK: Duration = Duration::from_millis(250);

/// `None` while it goes on.
pub fn drain_end(live_flows: u64, since: Duration, max: Duration) -> Option<DrainEnd> {
    if live_flows == 0 {
        return Some(DrainEnd::Empty);
    }
    (since >= max).then_some(DrainEnd::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_ends_empty_or_at_its_limit() {
        let s = Duration::from_secs;
        assert_eq!(drain_end(0, s(0), s(60)), Some(DrainEnd::Empty));
        assert_eq!(drain_end(3, s(59), s(60)), None);
        assert_eq!(drain_end(3, s(60), s(60)), Some(DrainEnd::TimedOut));
        assert_eq!(drain_end(0, s(99), s(60)), Some(DrainEnd::Empty));
    }
}
