//! What may be asked of the running daemon, and what it answers.

use tokio::sync::oneshot;

use crate::model::{InstanceName, Planned, Risk, Snapshot};

/// Requests that wait for the driver; more are refused as busy. A person or a
/// script works one at a time, so a deep queue would only hide a stuck driver.
pub const REQUEST_QUEUE: usize = 64;

/// The process at the other end of the API socket (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Whose switch is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Instance(InstanceName),
    /// All armed instances, by the host switch.
    Host,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Point at the ghost.
    Throw(Subject),
    /// Point at the primary at once. For the host: at every instance.
    Restore(Subject),
    /// Back to the primary, but flows of the ghost stay until they end.
    Drain(InstanceName),
    /// Let the kernel throw this switch by itself, or not.
    Arm(InstanceName),
    Disarm(InstanceName),
    /// Read the configuration file again.
    Reload,
    /// Read what the kernel holds.
    Snapshot,
    /// Who gets what of the reserve, and what would change if some risks were
    /// others.
    Plan(Vec<(InstanceName, Risk)>),
    /// Whether the kernel may throw this switch by itself.
    IsArmed(InstanceName),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// The switch was already there; nothing was stored.
    Unchanged,
    Snapshot(Box<Snapshot>),
    Planned(Box<Planned>),
    Armed(bool),
}

/// Why a command was not carried out. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is no instance `{0}`")]
    UnknownInstance(InstanceName),
    #[error("instance `{0}` has no [instance.vm], so ghostd makes no ghost of it")]
    NoMicrovm(InstanceName),
    #[error(
        "instance `{0}` cannot drain: its affinity is `none`, so no flows are tracked; use `restore`"
    )]
    NotTracked(InstanceName),
    /// The new configuration is wrong; the text is the full diagnostic. The old one stays.
    #[error("the new configuration was refused and the old one stays\n{0}")]
    Config(String),
    #[error("the daemon is busy: {REQUEST_QUEUE} requests wait already; try again")]
    Busy,
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// The kernel refused; the text is the error chain.
    #[error("{0}")]
    Kernel(String),
}

/// A command on its way to the driver.
#[derive(Debug)]
pub struct Request {
    pub command: Command,
    pub by: Caller,
    pub reply: oneshot::Sender<Result<Answer, Refusal>>,
}
