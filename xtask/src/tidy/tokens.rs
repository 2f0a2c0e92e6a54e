//! Rust source as tokens: the paths it names and the lines it is tested on.
//!
//! Tokens, not text: a word in a comment or a string is not a use of it.

use std::ops::RangeInclusive;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A path such as `std::fs::read`, its `use` groups unfolded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) line: usize,
    pub(super) segments: Vec<String>,
    /// A macro's name, as `todo!` is.
    pub(super) is_macro: bool,
}

impl Path {
    /// Whether it begins with these segments.
    pub(super) fn starts_with(&self, segments: &[&str]) -> bool {
        self.segments.len() >= segments.len()
            && self
                .segments
                .iter()
                .zip(segments)
                .all(|(have, want)| have == want)
    }

    /// Whether it has these segments anywhere, side by side.
    pub(super) fn has(&self, segments: &[&str]) -> bool {
        self.segments
            .windows(segments.len())
            .any(|window| window == segments)
    }
}

#[derive(Debug, Default)]
pub(super) struct Source {
    /// All paths outside of `#[cfg(test)]`.
    pub(super) paths: Vec<Path>,
    /// Lines of items under `#[cfg(test)]`.
    pub(super) tests: Vec<RangeInclusive<usize>>,
}

impl Source {
    /// `None` if this is not Rust; then the compiler says so better.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let stream: TokenStream = text.parse().ok()?;
        let mut source = Self::default();
        source.walk(stream, &[]);
        Some(source)
    }

    fn walk(&mut self, stream: TokenStream, prefix: &[String]) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at = match token {
                TokenTree::Ident(_) => self.path(&tokens, at, prefix),
                TokenTree::Group(group) => {
                    self.walk(group.stream(), &[]);
                    at + 1
                }
                TokenTree::Punct(_) if is_cfg_test(&tokens, at) => self.test_item(&tokens, at),
                TokenTree::Punct(_) | TokenTree::Literal(_) => at + 1,
            };
        }
    }

    /// Reads the path that starts at `at`; returns where it ends.
    fn path(&mut self, tokens: &[TokenTree], mut at: usize, prefix: &[String]) -> usize {
        let mut segments = prefix.to_vec();
        let line = tokens[at].span().start().line;
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(ident)) => segments.push(ident.to_string()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.walk(group.stream(), &segments);
                    return at + 1;
                }
                _ => break,
            }
            at += 1;
            if !is_punct(tokens, at, ':') || !is_punct(tokens, at + 1, ':') {
                break;
            }
            at += 2;
        }
        let is_macro = is_punct(tokens, at, '!') && !is_punct(tokens, at + 1, '=');
        self.paths.push(Path {
            line,
            segments,
            is_macro,
        });
        at
    }

    /// Passes over an item under `#[cfg(test)]`; returns where it ends.
    fn test_item(&mut self, tokens: &[TokenTree], start: usize) -> usize {
        let is_end = |token: &TokenTree| match token {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Punct(punct) => punct.as_char() == ';',
            TokenTree::Ident(_) | TokenTree::Literal(_) => false,
        };
        let end = tokens[start..]
            .iter()
            .position(is_end)
            .map_or(tokens.len(), |n| start + n + 1);
        let first = tokens[start].span().start().line;
        let last = tokens[end - 1].span().end().line;
        self.tests.push(first..=last);
        end
    }
}

fn is_punct(tokens: &[TokenTree], at: usize, wanted: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

/// Whether `#[cfg(test)]`, or `all` of it and more, starts here.
fn is_cfg_test(tokens: &[TokenTree], at: usize) -> bool {
    let Some(TokenTree::Group(group)) = tokens.get(at + 1) else {
        return false;
    };
    is_punct(tokens, at, '#') && group.delimiter() == Delimiter::Bracket && names_test(group)
}

fn names_test(attribute: &Group) -> bool {
    let text = attribute
        .stream()
        .to_string()
        .replace(char::is_whitespace, "");
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

#[cfg(test)]
mod tests {
    use super::Source;

    fn paths(text: &str) -> Vec<String> {
        let source = Source::parse(text).unwrap();
        let long = source
            .paths
            .into_iter()
            .filter(|path| path.segments.len() > 1);
        long.map(|path| format!("{}:{}", path.line, path.segments.join("::")))
            .collect()
    }

    #[test]
    fn use_groups_are_unfolded() {
        let text = "use std::{\n    fs,\n    net::{IpAddr, TcpStream},\n};\nuse crate::a::B;";
        let wanted = [
            "2:std::fs",
            "3:std::net::IpAddr",
            "3:std::net::TcpStream",
            "5:crate::a::B",
        ];
        assert_eq!(paths(text), wanted);
    }

    #[test]
    fn comments_and_strings_name_nothing() {
        assert!(paths("// std::fs\n/// `std::fs`\nconst A: &str = \"std::fs\";").is_empty());
    }

    #[test]
    fn expressions_and_macros_are_read() {
        let text = "fn f() { let x = Instant::now(); println!(\"{}\", tokio::spawn(y)); }";
        assert_eq!(paths(text), ["1:Instant::now", "1:tokio::spawn"]);
        let source = Source::parse("fn f(a: u8) { if a != 1 { m!(); } }").unwrap();
        let macros: Vec<_> = source.paths.iter().filter(|path| path.is_macro).collect();
        assert_eq!(macros.len(), 1);
    }

    #[test]
    fn items_under_cfg_test_are_left_out() {
        let text = "fn a() {}\n#[cfg(test)]\nuse std::fs;\n#[cfg(test)]\nmod tests {\n    use std::io::Read;\n}\nuse x::Y;";
        let source = Source::parse(text).unwrap();
        assert_eq!(source.tests, [2..=3, 4..=7]);
        assert_eq!(paths(text), ["8:x::Y"]);
    }
}
