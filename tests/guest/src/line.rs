//! The command line: words of the form `key=value`, separated by blanks.

use core::{
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

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
    /// Own addresses, with the lengths of their prefixes.
    pub v4: Option<(Ipv4Addr, u8)>,
    pub v6: Option<(Ipv6Addr, u8)>,
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
    /// Never; answers on the network.
    Serve,
    /// Writes nonsense to the registers and rings of its devices, then resets.
    Nonsense,
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
            v4: None,
            v6: None,
        };
        for word in text.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').ok_or(Unknown(word))?;
            let number = || value.parse().map_err(|_| Unknown(word));
            match key {
                "do" => line.action = Action::of(value).ok_or(Unknown(word))?,
                "say" => line.say = value,
                "seed" => line.seed = number()?,
                "v4" => line.v4 = Some(prefixed(value, 32).ok_or(Unknown(word))?),
                "v6" => line.v6 = Some(prefixed(value, 128).ok_or(Unknown(word))?),
                "bytes" => line.bytes = number()?,
                _ => return Err(Unknown(word)),
            }
        }
        Ok(line)
    }
}

/// An address and the length of its prefix, as in `10.0.0.1/24`.
fn prefixed<A: FromStr>(text: &str, length_max: u8) -> Option<(A, u8)> {
    let (address, length) = text.split_once('/')?;
    let length = length.parse().ok().filter(|&length| length <= length_max)?;
    Some((address.parse().ok()?, length))
}

impl Action {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "reset" => Self::Reset,
            "reset-control" => Self::ResetControl,
            "power-off" => Self::PowerOff,
            "triple-fault" => Self::TripleFault,
            "null" => Self::Null,
            "serve" => Self::Serve,
            "nonsense" => Self::Nonsense,
            "spin" => Self::Spin,
            "strays" => Self::Strays,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::{Action, Line, Unknown};

    #[test]
    fn words_are_read_in_any_order() {
        let line =
            Line::parse(" bytes=4096 do=power-off  say=hello seed=7 v4=10.0.0.1/24").unwrap();
        let expected = Line {
            action: Action::PowerOff,
            say: "hello",
            seed: 7,
            bytes: 4096,
            v4: Some((Ipv4Addr::new(10, 0, 0, 1), 24)),
            v6: None,
        };
        assert_eq!(line, expected);
        assert_eq!(Line::parse("").unwrap().action, Action::Reset);
    }

    #[test]
    fn a_word_that_is_not_ours_is_named() {
        for word in [
            "do=dance",
            "bytes=-1",
            "quiet",
            "x=1",
            "v4=10.0.0.1/33",
            "v6=10.0.0.1/8",
        ] {
            assert_eq!(Line::parse(word), Err(Unknown(word)));
        }
    }
}
