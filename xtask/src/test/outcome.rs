//! What became of tests, and how it is told at the end.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) name: String,
    pub(crate) output: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Skip {
    pub(crate) name: String,
    pub(crate) reason: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) passed: usize,
    pub(crate) failed: Vec<Failure>,
    pub(crate) skipped: Vec<Skip>,
}

impl Outcome {
    /// One check that is a test of its own.
    pub(crate) fn of_check(name: &str, result: Result<(), String>) -> Self {
        let mut outcome = Self::default();
        match result {
            Ok(()) => outcome.passed = 1,
            Err(output) => outcome.failed.push(Failure {
                name: name.to_owned(),
                output,
            }),
        }
        outcome
    }

    pub(crate) fn of_skip(name: &str, reason: &str) -> Self {
        let skip = Skip {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        Self {
            skipped: vec![skip],
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        let Self {
            passed,
            failed,
            skipped,
        } = other;
        self.passed += passed;
        self.failed.extend(failed);
        self.skipped.extend(skipped);
    }

    /// Tests that said they were skipped; to libtest they had passed.
    pub(crate) fn move_to_skipped(&mut self, skips: BTreeSet<Skip>) {
        for skip in skips {
            let has_failed = self
                .failed
                .iter()
                .any(|failure| is_same(&failure.name, &skip.name));
            let is_known = self.skipped.iter().any(|known| known.name == skip.name);
            if !has_failed && !is_known {
                self.passed = self.passed.saturating_sub(1);
                self.skipped.push(skip);
            }
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.failed.is_empty()
    }

    /// The whole report; its last line is the count.
    pub(crate) fn report(&self, times: &[(&str, Duration)]) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        for Failure { name, output } in &self.failed {
            let _ = writeln!(text, "\n---- failed: {name}\n{}", output.trim_end());
        }
        if !self.failed.is_empty() {
            let _ = writeln!(text, "\nfailed:");
            for failure in &self.failed {
                let _ = writeln!(text, "  {}", failure.name);
            }
        }
        if !self.skipped.is_empty() {
            let _ = writeln!(text, "\nskipped:");
            for Skip { name, reason } in &self.skipped {
                let _ = writeln!(text, "  {name}: {reason}");
            }
        }
        let _ = writeln!(text);
        for (tier, time) in times {
            let _ = writeln!(text, "{tier:>8} {:6.1} s", time.as_secs_f64());
        }
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        let _ = write!(
            text,
            "\n{} passed, {failed} failed, {skipped} skipped",
            self.passed
        );
        text
    }
}

/// A test may name itself without the modules that libtest puts before it.
fn is_same(full: &str, short: &str) -> bool {
    full == short
        || full
            .strip_suffix(short)
            .is_some_and(|rest| rest.ends_with("::"))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::{Failure, Outcome, Skip, is_same};

    fn skip(name: &str) -> Skip {
        Skip {
            name: name.to_owned(),
            reason: "needs root".to_owned(),
        }
    }

    #[test]
    fn a_skip_is_taken_from_the_passed_once() {
        let mut outcome = Outcome {
            passed: 3,
            ..Outcome::default()
        };
        outcome.move_to_skipped(BTreeSet::from([skip("a")]));
        outcome.move_to_skipped(BTreeSet::from([skip("a")]));
        assert_eq!((outcome.passed, outcome.skipped.len()), (2, 1));
    }

    #[test]
    fn a_test_that_skipped_and_failed_has_failed() {
        let failure = Failure {
            name: "room::tests::a".to_owned(),
            output: String::new(),
        };
        let mut outcome = Outcome {
            passed: 3,
            failed: vec![failure],
            skipped: Vec::new(),
        };
        outcome.move_to_skipped(BTreeSet::from([skip("a")]));
        assert_eq!(
            (outcome.passed, outcome.failed.len(), outcome.skipped.len()),
            (3, 1, 0)
        );
        assert!(!outcome.is_good());
    }

    #[test]
    fn names_match_by_whole_modules() {
        assert!(is_same("room::tests::drain", "drain"));
        assert!(is_same("room::tests::drain", "tests::drain"));
        assert!(!is_same("room::tests::undrain", "drain"));
    }

    #[test]
    fn the_count_is_the_last_line_and_each_failure_and_skip_is_named() {
        let mut outcome = Outcome::of_check("fmt", Err("Diff in a.rs".to_owned()));
        outcome.add(Outcome::of_check("tidy", Ok(())));
        outcome.add(Outcome::of_skip("deny", "cargo-deny is missing"));
        let report = outcome.report(&[("checks", Duration::from_millis(1500))]);
        assert!(
            report.contains("---- failed: fmt\nDiff in a.rs\n"),
            "{report}"
        );
        assert!(
            report.contains("  deny: cargo-deny is missing\n"),
            "{report}"
        );
        assert!(report.contains("checks    1.5 s"), "{report}");
        assert_eq!(report.lines().last(), Some("1 passed, 1 failed, 1 skipped"));
    }
}
