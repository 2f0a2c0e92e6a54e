//! What an earlier daemon left, and how it goes on.

use agent_common::abi::Side;

use super::{Life, Step};
use crate::model::{GhostState, PrimaryState};

/// What is noted beside a copy, for the daemon that comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    /// The cut that it holds, or began with.
    pub(crate) epoch: u64,
    /// It is being filled: no whole cut.
    pub(crate) is_torn: bool,
    /// It is the copy that is to run.
    pub(crate) works: bool,
}

/// What a copy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FoundVm {
    Running,
    Paused,
    /// Its end is told as news afterwards.
    Ended,
    /// There is no process; its end is told as news afterwards.
    Gone,
}

impl FoundVm {
    const fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Gone)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) vm: FoundVm,
    pub(crate) mark: Mark,
}

const INTERRUPTED: &str = "ghostd ended while it was prepared";

/// How the copies are, and what is to be done so that they are. A daemon may
/// have ended between any two steps; whether a copy runs is what counts, and
/// the mark says which one should.
pub(crate) fn adopted(primary: Option<Found>, ghost: Option<Found>) -> (Life, Vec<Step>) {
    let mut steps = Vec::new();
    let mut life = Life::default();
    let is_home_torn = primary.is_some_and(|p| p.vm == FoundVm::Paused && p.mark.is_torn);
    // In the middle of a return, both wait. Until the primary runs, the ghost has the work.
    let is_returning = |ghost: &Found| {
        ghost.vm == FoundVm::Paused
            && ghost.mark.works
            && primary.is_none_or(|p| p.vm != FoundVm::Running)
    };
    life.ghost = match ghost {
        None => GhostState::Absent,
        Some(ghost) if ghost.mark.is_torn => {
            steps.push(Step::Destroy(Side::Ghost));
            GhostState::Failed(INTERRUPTED.to_owned())
        }
        Some(ghost) if ghost.vm == FoundVm::Running => GhostState::Active {
            epoch: ghost.mark.epoch,
        },
        Some(ghost) if is_returning(&ghost) => {
            steps.extend([Step::Throw, Step::Resume(Side::Ghost)]);
            GhostState::Active {
                epoch: ghost.mark.epoch,
            }
        }
        // One that ended is told of as news, by its last state.
        Some(ghost) if ghost.vm.is_over() && ghost.mark.works => GhostState::Active {
            epoch: ghost.mark.epoch,
        },
        Some(ghost) => GhostState::Suspended {
            epoch: ghost.mark.epoch,
        },
    };
    let ghost_serves = matches!(life.ghost, GhostState::Active { .. });
    life.primary = match primary {
        None => PrimaryState::Absent,
        Some(_) if is_home_torn => {
            steps.push(Step::Destroy(Side::Primary));
            PrimaryState::Failed("ghostd ended while work was brought back to it".to_owned())
        }
        Some(found) => match found.vm {
            FoundVm::Running if ghost_serves => {
                steps.push(Step::Pause(Side::Primary));
                PrimaryState::Standby
            }
            FoundVm::Running => PrimaryState::Running,
            FoundVm::Paused if ghost_serves => PrimaryState::Standby,
            FoundVm::Paused if found.mark.works => {
                steps.extend([Step::Restore, Step::Resume(Side::Primary)]);
                PrimaryState::Running
            }
            FoundVm::Paused => PrimaryState::Paused,
            FoundVm::Ended | FoundVm::Gone if ghost_serves => PrimaryState::Standby,
            FoundVm::Ended | FoundVm::Gone => PrimaryState::Running,
        },
    };
    (life, steps)
}
