//! Takes keys out of TOML tables, and notices what is wrong with them.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use toml::de::{DeTable, DeValue};

use super::problem::{Draft, Problems, Span};

/// A table of which each key is taken once; what is left is unknown.
pub(super) struct Section<'t> {
    /// As an operator would write it: `[host]`, `[[instance.route]]`.
    pub(super) title: &'static str,
    /// The header.
    pub(super) span: Span,
    entries: BTreeMap<&'t str, (Span, Value<'t>)>,
    known: Vec<&'static str>,
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Value<'t> {
    /// The key whose value this is, or is part of.
    key: &'t str,
    pub(super) span: Span,
    pub(super) inner: &'t DeValue<'t>,
}

impl<'t> Section<'t> {
    pub(super) fn new(title: &'static str, span: Span, table: &'t DeTable<'t>) -> Self {
        let entry = |(key, value): (&'t toml::Spanned<_>, &'t toml::Spanned<DeValue<'t>>)| {
            let key: &'t toml::Spanned<std::borrow::Cow<'t, str>> = key;
            let inner = value.get_ref();
            let span = value.span();
            let (key, key_span) = (key.get_ref().as_ref(), key.span());
            (key, (key_span, Value { key, span, inner }))
        };
        Self {
            title,
            span,
            entries: table.iter().map(entry).collect(),
            known: Vec::new(),
        }
    }

    /// Takes a key out, if it is there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'t>> {
        self.known.push(key);
        let (_, value) = self.entries.remove(key)?;
        Some(value)
    }

    /// Whether a key is there, of whatever type, and not taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Takes a key out that has to be there.
    pub(super) fn require(
        &mut self,
        key: &'static str,
        help: &str,
        problems: &mut Problems,
    ) -> Option<Value<'t>> {
        let value = self.take(key);
        if value.is_none() {
            let message = format!("{} has no `{key}`", self.title);
            let draft = Draft::new(self.span.clone(), message, format!("`{key}` is missing"));
            problems.error(draft.help(help));
        }
        value
    }

    /// Takes a table out, if it is there.
    pub(super) fn section(
        &mut self,
        key: &'static str,
        title: &'static str,
        problems: &mut Problems,
    ) -> Option<Section<'t>> {
        let value = self.take(key)?;
        match value.inner {
            DeValue::Table(table) => Some(Section::new(title, value.span, table)),
            _ => {
                value.wrong(&format!("a section: {title}"), problems);
                None
            }
        }
    }

    /// Takes an array of tables out. None is as good as an empty one; `None`
    /// is something else, which has been reported.
    pub(super) fn sections(
        &mut self,
        key: &'static str,
        title: &'static str,
        problems: &mut Problems,
    ) -> Option<Vec<Section<'t>>> {
        let Some(value) = self.take(key) else {
            return Some(Vec::new());
        };
        let DeValue::Array(_) = value.inner else {
            value.wrong(&format!("sections under {title}"), problems);
            return None;
        };
        let mut sections = Vec::new();
        for item in value.items() {
            match item.inner {
                DeValue::Table(table) => sections.push(Section::new(title, item.span, table)),
                _ => item.wrong(&format!("a section: {title}"), problems),
            }
        }
        Some(sections)
    }

    /// Every key that nobody took is an error.
    pub(super) fn finish(self, problems: &mut Problems) {
        for (key, (span, _)) in self.entries {
            let message = format!("unknown key `{}` in {}", key.escape_debug(), self.title);
            let help = match nearest(key, &self.known) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("keys of {}: {}", self.title, self.known.join(", ")),
            };
            problems.error(Draft::new(span, message, "not a key of this section").help(help));
        }
    }
}

impl<'t> Value<'t> {
    /// Reports that the value should have been something else.
    pub(super) fn wrong(&self, expected: &str, problems: &mut Problems) {
        let found = match self.inner {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        let message = format!("`{}`: expected {expected}, found {found}", self.key);
        problems.error(Draft::new(self.span.clone(), message, "of the wrong type"));
    }

    pub(super) fn string(&self, problems: &mut Problems) -> Option<&'t str> {
        match self.inner {
            DeValue::String(text) => Some(text.as_ref()),
            _ => {
                self.wrong("a string", problems);
                None
            }
        }
    }

    pub(super) fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        match self.inner {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong("true or false", problems);
                None
            }
        }
    }

    pub(super) fn integer(
        &self,
        range: RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<u32> {
        let DeValue::Integer(integer) = self.inner else {
            self.wrong("an integer", problems);
            return None;
        };
        let value = i128::from_str_radix(integer.as_str(), integer.radix());
        let value = value.ok().and_then(|value| u32::try_from(value).ok());
        let value = value.filter(|value| range.contains(value));
        if value.is_none() {
            let (min, max) = range.into_inner();
            let message = format!("`{}` must be from {min} to {max}", self.key);
            problems.error(Draft::new(self.span.clone(), message, "out of range"));
        }
        value
    }

    /// A duration in seconds, with or without a fraction.
    pub(super) fn seconds(
        &self,
        range: RangeInclusive<Duration>,
        problems: &mut Problems,
    ) -> Option<Duration> {
        let seconds: Option<f64> = match self.inner {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .and_then(|value| i32::try_from(value).ok())
                .map(f64::from),
            _ => {
                self.wrong("a number of seconds", problems);
                return None;
            }
        };
        let duration = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
        let duration = duration.filter(|duration| range.contains(duration));
        if duration.is_none() {
            let (min, max) = (range.start().as_secs_f64(), range.end().as_secs_f64());
            let message = format!("`{}` must be from {min} to {max} seconds", self.key);
            problems.error(Draft::new(self.span.clone(), message, "out of range"));
        }
        duration
    }

    pub(super) fn array(&self, of: &str, problems: &mut Problems) -> Option<Vec<Value<'t>>> {
        let DeValue::Array(_) = self.inner else {
            self.wrong(&format!("an array of {of}"), problems);
            return None;
        };
        Some(self.items().collect())
    }

    /// The items of an array; of anything else, none.
    fn items(&self) -> impl Iterator<Item = Value<'t>> + use<'t> {
        let (key, array) = (self.key, self.inner.as_array());
        let items = array.into_iter().flat_map(|array| array.iter());
        items.map(move |item| Value {
            key,
            span: item.span(),
            inner: item.get_ref(),
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        words: &[(&'static str, T)],
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.string(problems)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("`{}`: unknown value \"{}\"", self.key, text.escape_debug());
            let help = match nearest(text, &names) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => format!("one of: {}", names.join(", ")),
            };
            problems
                .error(Draft::new(self.span.clone(), message, "not one of the choices").help(help));
        }
        found.map(|(_, value)| *value)
    }
}

/// The known word that `text` was most likely meant to be.
pub(super) fn nearest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    // Long keys are no misspelling of anything, and cost quadratic time.
    if text.len() > 64 {
        return None;
    }
    // A third of the letters may be wrong, or one of a short word's.
    let budget = (text.chars().count() / 3).max(1);
    let distance = |word: &&&str| strsim::damerau_levenshtein(&text.to_lowercase(), word);
    let best = known.iter().min_by_key(distance)?;
    (distance(&best) <= budget).then_some(best)
}
