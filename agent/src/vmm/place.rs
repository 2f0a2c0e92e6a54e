//! Where a file is that we are given.

use std::{convert::Infallible, fmt, os::fd::RawFd, path::PathBuf, str::FromStr};

/// A path, or a descriptor that whoever started us has opened: `fd:7`.
///
/// A file of such a name is reached by `./fd:7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Path(PathBuf),
    Inherited(RawFd),
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix("fd:").map(str::parse);
        Ok(match number {
            Some(Ok(fd)) => Self::Inherited(fd),
            _ => Self::Path(text.into()),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Inherited(fd) => write!(f, "fd:{fd}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_descriptor_is_told_from_a_path() {
        let place = |text: &str| text.parse::<Place>().unwrap();
        assert_eq!(place("fd:7"), Place::Inherited(7));
        for path in ["./fd:7", "fd:", "fd:x", "fd:99999999999", "/dev/kvm"] {
            assert_eq!(place(path), Place::Path(path.into()));
            assert_eq!(place(path).to_string(), path);
        }
        assert_eq!(place("fd:7").to_string(), "fd:7");
    }
}
