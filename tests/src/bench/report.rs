//! What was measured, for a person and for a program.

use std::fmt;

use serde_json::{Value, json};

use super::sample::Sample;

/// What a value is held against. Targets are stated, never enforced: numbers
/// depend on the machine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    None,
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn met_by(self, value: f64) -> Option<bool> {
        match self {
            Self::None => None,
            Self::AtMost(limit) => Some(value <= limit),
            Self::AtLeast(limit) => Some(value >= limit),
        }
    }

    const fn limit(self) -> Option<f64> {
        match self {
            Self::None => None,
            Self::AtMost(limit) | Self::AtLeast(limit) => Some(limit),
        }
    }

    const fn sign(self) -> &'static str {
        match self {
            Self::None => "",
            Self::AtMost(_) => "<=",
            Self::AtLeast(_) => ">=",
        }
    }
}

#[derive(Debug)]
struct Row {
    name: String,
    median: f64,
    least: f64,
    p99: f64,
    unit: &'static str,
    target: Target,
}

/// The rows of one section.
#[derive(Debug)]
pub(super) struct Section {
    title: &'static str,
    /// What was compared with what, and how.
    pub(super) notes: Vec<String>,
    rows: Vec<Row>,
}

impl Section {
    pub(super) fn new(title: &'static str) -> Self {
        Self {
            title,
            notes: Vec::new(),
            rows: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The median is what is held against the target.
    pub(super) fn row(
        &mut self,
        name: impl Into<String>,
        values: Vec<f64>,
        unit: &'static str,
        target: Target,
    ) {
        let sample = Sample::of(values);
        self.rows.push(Row {
            name: name.into(),
            median: sample.median(),
            least: sample.least(),
            p99: sample.quantile(0.99),
            unit,
            target,
        });
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({ "section": self.title, "notes": self.notes, "rows": rows })
    }
}

impl Row {
    fn json(&self) -> Value {
        let Self {
            name,
            median,
            least,
            p99,
            unit,
            target,
        } = self;
        json!({
            "name": name, "measured": median, "min": least, "p99": p99, "unit": unit,
            "target": target.limit(), "sense": target.sign(), "met": target.met_by(*median),
        })
    }
}

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Report {
    /// Where, in one line.
    pub(super) machine: String,
    pub(super) sections: Vec<Section>,
}

impl Report {
    pub(super) fn json(&self) -> Value {
        let sections: Vec<Value> = self.sections.iter().map(Section::json).collect();
        json!({ "machine": self.machine, "sections": sections })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; measured is the median", self.machine)?;
        for section in &self.sections {
            write!(f, "\n{section}")?;
        }
        Ok(())
    }
}

/// Characters of the column of names.
const NAME_WIDTH: usize = 62;

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:NAME_WIDTH$} {:>9} {:>9} {:>9} {:5} {:>9}",
            self.title, "measured", "min", "p99", "unit", "target"
        )?;
        for row in &self.rows {
            let limit = row.target.limit().map_or(String::new(), |limit| {
                format!("{} {}", row.target.sign(), figure(limit))
            });
            let verdict = match row.target.met_by(row.median) {
                None => "",
                Some(true) => "met",
                Some(false) => "MISSED",
            };
            let line = format!(
                "  {:width$} {:>9} {:>9} {:>9} {:5} {limit:>9} {verdict}",
                row.name,
                figure(row.median),
                figure(row.least),
                figure(row.p99),
                row.unit,
                width = NAME_WIDTH - 2,
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        for note in &self.notes {
            writeln!(f, "  - {note}")?;
        }
        Ok(())
    }
}

/// About three significant digits.
fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v < 0.1 && v > 0.0 => format!("{value:.4}"),
        _ => format!("{value:.2}"),
    }
}
