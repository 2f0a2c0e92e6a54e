//! Reads what libtest prints, line by line, over any number of test programs.
//!
//! Counts come from each program's `test result:` line, names and output of
//! failures from its two `failures:` lists. A program that died before its
//! result line is a failure of its own.

use super::outcome::{Failure, Outcome, Skip};

/// What a line is to the reader.
#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    /// Between two test programs.
    #[default]
    Outside,
    /// After `running N tests`.
    Running,
    /// In the output of the tests that failed.
    Details,
    /// In the list of their names.
    Names,
}

#[derive(Debug, Default)]
pub(crate) struct Reader {
    place: Place,
    /// Tests this program said it would run.
    expected: usize,
    details: Vec<Failure>,
    names: Vec<String>,
    outcome: Outcome,
}

impl Reader {
    /// Takes one line without its end. Says whether a person wants to see it now.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if let Some(expected) = running(line) {
            self.end_program();
            self.place = Place::Running;
            self.expected = expected;
            return false;
        }
        if self.place == Place::Outside {
            return !line.is_empty();
        }
        if let Some(result) = Counts::of(line).filter(|counts| counts.sum() == self.expected) {
            self.finish(&result);
            return false;
        }
        match self.place {
            Place::Outside => true,
            Place::Running => self.progress(line),
            Place::Details => {
                self.detail(line);
                false
            }
            Place::Names => {
                let name = line.strip_prefix("    ").filter(|name| !name.is_empty());
                self.names.extend(name.map(str::to_owned));
                false
            }
        }
    }

    /// All lines were read.
    pub(crate) fn end(mut self) -> Outcome {
        self.end_program();
        self.outcome
    }

    fn progress(&mut self, line: &str) -> bool {
        if line == "failures:" {
            self.place = Place::Details;
            return false;
        }
        if let Some((name, reason)) = ignored(line) {
            let (name, reason) = (name.to_owned(), reason.to_owned());
            self.outcome.skipped.push(Skip { name, reason });
        }
        !line.is_empty()
    }

    fn detail(&mut self, line: &str) {
        if line == "failures:" {
            self.place = Place::Names;
        } else if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|l| l.strip_suffix(" stdout ----"))
        {
            self.details.push(Failure {
                name: name.to_owned(),
                output: String::new(),
            });
        } else if let Some(failure) = self.details.last_mut() {
            failure.output.push_str(line);
            failure.output.push('\n');
        }
    }

    fn finish(&mut self, counts: &Counts) {
        self.outcome.passed += counts.passed;
        for name in std::mem::take(&mut self.names) {
            let output = self.details.iter().position(|detail| detail.name == name);
            let output = output
                .map(|at| self.details.swap_remove(at).output)
                .unwrap_or_default();
            self.outcome.failed.push(Failure { name, output });
        }
        self.details.clear();
        self.place = Place::Outside;
    }

    fn end_program(&mut self) {
        if std::mem::take(&mut self.place) != Place::Outside {
            let name = format!("a program of {} tests", self.expected);
            let output = "it ended before its result; see its output above".to_owned();
            self.outcome.failed.push(Failure { name, output });
        }
    }
}

fn running(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("running ")?;
    rest.strip_suffix(" tests")
        .or_else(|| rest.strip_suffix(" test"))?
        .parse()
        .ok()
}

fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    Some((name, rest.strip_prefix(", ").unwrap_or("marked as ignored")))
}

struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
    measured: usize,
}

impl Counts {
    fn of(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |word: &str| {
            let part = counts
                .split(';')
                .find_map(|part| part.trim().strip_suffix(word))?;
            part.trim().parse().ok()
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            ignored: count("ignored")?,
            measured: count("measured")?,
        })
    }

    fn sum(&self) -> usize {
        self.passed + self.failed + self.ignored + self.measured
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;
    use crate::test::outcome::Outcome;

    fn read(text: &str) -> Outcome {
        let mut reader = Reader::default();
        for line in text.lines() {
            reader.line(line);
        }
        reader.end()
    }

    const GOOD: &str = "
running 2 tests
test a ... ok
test b ... ignored, needs a disk

test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

";

    const BAD: &str = "
running 3 tests
test a ... ok
test m::b ... FAILED
test m::c ... FAILED

failures:

---- m::b stdout ----
test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
thread panicked

---- m::c stdout ----
left: 1

failures:
    m::b
    m::c

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.00s
";

    #[test]
    fn passed_and_ignored_are_counted() {
        let outcome = read(GOOD);
        assert_eq!(outcome.passed, 1);
        assert!(outcome.is_good());
        assert_eq!(outcome.skipped[0].name, "b");
        assert_eq!(outcome.skipped[0].reason, "needs a disk");
    }

    #[test]
    fn failures_have_their_output_whatever_they_print() {
        let outcome = read(&format!("{GOOD}{BAD}{GOOD}"));
        assert_eq!((outcome.passed, outcome.skipped.len()), (3, 2));
        let names: Vec<_> = outcome
            .failed
            .iter()
            .map(|failure| failure.name.as_str())
            .collect();
        assert_eq!(names, ["m::b", "m::c"]);
        assert!(outcome.failed[0].output.contains("thread panicked"));
        assert!(outcome.failed[1].output.contains("left: 1"));
    }

    #[test]
    fn a_program_that_dies_has_failed() {
        let outcome = read("\nrunning 2 tests\ntest a ... ok\n");
        assert_eq!((outcome.passed, outcome.failed.len()), (0, 1));
        let outcome = read(&format!("\nrunning 2 tests\ntest a ... ok\n{GOOD}"));
        assert_eq!((outcome.passed, outcome.failed.len()), (1, 1));
    }

    #[test]
    fn output_between_programs_is_shown_and_results_are_not() {
        let mut reader = Reader::default();
        assert!(reader.line("   Doc-tests ghostd"));
        assert!(!reader.line("running 1 test"));
        assert!(reader.line("test a ... ok"));
        assert!(!reader.line(
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s"
        ));
        assert_eq!(reader.end().passed, 1);
    }
}
