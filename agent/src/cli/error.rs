//! What can go wrong, and the exit status that says so.

use std::{io, path::PathBuf, process::ExitCode};

use super::{
    facts::DaemonTrouble,
    offline::{OfflineError, chain},
};
use crate::control::dto::Problem;

/// Exit status of ghostctl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Healthy, or done.
    Good = 0,
    /// Degraded, or refused.
    Degraded = 1,
    Usage = 2,
    /// No daemon answers.
    Unreachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("no daemon answers on {0}")]
    Unreachable(PathBuf, #[source] io::Error),
    #[error("the daemon on {0} broke off")]
    Broken(PathBuf, #[source] hyper::Error),
    #[error("the daemon on {socket} gave no answer to {what} within {seconds} s")]
    TimedOut {
        socket: PathBuf,
        what: String,
        seconds: u64,
    },
    #[error("the daemon's answer to {0} is larger than {1} bytes")]
    TooLarge(String, usize),
    #[error("cannot read the daemon's answer to {0}; are ghostctl and ghostd of one version?")]
    Answer(String, #[source] serde_json::Error),
    #[error("{}: {}", .0.title, .0.detail)]
    Refused(Problem),
    /// No daemon, and the pins cannot be read either.
    #[error("without a daemon")]
    NeitherWay(#[source] OfflineError),
    #[error(transparent)]
    Offline(#[from] OfflineError),
    #[error("there is no instance `{0}`")]
    UnknownInstance(String),
    #[error("a daemon runs, and this would go behind its back")]
    DaemonRuns,
    #[error("nobody to ask: standard input is not a terminal; `--yes` does not ask")]
    NobodyToAsk,
    #[error("cannot write {0}")]
    Write(String, #[source] io::Error),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

impl CliError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unreachable(..)
            | Self::Broken(..)
            | Self::TimedOut { .. }
            | Self::NeitherWay(_) => Exit::Unreachable,
            Self::NobodyToAsk | Self::DaemonRuns => Exit::Usage,
            // A reader that went away (`ghostctl routes | head`) wants no noise.
            Self::Write(_, e) if e.kind() == io::ErrorKind::BrokenPipe => Exit::Good,
            Self::TooLarge(..)
            | Self::Answer(..)
            | Self::Refused(_)
            | Self::Offline(_)
            | Self::UnknownInstance(_)
            | Self::Write(..)
            | Self::Runtime(_) => Exit::Degraded,
        }
    }

    /// Nobody listens, or whoever does is hung.
    pub fn is_unreachable(&self) -> bool {
        self.exit() == Exit::Unreachable
    }

    /// As a fact for `doctor`.
    pub(super) fn daemon_trouble(&self) -> DaemonTrouble {
        match self {
            Self::Unreachable(_, e) if e.kind() == io::ErrorKind::PermissionDenied => {
                DaemonTrouble::Hidden(chain(self))
            }
            _ => DaemonTrouble::Silent(self.to_string()),
        }
    }

    /// The error, its causes, and what to do about it.
    pub fn report(&self) {
        if self.exit() == Exit::Good {
            return;
        }
        eprintln!("ghostctl: {}", chain(self));
        if let Some(hint) = self.hint() {
            eprintln!("   hint: {hint}");
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => problem.hint.as_deref(),
            Self::Unreachable(_, e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Some("use sudo, or name an operators or readers group in the configuration")
            }
            Self::Unreachable(..) => Some("`systemctl start ghostd` starts it"),
            Self::DaemonRuns => {
                Some("leave out `--offline`; for `clean`: stop it first, or use `--force`")
            }
            Self::TimedOut { .. } => Some("`systemctl status ghostd` shows what it does"),
            Self::UnknownInstance(_) => Some("`ghostctl switch show` lists the instances"),
            _ => None,
        }
    }
}
