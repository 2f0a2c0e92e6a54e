//! The command line: words of the form `key=value`, separated by blanks.

/// What the payload is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub action: Action,
    /// Printed before anything else.
    pub say: &'a str,
    /// Seed of the pattern.
    pub seed: u64,
    /// Bytes of the pattern.
    pub bytes: u64,
}

/// How the payload ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// By the keyboard controller.
    Reset,
    /// By the reset control register.
    ResetControl,
    PowerOff,
    /// An exception that nobody handles.
    TripleFault,
    /// A write through a null pointer.
    Null,
    /// Never; counts in memory.
    Spin,
    /// Writes to and reads from ports and addresses where nothing is, then resets.
    Strays,
}

/// A word that is none of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown<'a>(pub &'a str);

impl<'a> Line<'a> {
    pub fn parse(text: &'a str) -> Result<Self, Unknown<'a>> {
        let mut line = Self {
            action: Action::Reset,
            say: "",
            seed: 0,
            bytes: 0,
        };
        for word in text.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').ok_or(Unknown(word))?;
            let number = || value.parse().map_err(|_| Unknown(word));
            match key {
                "do" => line.action = Action::of(value).ok_or(Unknown(word))?,
                "say" => line.say = value,
                "seed" => line.seed = number()?,
                "bytes" => line.bytes = number()?,
                _ => return Err(Unknown(word)),
            }
        }
        Ok(line)
    }
}

impl Action {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "reset" => Self::Reset,
            "reset-control" => Self::ResetControl,
            "power-off" => Self::PowerOff,
            "triple-fault" => Self::TripleFault,
            "null" => Self::Null,
            "spin" => Self::Spin,
            "strays" => Self::Strays,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Line, Unknown};

    #[test]
    fn words_are_read_in_any_order() {
        let line = Line::parse(" bytes=4096 do=power-off  say=hello seed=7").unwrap();
        let expected = Line {
            action: Action::PowerOff,
            say: "hello",
            seed: 7,
            bytes: 4096,
        };
        assert_eq!(line, expected);
        assert_eq!(Line::parse("").unwrap().action, Action::Reset);
    }

    #[test]
    fn a_word_that_is_not_ours_is_named() {
        for word in ["do=dance", "bytes=-1", "quiet", "x=1"] {
            assert_eq!(Line::parse(word), Err(Unknown(word)));
        }
    }
}
