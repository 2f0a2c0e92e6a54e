//! What harness and machine say to each other: JSON, one value a line.

use std::{fmt, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Where every machine serves.
pub const UDP_PORT: u16 = 7007;
pub const TCP_PORT: u16 = 7007;
pub const HTTP_PORT: u16 = 8080;

/// Which copy of a service a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Primary,
    Ghost,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Ghost => "ghost",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "primary" => Some(Self::Primary),
            "ghost" => Some(Self::Ghost),
            _ => None,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a machine is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineSpec {
    pub name: String,
    /// Serve as this copy on these addresses; `None` for a host.
    pub serve: Option<(Side, Vec<IpAddr>)>,
    /// A cgroup v2 directory to live in, as the keeper sees it.
    pub cgroup: Option<PathBuf>,
}

/// A command of `reboot(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Restart,
    Restart2,
    Halt,
    PowerOff,
    CadOff,
    CadOn,
}

/// Who in the machine calls `reboot(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    Init,
    Child,
    /// A child without privileges: the call fails.
    Nobody,
}

/// Harness to init.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    Reboot { how: How, who: Who },
}

/// Keeper or init to harness.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// Init serves and takes orders.
    Ready,
    /// The next thing init does is the call. CLOCK_MONOTONIC.
    Rebooting { at_ns: u64 },
    /// The call came back: `None` for success.
    Survived { errno: Option<i32> },
    /// Keeper: init is gone.
    Ended {
        signal: Option<i32>,
        code: Option<i32>,
    },
    /// Something went wrong; the machine ends.
    Failed { why: String },
}
