//! The key-value protocol: a line in, a line out.
//!
//! Owns: what a line may say, and what each answer looks like. A line that
//! says nothing we know gets an answer that begins with `ERR`, and harms
//! nothing.

use core::fmt;

use crate::{journal::Journal, write::Order};

pub const KEY_BYTES_MAX: usize = 64;
pub const VALUE_BYTES_MAX: usize = 192;
/// Without its end; room for the longest `PUT`.
pub const LINE_BYTES_MAX: usize = 320;
/// With its end; room for the longest `VALUE`.
pub const REPLY_BYTES_MAX: usize = 256;

const _: () = assert!("PUT  ".len() + KEY_BYTES_MAX + VALUE_BYTES_MAX <= LINE_BYTES_MAX);
const _: () = assert!("VALUE \n".len() + VALUE_BYTES_MAX <= REPLY_BYTES_MAX);

/// One to [`KEY_BYTES_MAX`] visible ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a>(&'a str);

impl<'a> Key<'a> {
    pub fn new(text: &'a str) -> Option<Self> {
        is_word(text, KEY_BYTES_MAX).then_some(Self(text))
    }

    pub fn text(self) -> &'a str {
        self.0
    }
}

/// One to [`VALUE_BYTES_MAX`] visible ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a>(&'a str);

impl<'a> Value<'a> {
    pub fn new(text: &'a str) -> Option<Self> {
        is_word(text, VALUE_BYTES_MAX).then_some(Self(text))
    }

    pub fn text(self) -> &'a str {
        self.0
    }
}

fn is_word(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    Ping,
    Put(Key<'a>, Value<'a>),
    Get(Key<'a>),
    Incr(Key<'a>),
    Sum,
    /// Start a writer.
    Write(Order),
    /// Stop the writer of a vCPU.
    Stop(u8),
    /// How far the writer of a vCPU is.
    Stat(u8),
    /// Generation id.
    Generation,
    Time,
    /// Reset the guest, as a kernel does that reboots.
    Reset,
}

/// Why a request gets no other answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong<'a> {
    LineTooLong,
    NotAscii,
    Command(&'a str),
    Usage(&'static str),
    Word(&'a str),
    Key,
    Value,
    NotANumber,
    Overflow,
    TableFull,
    DiskFull,
    NoSuchCpu,
    /// The vCPU has not seen the last order yet.
    Busy,
    /// The region of a writer is larger than what there is.
    Pages(u64),
}

impl fmt::Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineTooLong => write!(f, "a line has at most {LINE_BYTES_MAX} bytes"),
            Self::NotAscii => f.write_str("a line is ASCII"),
            // As much of it as surely fits.
            Self::Command(name) => write!(f, "no such command: {name:.32}"),
            Self::Usage(usage) => write!(f, "usage: {usage}"),
            Self::Word(word) => write!(f, "not understood: {word:.64}"),
            Self::Key => write!(f, "a key has 1 to {KEY_BYTES_MAX} visible characters"),
            Self::Value => write!(f, "a value has 1 to {VALUE_BYTES_MAX} visible characters"),
            Self::NotANumber => f.write_str("the value is no decimal number"),
            Self::Overflow => f.write_str("the value is the largest number there is"),
            Self::TableFull => write!(f, "there are {} keys already", crate::table::KEYS_MAX),
            Self::DiskFull => f.write_str("the disk is full"),
            Self::NoSuchCpu => f.write_str("there is no such vCPU"),
            Self::Busy => f.write_str("the vCPU has not seen the last order yet; ask again"),
            Self::Pages(max) => write!(f, "there are {max} pages to write to"),
        }
    }
}

impl<'a> Request<'a> {
    /// A line without its end.
    pub fn parse(line: &'a [u8]) -> Result<Self, Wrong<'a>> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.is_ascii().then(|| core::str::from_utf8(line).ok());
        let line = line.flatten().ok_or(Wrong::NotAscii)?;
        let mut words = line.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        let mut rest = words.clone();
        let (first, second, more) = (rest.next(), rest.next(), rest.next());
        let key = |usage| match (first, second) {
            (Some(key), None) => Key::new(key).ok_or(Wrong::Key),
            _ => Err(Wrong::Usage(usage)),
        };
        match name {
            "PUT" => match (first, second, more) {
                (Some(key), Some(value), None) => Ok(Self::Put(
                    Key::new(key).ok_or(Wrong::Key)?,
                    Value::new(value).ok_or(Wrong::Value)?,
                )),
                _ => Err(Wrong::Usage("PUT key value")),
            },
            "GET" => key("GET key").map(Self::Get),
            "INCR" => key("INCR key").map(Self::Incr),
            "PING" => alone(first, "PING").map(|()| Self::Ping),
            "SUM" => alone(first, "SUM").map(|()| Self::Sum),
            "GEN" => alone(first, "GEN").map(|()| Self::Generation),
            "TIME" => alone(first, "TIME").map(|()| Self::Time),
            "RESET" => alone(first, "RESET").map(|()| Self::Reset),
            "WRITE" => {
                let mut order = Order::NEW;
                for word in words {
                    let (key, value) = word.split_once('=').ok_or(Wrong::Word(word))?;
                    order.set(key, value).ok_or(Wrong::Word(word))?;
                }
                Ok(Self::Write(order))
            }
            "STOP" => cpu(first, second, "STOP [vCPU]").map(Self::Stop),
            "STAT" => cpu(first, second, "STAT [vCPU]").map(Self::Stat),
            _ => Err(Wrong::Command(name)),
        }
    }
}

fn alone(first: Option<&str>, usage: &'static str) -> Result<(), Wrong<'static>> {
    first.map_or(Ok(()), |_| Err(Wrong::Usage(usage)))
}

fn cpu<'a>(
    first: Option<&'a str>,
    second: Option<&str>,
    usage: &'static str,
) -> Result<u8, Wrong<'a>> {
    match (first, second) {
        (None, _) => Ok(0),
        (Some(cpu), None) => cpu.parse().map_err(|_| Wrong::Word(cpu)),
        _ => Err(Wrong::Usage(usage)),
    }
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    Pong,
    /// Done, as the mutation of this number, from 1.
    Done(u64),
    /// Counted up to a number, as the mutation of the first number.
    Counted(u64, u64),
    Value(&'a str),
    None,
    Sum(Journal, usize),
    Started,
    Stopping,
    Stat {
        is_running: bool,
        written: u64,
        order: Order,
    },
    /// Generation id, and the number of the incarnation.
    Generation(u128, u64),
    /// Nanoseconds since 1970.
    Time(u64),
    Wrong(Wrong<'a>),
}

impl fmt::Display for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pong => f.write_str("PONG"),
            Self::Done(number) => write!(f, "OK {number}"),
            Self::Counted(number, value) => write!(f, "OK {number} {value}"),
            Self::Value(value) => write!(f, "VALUE {value}"),
            Self::None => f.write_str("NONE"),
            Self::Sum(journal, keys) => {
                write!(f, "SUM {} {:016x} {keys}", journal.count, journal.hash())
            }
            Self::Started => f.write_str("OK"),
            Self::Stopping => f.write_str("OK"),
            Self::Stat {
                is_running,
                written,
                order,
            } => {
                let state = if *is_running { "running" } else { "idle" };
                write!(f, "STAT {state} written={written} {order}")
            }
            Self::Generation(id, count) => write!(f, "GEN {id:032x} {count}"),
            Self::Time(ns) => write!(f, "TIME {ns}"),
            Self::Wrong(wrong) => write!(f, "ERR {wrong}"),
        }
    }
}

/// Text of bounded length; what does not fit is cut off.
#[derive(Debug, Clone, Copy)]
pub struct Text<const BYTES: usize> {
    bytes: [u8; BYTES],
    used: usize,
}

impl<const BYTES: usize> Text<BYTES> {
    pub const fn new() -> Self {
        Self {
            bytes: [0; BYTES],
            used: 0,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}

impl<const BYTES: usize> Default for Text<BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const BYTES: usize> fmt::Write for Text<BYTES> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.bytes.get_mut(self.used..).unwrap_or_default();
        for (to, byte) in free.iter_mut().zip(text.bytes()) {
            *to = byte;
            self.used += 1;
        }
        Ok(())
    }
}

/// A line that comes in pieces. All zeros is an empty one.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    used: usize,
    /// More came than there is room for.
    is_over: bool,
}

impl Line {
    pub const NEW: Self = Self {
        bytes: [0; LINE_BYTES_MAX],
        used: 0,
        is_over: false,
    };

    /// Takes in bytes up to the end of a line. How many, and whether the line
    /// is complete; then [`Self::request`], and [`Self::clear`].
    pub fn feed(&mut self, input: &[u8]) -> (usize, bool) {
        let end = input.iter().position(|&byte| byte == b'\n');
        let piece = input.get(..end.unwrap_or(input.len())).unwrap_or_default();
        let free = self.bytes.get_mut(self.used..).unwrap_or_default();
        self.is_over |= piece.len() > free.len();
        for (to, &byte) in free.iter_mut().zip(piece) {
            *to = byte;
            self.used += 1;
        }
        let consumed = piece.len() + usize::from(end.is_some());
        (consumed, end.is_some())
    }

    pub fn request(&self) -> Result<Request<'_>, Wrong<'_>> {
        if self.is_over {
            return Err(Wrong::LineTooLong);
        }
        Request::parse(self.bytes.get(..self.used).unwrap_or_default())
    }

    pub fn clear(&mut self) {
        self.used = 0;
        self.is_over = false;
    }
}

#[cfg(test)]
mod tests;
