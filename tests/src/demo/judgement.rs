//! Whether the promise held, from what the clients saw. Pure.

use std::fmt;

use super::clients::Asked;

/// Part of the story, from one moment to another (CLOCK_MONOTONIC, ns).
#[derive(Debug, Clone)]
pub struct Act {
    pub name: &'static str,
    pub from_ns: u64,
    pub to_ns: u64,
    pub promise: Promise,
}

/// What clients are promised in an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// No request fails, no connection breaks, no answer is wrong.
    Nothing,
    /// What was begun before this moment may fail; nothing later does.
    NothingBegunAfter { ns: u64 },
}

/// What one client saw in one act.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub sent: usize,
    /// Failed, and may have.
    pub excused: usize,
    /// Failed, and must not have; the first of them.
    pub failed: usize,
    pub first_failure: Option<String>,
    /// Longest time between two answers that follow each other, in ns.
    pub silence_ns: u64,
}

impl Seen {
    /// Requests sent in the act, whenever they were answered.
    pub fn of(record: &[Asked], act: &Act) -> Self {
        let mut seen = Self::default();
        let mut last_ns = None;
        let sent = |asked: &&Asked| (act.from_ns..act.to_ns).contains(&asked.sent_ns);
        for asked in record.iter().filter(sent) {
            seen.sent += 1;
            match &asked.failure {
                None => {
                    let gap = last_ns.map_or(0, |last| asked.ended_ns - last);
                    seen.silence_ns = seen.silence_ns.max(gap);
                    last_ns = Some(asked.ended_ns);
                }
                Some(_) if act.promise.excuses(asked) => seen.excused += 1,
                Some(why) => {
                    seen.failed += 1;
                    let after = asked.sent_ns - act.from_ns;
                    let text = || format!("{:.1} ms into it: {why}", after as f64 / 1e6);
                    seen.first_failure.get_or_insert_with(text);
                }
            }
        }
        seen
    }

    /// Why the promise is broken, if it is.
    pub fn fault(&self) -> Option<String> {
        if let Some(first) = &self.first_failure {
            return Some(format!(
                "{} requests failed; the first {first}",
                self.failed
            ));
        }
        // A client that asked nothing would promise nothing.
        (self.sent <= self.excused).then(|| "nothing was answered".to_owned())
    }
}

impl Promise {
    fn excuses(self, asked: &Asked) -> bool {
        match self {
            Self::Nothing => false,
            Self::NothingBegunAfter { ns } => asked.opened_ns.min(asked.sent_ns) <= ns,
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing fails",
            Self::NothingBegunAfter { .. } => "nothing begun after the throw fails",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(opened_ns: u64, sent_ns: u64, ended_ns: u64, failure: Option<&str>) -> Asked {
        Asked {
            opened_ns,
            sent_ns,
            ended_ns,
            failure: failure.map(str::to_owned),
        }
    }

    fn act(promise: Promise) -> Act {
        Act {
            name: "act",
            from_ns: 1_000_000,
            to_ns: 9_000_000,
            promise,
        }
    }

    #[test]
    fn only_what_was_sent_in_the_act_counts() {
        let record = [
            asked(0, 500, 600, Some("early")),
            asked(0, 1_000_000, 1_200_000, None),
            asked(0, 8_000_000, 9_500_000, None),
            asked(0, 9_000_000, 9_100_000, Some("late")),
        ];
        let seen = Seen::of(&record, &act(Promise::Nothing));
        assert_eq!((seen.sent, seen.failed, seen.silence_ns), (2, 0, 8_300_000));
        assert_eq!(seen.fault(), None);
    }

    #[test]
    fn what_was_open_at_the_throw_is_excused_and_nothing_else() {
        let record = [
            asked(10, 2_000_000, 3_000_000, Some("open")),
            asked(2_600_000, 2_600_000, 3_000_000, Some("new")),
            asked(3_000_000, 3_000_000, 3_100_000, None),
        ];
        let seen = Seen::of(&record, &act(Promise::NothingBegunAfter { ns: 2_500_000 }));
        assert_eq!((seen.sent, seen.excused, seen.failed), (3, 1, 1));
        let fault = "1 requests failed; the first 1.6 ms into it: new";
        assert_eq!(seen.fault().as_deref(), Some(fault));
        let strict = Seen::of(&record, &act(Promise::Nothing));
        assert_eq!((strict.excused, strict.failed), (0, 2));
    }

    #[test]
    fn silence_is_a_fault() {
        let seen = Seen::of(&[], &act(Promise::Nothing));
        assert_eq!(seen.fault().as_deref(), Some("nothing was answered"));
    }
}
