//! The life of an instance's two copies: what may be done, and in what order.
//!
//! Owns: the states, which steps an order takes, and what is undone when one
//! of them fails. At any time at most one copy runs, and a ghost is one whole
//! cut of its primary or is destroyed.
//!
//! Refuses: to do anything, and to fail: [`step`] is total. While a job is
//! under way orders are refused, and news of ends wait in the copies' sockets.
//!
//! ```text
//! absent -> preparing -> suspended(n) -> activating -> active(n) -> returning
//!               ^             |  ^                                     |
//!               +-- refresh --+  +-------------------------------------+
//! any of them -> destroyed, or failed(reason)
//! ```

mod failure;
mod found;
mod refusal;
#[cfg(test)]
mod tests;

use agent_common::abi::Side;

pub(crate) use self::{
    found::{Found, FoundVm, Mark, adopted},
    refusal::Unfit,
};
use super::backend::Begin;
use crate::{
    model::{GhostState, GuestEnd, PrimaryState},
    orchestrate::vms::VmOrder,
};

/// How an instance's copies are, and what is being done about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) primary: PrimaryState,
    pub(crate) ghost: GhostState,
    job: Option<Job>,
}

/// What is under way, and what it began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Start,
    Pause,
    Resume,
    Destroy,
    /// `from`: the epoch it had.
    Prepare {
        from: Option<u64>,
    },
    HandOver {
        from: u64,
    },
    TakeOver {
        from: u64,
    },
    Return {
        from: u64,
        primary: Home,
    },
    DestroyGhost,
    Drill,
    /// What is left of a copy that ended.
    Clear,
    Undo,
}

/// The primary to which a ghost's work goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    /// It waits, paused, with the memory of the last hand-over.
    Waiting,
    /// It is gone; another one is made.
    Remade,
}

/// Pages and blocks of a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    /// What was written since the last cut that arrived.
    Written,
}

/// One thing to be done by backend or driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    CreatePrimary(Begin),
    CreateGhost(Begin),
    Destroy(Side),
    Pause(Side),
    Resume(Side),
    /// Takes what goes over while the copy still runs, so that less is left
    /// to do while it is paused. A whole one goes to the other copy at once.
    Gather(Side, Extent),
    /// The rest, and the state, of a copy that is paused.
    Cut(Side),
    /// Brings a copy that does not run to the cut that was taken last.
    Apply(Side, u64),
    /// Points the switch at the ghost.
    Throw,
    /// Points the switch at the primary.
    Restore,
    /// Lets a copy run as a new incarnation.
    Activate(Side),
    Drill,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    Order(VmOrder),
    /// All steps were done.
    Done,
    /// This step was not; those before it were.
    Failed {
        at: Step,
        why: String,
    },
    /// Of what was to be undone, this could not be.
    Undone {
        failed: Vec<(Step, String)>,
    },
    Ended {
        side: Side,
        end: GuestEnd,
        /// Whether the ghost may take over without being told to.
        armed: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    /// In this order, until one fails.
    Run(Vec<Step>),
    /// In this order, each of them whatever became of the others.
    Undo(Vec<Step>),
    Refuse(Unfit),
}

impl Default for Life {
    fn default() -> Self {
        Self {
            primary: PrimaryState::Absent,
            ghost: GhostState::Absent,
            job: None,
        }
    }
}

impl Life {
    pub(crate) fn is_busy(&self) -> bool {
        self.job.is_some()
    }

    /// Whether any process is there that could be destroyed.
    fn has_ghost(&self) -> bool {
        !matches!(
            self.ghost,
            GhostState::Absent | GhostState::Destroyed | GhostState::Failed(_)
        )
    }

    fn primary_is_dead(&self) -> bool {
        matches!(
            self.primary,
            PrimaryState::Absent | PrimaryState::Ended(_) | PrimaryState::Failed(_)
        )
    }

    fn with(self, job: Job, steps: Vec<Step>) -> (Self, Effect) {
        let job = Some(job);
        (Self { job, ..self }, Effect::Run(steps))
    }
}

/// What follows from an input.
pub(crate) fn step(life: Life, input: Input) -> (Life, Effect) {
    match (input, life.job) {
        (Input::Order(_), Some(_)) => (life, Effect::Refuse(Unfit::Busy)),
        (Input::Order(order), None) => self::order(life, order),
        (Input::Done, Some(job)) => (done(life, job), Effect::Nothing),
        (Input::Failed { at, why }, Some(job)) => failure::failed(life, job, at, why),
        (Input::Undone { failed }, Some(Job::Undo)) => {
            (failure::undone(life, failed), Effect::Nothing)
        }
        (Input::Ended { side, end, armed }, None) => ended(life, side, end, armed),
        // Nothing was asked for, or it is asked again later.
        (Input::Done | Input::Failed { .. } | Input::Undone { .. }, _)
        | (Input::Ended { .. }, Some(_)) => (life, Effect::Nothing),
    }
}

fn order(life: Life, order: VmOrder) -> (Life, Effect) {
    match order {
        VmOrder::Create => create(life),
        VmOrder::Reset => reset(life),
        VmOrder::Destroy => destroy(life),
        VmOrder::Pause => match life.primary {
            PrimaryState::Running => life.with(Job::Pause, vec![Step::Pause(Side::Primary)]),
            PrimaryState::Standby => (life, Effect::Refuse(Unfit::Standby)),
            PrimaryState::Paused => (life, Effect::Refuse(Unfit::IsPaused)),
            _ => (life, Effect::Refuse(Unfit::NotRunning)),
        },
        VmOrder::Resume => match (&life.primary, &life.ghost) {
            (PrimaryState::Standby, GhostState::Active { .. }) => {
                (life, Effect::Refuse(Unfit::GhostServes))
            }
            // Of a standby, the ghost is gone: what there is goes on, and is
            // what clients are to see.
            (PrimaryState::Paused | PrimaryState::Standby, _) => life.with(
                Job::Resume,
                vec![Step::Restore, Step::Resume(Side::Primary)],
            ),
            (PrimaryState::Running, _) => (life, Effect::Refuse(Unfit::IsRunning)),
            _ => (life, Effect::Refuse(Unfit::NotRunning)),
        },
        VmOrder::Prepare => prepare(life),
        VmOrder::Activate => match life.ghost {
            GhostState::Suspended { epoch } if life.primary_is_dead() => take_over(life, epoch),
            GhostState::Suspended { epoch } => hand_over(life, epoch),
            GhostState::Active { .. } => (life, Effect::Refuse(Unfit::GhostServes)),
            _ => (life, Effect::Refuse(Unfit::NoGhost)),
        },
        VmOrder::Suspend => match life.ghost {
            GhostState::Active { epoch } => give_back(life, epoch),
            GhostState::Suspended { .. } => (life, Effect::Refuse(Unfit::IsSuspended)),
            _ => (life, Effect::Refuse(Unfit::NoGhost)),
        },
        VmOrder::DestroyGhost => match life.ghost {
            GhostState::Absent | GhostState::Destroyed => (life, Effect::Refuse(Unfit::NoGhost)),
            GhostState::Active { .. } => (life, Effect::Refuse(Unfit::GhostServes)),
            _ => life.with(Job::DestroyGhost, vec![Step::Destroy(Side::Ghost)]),
        },
        VmOrder::Drill => match life.ghost {
            GhostState::Suspended { .. } => life.with(Job::Drill, vec![Step::Drill]),
            GhostState::Active { .. } => (life, Effect::Refuse(Unfit::GhostServes)),
            _ => (life, Effect::Refuse(Unfit::NoGhost)),
        },
    }
}

fn create(life: Life) -> (Life, Effect) {
    if matches!(life.ghost, GhostState::Active { .. }) {
        return (life, Effect::Refuse(Unfit::GhostServes));
    }
    match life.primary {
        PrimaryState::Absent | PrimaryState::Failed(_) => start(life),
        PrimaryState::Ended(_) => (life, Effect::Refuse(Unfit::HasEnded)),
        _ => (life, Effect::Refuse(Unfit::HasPrimary)),
    }
}

fn reset(life: Life) -> (Life, Effect) {
    if matches!(life.ghost, GhostState::Active { .. }) {
        return (life, Effect::Refuse(Unfit::GhostServes));
    }
    match life.primary {
        PrimaryState::Absent => (life, Effect::Refuse(Unfit::NotRunning)),
        _ => start(life),
    }
}

/// A primary of a new kind of life. What its ghost holds is of the old one.
fn start(mut life: Life) -> (Life, Effect) {
    let mut steps = Vec::new();
    if life.has_ghost() && life.ghost != (GhostState::Suspended { epoch: 0 }) {
        steps.push(Step::Destroy(Side::Ghost));
        life.ghost = GhostState::Destroyed;
    }
    if life.primary != PrimaryState::Absent {
        steps.push(Step::Destroy(Side::Primary));
    }
    // A guest that reset itself had its switch thrown, and so had a ghost that
    // is gone.
    steps.extend([Step::Restore, Step::CreatePrimary(Begin::Running)]);
    life.with(Job::Start, steps)
}

fn destroy(life: Life) -> (Life, Effect) {
    let mut steps = Vec::new();
    if !matches!(life.ghost, GhostState::Absent | GhostState::Destroyed) {
        steps.push(Step::Destroy(Side::Ghost));
    }
    if life.primary != PrimaryState::Absent {
        steps.push(Step::Destroy(Side::Primary));
    }
    if steps.is_empty() {
        return (life, Effect::Refuse(Unfit::NothingThere));
    }
    steps.push(Step::Restore);
    life.with(Job::Destroy, steps)
}

fn prepare(mut life: Life) -> (Life, Effect) {
    let from = match (&life.ghost, &life.primary) {
        (GhostState::Active { .. }, _) => return (life, Effect::Refuse(Unfit::GhostServes)),
        (_, PrimaryState::Standby) => return (life, Effect::Refuse(Unfit::Standby)),
        (_, PrimaryState::Ended(_) | PrimaryState::Failed(_)) => {
            return (life, Effect::Refuse(Unfit::HasEnded));
        }
        (GhostState::Suspended { .. }, PrimaryState::Absent) => {
            return (life, Effect::Refuse(Unfit::NotRunning));
        }
        (ghost, _) => ghost.epoch(),
    };
    let mut steps = Vec::new();
    if from.is_none() {
        let begin = match life.primary {
            PrimaryState::Absent => Begin::Suspended,
            _ => Begin::Blank,
        };
        steps.push(Step::CreateGhost(begin));
    }
    let is_running = life.primary == PrimaryState::Running;
    if life.primary != PrimaryState::Absent {
        steps.extend(cut(Side::Primary, extent(from), is_running));
        if is_running {
            steps.push(Step::Resume(Side::Primary));
        }
        steps.push(Step::Apply(Side::Ghost, next(from)));
    }
    life.ghost = GhostState::Preparing;
    life.with(Job::Prepare { from }, steps)
}

/// From a primary that can be asked.
fn hand_over(mut life: Life, from: u64) -> (Life, Effect) {
    let is_running = life.primary == PrimaryState::Running;
    let mut steps = cut(Side::Primary, extent(Some(from)), is_running);
    steps.extend([
        Step::Apply(Side::Ghost, next(Some(from))),
        Step::Throw,
        Step::Activate(Side::Ghost),
    ]);
    life.ghost = GhostState::Activating { epoch: from };
    life.with(Job::HandOver { from }, steps)
}

/// From a primary that is dead: on with the last cut.
fn take_over(mut life: Life, from: u64) -> (Life, Effect) {
    let mut steps = vec![Step::Throw, Step::Activate(Side::Ghost)];
    if life.primary == PrimaryState::Ended(GuestEnd::Vanished) {
        // Its folder and its cgroup are left.
        steps.push(Step::Destroy(Side::Primary));
    }
    life.ghost = GhostState::Activating { epoch: from };
    life.with(Job::TakeOver { from }, steps)
}

fn give_back(mut life: Life, from: u64) -> (Life, Effect) {
    let mut steps = Vec::new();
    let primary = match life.primary {
        PrimaryState::Standby => Home::Waiting,
        PrimaryState::Absent => Home::Remade,
        _ => {
            steps.push(Step::Destroy(Side::Primary));
            Home::Remade
        }
    };
    let extent = match primary {
        Home::Waiting => Extent::Written,
        Home::Remade => {
            steps.push(Step::CreatePrimary(Begin::Blank));
            Extent::Whole
        }
    };
    steps.extend(cut(Side::Ghost, extent, true));
    steps.extend([
        Step::Apply(Side::Primary, next(Some(from))),
        Step::Restore,
        Step::Activate(Side::Primary),
    ]);
    life.ghost = GhostState::Returning { epoch: from };
    life.with(Job::Return { from, primary }, steps)
}

fn cut(side: Side, extent: Extent, is_running: bool) -> Vec<Step> {
    let mut steps = vec![Step::Gather(side, extent)];
    if is_running {
        steps.push(Step::Pause(side));
    }
    steps.push(Step::Cut(side));
    steps
}

/// A ghost made of its image shares nothing yet with its primary.
fn extent(from: Option<u64>) -> Extent {
    match from {
        None | Some(0) => Extent::Whole,
        Some(_) => Extent::Written,
    }
}

fn next(epoch: Option<u64>) -> u64 {
    epoch.unwrap_or_default().saturating_add(1)
}

fn done(mut life: Life, job: Job) -> Life {
    life.job = None;
    match job {
        Job::Start | Job::Resume => life.primary = PrimaryState::Running,
        Job::Pause => life.primary = PrimaryState::Paused,
        Job::Destroy => {
            life.primary = PrimaryState::Absent;
            if life.ghost != GhostState::Absent {
                life.ghost = GhostState::Destroyed;
            }
        }
        Job::Prepare { from } => {
            let epoch = match life.primary {
                PrimaryState::Absent => 0,
                _ => next(from),
            };
            life.ghost = GhostState::Suspended { epoch };
        }
        Job::HandOver { from } => {
            life.primary = PrimaryState::Standby;
            let epoch = next(Some(from));
            life.ghost = GhostState::Active { epoch };
        }
        Job::TakeOver { from } => life.ghost = GhostState::Active { epoch: from },
        Job::Return { from, .. } => {
            life.primary = PrimaryState::Running;
            let epoch = next(Some(from));
            life.ghost = GhostState::Suspended { epoch };
        }
        Job::DestroyGhost => life.ghost = GhostState::Destroyed,
        Job::Drill | Job::Clear | Job::Undo => {}
    }
    life
}

fn ended(mut life: Life, side: Side, end: GuestEnd, armed: bool) -> (Life, Effect) {
    if side == Side::Ghost {
        if !life.has_ghost() {
            return (life, Effect::Nothing);
        }
        life.ghost = GhostState::Failed(end.to_string());
        return life.with(Job::Clear, vec![Step::Destroy(Side::Ghost)]);
    }
    let was_at_work = match life.primary {
        PrimaryState::Running | PrimaryState::Paused => true,
        PrimaryState::Standby => false,
        _ => return (life, Effect::Nothing),
    };
    let is_sudden = end != GuestEnd::PoweredOff;
    let is_gone = end == GuestEnd::Vanished;
    life.primary = PrimaryState::Ended(end);
    match life.ghost {
        GhostState::Suspended { epoch } if was_at_work && is_sudden && armed && epoch > 0 => {
            take_over(life, epoch)
        }
        _ if is_gone => life.with(Job::Clear, vec![Step::Destroy(Side::Primary)]),
        _ => (life, Effect::Nothing),
    }
}
