//! How the two copies of an instance are.

use std::fmt;

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEnd {
    /// It reset itself.
    Reset,
    /// It switched itself off.
    PoweredOff,
    /// It ended by a fault; the hypervisor's words.
    Crashed(String),
    /// Its process is gone without a word.
    Vanished,
}

impl fmt::Display for GuestEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("the guest reset itself"),
            Self::PoweredOff => f.write_str("the guest switched itself off"),
            Self::Crashed(why) => write!(f, "the guest crashed: {why}"),
            Self::Vanished => f.write_str("its process is gone"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrimaryState {
    Absent,
    Running,
    /// By an operator.
    Paused,
    /// Paused, because its ghost took its work over.
    Standby,
    /// The guest does not run any more; its process may hold its memory still.
    Ended(GuestEnd),
    /// It could not be made, or could not go on.
    Failed(String),
}

impl PrimaryState {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Standby => "standby",
            Self::Ended(_) => "ended",
            Self::Failed(_) => "failed",
        }
    }

    /// Why it is so, where that is not plain.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Absent | Self::Running | Self::Paused | Self::Standby => None,
            Self::Ended(end) => Some(end.to_string()),
            Self::Failed(why) => Some(why.clone()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GhostState {
    Absent,
    Preparing,
    /// It holds exactly this cut of its primary; 0 is its image. It does not run.
    Suspended {
        epoch: u64,
    },
    Activating {
        epoch: u64,
    },
    /// It runs, and has the traffic.
    Active {
        epoch: u64,
    },
    /// What it did goes back to the primary.
    Returning {
        epoch: u64,
    },
    /// There was one; nothing of it is left.
    Destroyed,
    /// It went wrong; nothing of it is left.
    Failed(String),
}

impl GhostState {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Preparing => "preparing",
            Self::Suspended { .. } => "suspended",
            Self::Activating { .. } => "activating",
            Self::Active { .. } => "active",
            Self::Returning { .. } => "returning",
            Self::Destroyed => "destroyed",
            Self::Failed(_) => "failed",
        }
    }

    pub const fn epoch(&self) -> Option<u64> {
        match self {
            Self::Suspended { epoch }
            | Self::Activating { epoch }
            | Self::Active { epoch }
            | Self::Returning { epoch } => Some(*epoch),
            Self::Absent | Self::Preparing | Self::Destroyed | Self::Failed(_) => None,
        }
    }

    /// Why it is so, where that is not plain.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Failed(why) => Some(why.clone()),
            _ => None,
        }
    }
}
