//! What is wrong with a configuration, and where.

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError,
    MietteSpanContents, NamedSource, Severity, SourceCode, SourceSpan, SpanContents,
    ThemeCharacters, ThemeStyles,
};

/// Problems shown at once. A screen's worth: more are mostly consequences.
pub const PROBLEMS_SHOWN_MAX: usize = 20;

/// Columns of the rendered text. Source lines are never wrapped.
const WIDTH: usize = 100;

/// Bytes of a file's excerpt: more is no help to a reader, and lines beyond
/// 65,535 columns cannot be drawn.
const EXCERPT_BYTES_MAX: usize = 4096;

/// Characters of a message; it may quote what stands in the file.
const MESSAGE_CHARS_MAX: usize = 500;

/// Byte offsets into the file.
pub(super) type Span = Range<usize>;

/// Whether [`ConfigErrors::render`] uses ANSI colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Never,
    Always,
}

/// A configuration file's name and text, for showing excerpts of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source(Arc<NamedSource<String>>);

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        Self(Arc::new(NamedSource::new(
            printable(name),
            printable(text).into_owned(),
        )))
    }

    fn text(&self) -> &str {
        self.0.inner()
    }

    /// The span, moved to lie within the text and on whole characters.
    fn clamp(&self, span: &Span) -> Span {
        let text = self.text();
        let start = text.floor_char_boundary(span.start);
        let end = text.ceil_char_boundary(span.end);
        // A file that ends in mid-sentence is marked at its last character.
        let (start, end) = if start == text.len() {
            let trimmed = text.trim_end().len();
            (text.floor_char_boundary(trimmed.saturating_sub(1)), trimmed)
        } else {
            (start, end)
        };
        start..end.max(start)
    }

    /// Whether the lines of a span, with one around them, can be shown.
    fn can_show(&self, span: &Span) -> bool {
        let text = self.text();
        let line_start = |at: usize| text[..at].rfind('\n').unwrap_or(0);
        let line_end = |at: usize| text[at..].find('\n').map_or(text.len(), |end| at + end);
        let start = line_start(line_start(span.start));
        let end = line_end((line_end(span.end) + 1).min(text.len()));
        end - start <= EXCERPT_BYTES_MAX
    }

    /// Line and column, both from 1, the column in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text()[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

impl SourceCode for Source {
    /// As the inner source has it, but columns count characters, like editors.
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let text: &'a String = self.0.inner();
        let found = text.read_span(span, lines_before, lines_after)?;
        let (line, column) = self.position(text.floor_char_boundary(found.span().offset()));
        Ok(Box::new(MietteSpanContents::new_named(
            self.0.name().to_owned(),
            found.data(),
            *found.span(),
            line - 1,
            column - 1,
            found.line_count(),
        )))
    }
}

/// Control characters, which may steer a terminal, give way to as many bytes
/// of something harmless, so that offsets stay true.
fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\r' => clean.push(' '),
            c if harmful(c) => (0..c.len_utf8()).for_each(|_| clean.push('?')),
            c => clean.push(c),
        }
    }
    Cow::Owned(clean)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// One thing that is wrong, or odd, with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    source: Source,
    severity: Severity,
    message: String,
    span: Span,
    label: String,
    /// Another place that has to do with it.
    also: Option<(Span, String)>,
    help: Option<String>,
}

impl Problem {
    /// `FILE:LINE:COLUMN: MESSAGE`, for logs.
    pub fn one_line(&self) -> String {
        let (line, column) = self.position();
        format!("{}:{line}:{column}: {}", self.source.0.name(), self.message)
    }

    /// Line and column, both from 1.
    pub fn position(&self) -> (usize, usize) {
        self.source.position(self.span.start)
    }

    pub fn is_warning(&self) -> bool {
        self.severity == Severity::Warning
    }

    fn without_excerpt(&self) -> String {
        let kind = if self.is_warning() {
            "warning"
        } else {
            "error"
        };
        let help = self.help.iter().map(|help| format!("  help: {help}\n"));
        let help: String = help.collect();
        format!("  {kind}: {}\n{help}", self.one_line())
    }

    /// The full text with an excerpt of the file, if that is not too long.
    pub fn render(&self, colour: Colour) -> String {
        let styles = match colour {
            Colour::Never => ThemeStyles::none(),
            Colour::Always => ThemeStyles::ansi(),
        };
        let mut characters = ThemeCharacters::ascii();
        characters.underbar = '^';
        characters.error = "error:".to_owned();
        characters.warning = "warning:".to_owned();
        let theme = GraphicalTheme { characters, styles };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(WIDTH)
            .with_context_lines(1)
            .with_links(false)
            .without_syntax_highlighting();
        let mut spans = [&self.span]
            .into_iter()
            .chain(self.also.iter().map(|a| &a.0));
        let mut text = String::new();
        if !spans.all(|span| self.source.can_show(span))
            || handler.render_report(&mut text, self).is_err()
        {
            text = self.without_excerpt();
        }
        let lines = text.lines().map(str::trim_end);
        lines.flat_map(|line| [line, "\n"]).collect()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        let help = self.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let main = LabeledSpan::new_primary_with_span(Some(self.label.clone()), self.span.clone());
        let also = self.also.as_ref();
        let also =
            also.map(|(span, label)| LabeledSpan::new_with_span(Some(label.clone()), span.clone()));
        Some(Box::new(std::iter::once(main).chain(also)))
    }
}

/// Everything wrong with a configuration that was refused, by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
    /// Errors beyond [`PROBLEMS_SHOWN_MAX`].
    more: usize,
}

impl ConfigErrors {
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The text for people: for a terminal, the log and the API.
    pub fn render(&self, colour: Colour) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&problem.render(colour));
            text.push('\n');
        }
        text.push_str(&format!("{self}\n"));
        text
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.problems.len();
        let name = self.problems.first().map_or("", |p| p.source.0.name());
        match (shown + self.more, self.more) {
            (1, _) => write!(f, "{name} has 1 error"),
            (all, 0) => write!(f, "{name} has {all} errors"),
            (all, _) => write!(f, "{name} has {all} errors, the first {shown} are shown"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl Diagnostic for ConfigErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|p| p as &dyn Diagnostic)))
    }
}

/// Collects problems while a configuration is read.
pub(super) struct Problems {
    source: Source,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    more: usize,
}

/// A problem under construction; see [`Problems::error`].
pub(super) struct Draft {
    pub(super) message: String,
    pub(super) span: Span,
    pub(super) label: String,
    pub(super) also: Option<(Span, String)>,
    pub(super) help: Option<String>,
}

impl Draft {
    pub(super) fn new(span: Span, message: impl Into<String>, label: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span,
            label: label.into(),
            also: None,
            help: None,
        }
    }

    pub(super) fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.also = Some((span, label.into()));
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Problems {
    pub(super) fn new(source: &Source) -> Self {
        Self {
            source: source.clone(),
            errors: Vec::new(),
            warnings: Vec::new(),
            more: 0,
        }
    }

    pub(super) fn error(&mut self, draft: Draft) {
        if self.errors.len() < PROBLEMS_SHOWN_MAX {
            let problem = self.problem(draft, Severity::Error);
            self.errors.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Warnings beyond [`PROBLEMS_SHOWN_MAX`] are not kept.
    pub(super) fn warning(&mut self, draft: Draft) {
        if self.warnings.len() < PROBLEMS_SHOWN_MAX {
            let problem = self.problem(draft, Severity::Warning);
            self.warnings.push(problem);
        }
    }

    fn problem(&self, draft: Draft, severity: Severity) -> Problem {
        let also = draft.also;
        Problem {
            source: self.source.clone(),
            severity,
            message: shortened(&printable(&draft.message)),
            span: self.source.clamp(&draft.span),
            label: printable(&draft.label).into_owned(),
            also: also.map(|(span, label)| (self.source.clamp(&span), label)),
            help: draft.help.map(|help| printable(&help).into_owned()),
        }
    }

    /// `value` and the warnings if there is no error, else the errors; both
    /// by place. Without a value there has been an error.
    pub(super) fn conclude<T>(
        mut self,
        value: Option<T>,
    ) -> Result<(T, Vec<Problem>), ConfigErrors> {
        match value {
            Some(value) if self.errors.is_empty() => {
                self.warnings.sort_by_key(|problem| problem.span.start);
                Ok((value, self.warnings))
            }
            _ => {
                self.errors.sort_by_key(|problem| problem.span.start);
                Err(ConfigErrors {
                    problems: self.errors,
                    more: self.more,
                })
            }
        }
    }
}
