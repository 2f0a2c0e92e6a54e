//! What a client saw, counted.

use super::{Exchange, Outcome};
use crate::machine::Side;

/// Counts over a record. `opened` means the request's connection, or the
/// request itself where there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    pub sent: u64,
    pub by_primary: u64,
    pub by_ghost: u64,
    /// Failed, and opened before the moment asked about.
    pub failed_opened_before: u64,
    /// Failed, and opened after it.
    pub failed_opened_after: u64,
    /// Never answered nor failed.
    pub unanswered: u64,
    /// Longest time between two answers that follow each other, in ns.
    pub longest_silence_ns: u64,
}

impl Summary {
    /// Counts, telling failures before from those after `moment_ns`.
    pub fn of(exchanges: &[Exchange], moment_ns: u64) -> Self {
        let mut sum = Self::default();
        let mut answers = Vec::new();
        for exchange in exchanges {
            sum.sent += 1;
            match &exchange.outcome {
                Outcome::Waiting => sum.unanswered += 1,
                Outcome::Answered { at_ns, by } => {
                    answers.push(*at_ns);
                    match by {
                        Side::Primary => sum.by_primary += 1,
                        Side::Ghost => sum.by_ghost += 1,
                    }
                }
                Outcome::Failed { .. } if exchange.opened_ns > moment_ns => {
                    sum.failed_opened_after += 1;
                }
                Outcome::Failed { .. } => sum.failed_opened_before += 1,
            }
        }
        answers.sort_unstable();
        sum.longest_silence_ns = answers
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or(0);
        sum
    }

    pub fn answered(&self) -> u64 {
        self.by_primary + self.by_ghost
    }
}
