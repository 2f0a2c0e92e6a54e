//! Identifiers and indices.

use std::{fmt, num::NonZeroU32, str::FromStr};

use agent_common::abi::INSTANCE_NAME_BYTES;

/// Why a string is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("an instance name is empty")]
    Empty,
    #[error("instance name `{0}` is longer than {INSTANCE_NAME_BYTES} bytes")]
    TooLong(String),
    #[error("instance name `{0}` has a character other than a-z, 0-9, `-`, `_` and `.`")]
    Character(String),
}

/// Name of an instance: 1 to 60 of `a-z 0-9 - _ .`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceName(String);

impl InstanceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceName {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        if s.is_empty() {
            return Err(IdError::Empty);
        }
        if s.len() > INSTANCE_NAME_BYTES {
            return Err(IdError::TooLong(s.to_owned()));
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if !s.bytes().all(allowed) {
            return Err(IdError::Character(s.to_owned()));
        }
        Ok(Self(s.to_owned()))
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Index of an instance's slot in `gd_switches` and `gd_instances`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotIndex(pub u32);

/// Index of a route's slot in `gd_counters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CounterIndex(pub u32);

/// Kernel index of a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ifindex(pub NonZeroU32);

impl Ifindex {
    pub fn get(self) -> u32 {
        self.0.get()
    }
}
