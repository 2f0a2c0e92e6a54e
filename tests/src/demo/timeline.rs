//! Who noticed what, and when, counted from the reboot call.

use std::fmt;

/// Entries in any order; shown in order of time.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    at_ns: u64,
    who: &'static str,
    what: String,
}

impl Timeline {
    /// Writes down an event at a CLOCK_MONOTONIC time.
    pub fn add(&mut self, at_ns: u64, who: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.entries.push(Entry { at_ns, who, what });
    }

    /// As text, times relative to `zero_ns` in microseconds.
    pub fn relative_to(&self, zero_ns: u64) -> impl fmt::Display {
        let mut entries = self.entries.clone();
        entries.sort_by_key(|entry| entry.at_ns);
        Shown { entries, zero_ns }
    }
}

struct Shown {
    entries: Vec<Entry>,
    zero_ns: u64,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Entry { at_ns, who, what } in &self.entries {
            let after_ns = at_ns.cast_signed() - self.zero_ns.cast_signed();
            let us = after_ns as f64 / 1000.0;
            writeln!(f, "  {us:>+14.1} us  {who:<8}  {what}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_shown_in_order_and_in_microseconds() {
        let mut timeline = Timeline::default();
        timeline.add(3_500, "kernel", "second");
        timeline.add(500, "init", "first");
        let text = timeline.relative_to(1_500).to_string();
        let expected =
            "            -1.0 us  init      first\n            +2.0 us  kernel    second\n";
        assert_eq!(text, expected);
    }
}
