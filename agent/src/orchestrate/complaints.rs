//! What was complained about and has not been mended. Pure.
//!
//! Work is done again in rounds, and what still fails then is no news.

use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub struct Complaints {
    now: BTreeSet<String>,
    last_round: BTreeSet<String>,
}

impl Complaints {
    /// Whatever is not complained about again from here on is mended.
    pub fn next_round(&mut self) {
        self.last_round = std::mem::take(&mut self.now);
    }

    /// The next complaint is news, whatever was said before.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether it is news.
    pub fn add(&mut self, what: &str) -> bool {
        self.now.insert(what.to_owned()) && !self.last_round.contains(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_in_each_round_is_news_once() {
        let mut complaints = Complaints::default();
        assert!(complaints.add("a"));
        assert!(!complaints.add("a"));
        for _ in 0..3 {
            complaints.next_round();
            assert!(!complaints.add("a"));
        }
        complaints.next_round();
        complaints.next_round();
        assert!(complaints.add("a"));
        complaints.forget();
        assert!(complaints.add("a"));
    }
}
