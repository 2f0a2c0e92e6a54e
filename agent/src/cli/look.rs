//! How things look: colour, width, numbers, ages. Pure.

use std::fmt::Write;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};

/// Where the text goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub color: bool,
    /// Columns of the terminal; `None` does not wrap (a pipe, a file).
    pub width: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Notice,
    Bad,
    Strong,
}

impl Look {
    pub const PLAIN: Self = Self {
        color: false,
        width: Some(80),
    };

    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            _ if !self.color => return text.to_owned(),
            Tone::Good => "32",
            Tone::Notice => "33",
            Tone::Bad => "31",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A table without lines: easy to read, easy to cut with awk.
    pub fn table(self, header: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let cells = header
            .iter()
            .map(|h| Cell::new(h).add_attribute(Attribute::Bold));
        table.set_header(cells.collect::<Vec<_>>());
        let last = header.len().saturating_sub(1);
        for (i, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if i == last { 0 } else { 2 }));
        }
        if self.color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        if let Some(width) = self.width {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(width);
        }
        table
    }
}

pub fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

pub fn toned(tone: Tone, text: &str) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::DarkGreen),
        Tone::Notice => cell.fg(Color::DarkYellow),
        Tone::Bad => cell.fg(Color::DarkRed),
        Tone::Strong => cell.add_attribute(Attribute::Bold),
    }
}

/// A table as lines without trailing blanks, ending with a newline.
pub fn lines(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Text of others (a task's name, an interface, a message) on one line, with
/// nothing in it that a terminal would obey.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_bidi(c) {
            let _ = write!(safe, "{}", c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Characters that reorder the text around them (UAX 9).
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Four digits or more become three and a unit: `1234` is `1.23k`.
pub fn count(number: u64) -> String {
    const UNITS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if number < 1000 {
        return number.to_string();
    }
    let mut unit = 0;
    let mut scale = 1000;
    while number / scale >= 1000 && unit + 1 < UNITS.len() {
        scale *= 1000;
        unit += 1;
    }
    let whole = number / scale;
    let rest = number % scale / (scale / 100);
    let name = UNITS[unit];
    match whole {
        0..10 => format!("{whole}.{rest:02}{name}"),
        10..100 => format!("{whole}.{}{name}", rest / 10),
        _ => format!("{whole}{name}"),
    }
}

/// An age in its two greatest units.
pub fn age(ms: u64) -> String {
    let s = ms / 1000;
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    match () {
        () if s < 1 => format!("{ms}ms"),
        () if s < 10 => format!("{s}.{}s", ms % 1000 / 100),
        () if m < 1 => format!("{s}s"),
        () if h < 1 => format!("{m}m{}s", s % 60),
        () if d < 1 => format!("{h}h{}m", m % 60),
        () => format!("{d}d{}h", h % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_keep_three_digits() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1.00k"),
            (9_999, "9.99k"),
            (12_345, "12.3k"),
            (999_999, "999k"),
            (1_000_000, "1.00M"),
            (u64::MAX, "18.4E"),
        ];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn ages_have_two_units() {
        let cases = [
            (0, "0ms"),
            (999, "999ms"),
            (2_500, "2.5s"),
            (59_999, "59s"),
            (75_000, "1m15s"),
            (3_600_000, "1h0m"),
            (90_000_000, "1d1h"),
            (u64::MAX, "213503982334d14h"),
        ];
        for (ms, text) in cases {
            assert_eq!(age(ms), text);
        }
    }

    #[test]
    fn a_terminal_obeys_nothing_in_foreign_text() {
        assert_eq!(
            printable("a\x1b[2Jb\n\u{202e}ö"),
            "a\\u{1b}[2Jb\\n\\u{202e}ö"
        );
    }

    #[test]
    fn colour_only_when_wanted() {
        let color = Look {
            color: true,
            ..Look::PLAIN
        };
        assert_eq!(color.paint(Tone::Bad, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Look::PLAIN.paint(Tone::Bad, "x"), "x");
        for look in [color, Look::PLAIN] {
            let mut table = look.table(&["A"]);
            table.add_row([toned(Tone::Bad, "x")]);
            assert_eq!(lines(&table).contains('\x1b'), look.color);
        }
    }
}
