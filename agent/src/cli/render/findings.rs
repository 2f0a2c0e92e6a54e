//! Findings of `ghostctl doctor` and `ghostctl status`.

use std::fmt::Write;

use crate::{
    cli::look::{Look, Tone, printable},
    control::dto::{FindingDto, Severity},
};

/// Each finding, with the command that mends it.
pub fn findings(findings: &[FindingDto], look: Look) -> String {
    let mut text = String::new();
    for finding in findings {
        let FindingDto {
            severity,
            code,
            what,
            mend,
        } = finding;
        let (tone, word) = match severity {
            Severity::Error => (Tone::Bad, "error"),
            Severity::Warning => (Tone::Notice, "warning"),
            Severity::Info => (Tone::Strong, "info"),
        };
        let word = look.paint(tone, &format!("{word:<8}"));
        let what = wrap(&format!("{} [{}]", printable(what), printable(code)), look);
        let _ = writeln!(text, "{word} {what}");
        if let Some(mend) = mend {
            let mend = wrap(&printable(mend), look);
            let _ = writeln!(text, "{:<8} {mend}", "   mend:");
        }
    }
    text
}

/// Width of the column before the text.
const INDENT: usize = 9;

/// Breaks at blanks where a terminal is narrow; a longer word stays whole,
/// because it may be a path or a command to copy.
fn wrap(text: &str, look: Look) -> String {
    let width = look
        .width
        .map_or(usize::MAX, |w| usize::from(w).max(INDENT + 20) - INDENT);
    let mut lines = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            let _ = write!(lines, "\n{:INDENT$}", "");
            used = 0;
        } else if used > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length;
    }
    lines
}
