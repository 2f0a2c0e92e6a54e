//! What is undone when a step fails.

use agent_common::abi::Side;

use super::{Effect, Extent, Home, Job, Life, Step, extent, next};
use crate::model::{GhostState, PrimaryState};

const RESUME_PRIMARY: Step = Step::Resume(Side::Primary);
const RESUME_GHOST: Step = Step::Resume(Side::Ghost);
const DESTROY_GHOST: Step = Step::Destroy(Side::Ghost);
const DESTROY_PRIMARY: Step = Step::Destroy(Side::Primary);

pub(super) fn failed(mut life: Life, job: Job, at: Step, why: String) -> (Life, Effect) {
    life.job = None;
    let undo = match job {
        Job::Start => started(&mut life, at, why),
        // As it was.
        Job::Pause | Job::Resume | Job::Drill | Job::Undo => Vec::new(),
        Job::Destroy | Job::DestroyGhost | Job::Clear => destroyed(&mut life, at, why),
        Job::Prepare { from } => prepared(&mut life, from, at, why),
        Job::HandOver { from } => handed_over(&mut life, from, at, why),
        Job::TakeOver { from } => taken_over(&mut life, from, at, why),
        Job::Return { from, primary } => returned(&mut life, (from, primary), at, why),
    };
    if undo.is_empty() {
        return (life, Effect::Nothing);
    }
    life.job = Some(Job::Undo);
    (life, Effect::Undo(undo))
}

fn started(life: &mut Life, at: Step, why: String) -> Vec<Step> {
    match at {
        DESTROY_GHOST => life.ghost = GhostState::Failed(why),
        _ => life.primary = PrimaryState::Failed(why),
    }
    Vec::new()
}

fn destroyed(life: &mut Life, at: Step, why: String) -> Vec<Step> {
    match at {
        DESTROY_GHOST => life.ghost = GhostState::Failed(why),
        DESTROY_PRIMARY => {
            life.primary = PrimaryState::Failed(why);
            if life.ghost != GhostState::Absent {
                life.ghost = GhostState::Destroyed;
            }
        }
        // Both are gone; only the switch is where it was.
        _ => {
            life.primary = PrimaryState::Absent;
            life.ghost = GhostState::Destroyed;
        }
    }
    Vec::new()
}

fn prepared(life: &mut Life, from: Option<u64>, at: Step, why: String) -> Vec<Step> {
    let mut undo = Vec::new();
    let was_running = life.primary == PrimaryState::Running;
    if was_running && matches!(at, Step::Pause(_) | Step::Cut(_) | RESUME_PRIMARY) {
        undo.push(RESUME_PRIMARY);
    }
    match from {
        // Nothing of it was touched.
        Some(epoch) if !is_torn(extent(from), at) => life.ghost = GhostState::Suspended { epoch },
        _ => {
            undo.push(DESTROY_GHOST);
            life.ghost = GhostState::Failed(why);
        }
    }
    undo
}

fn handed_over(life: &mut Life, from: u64, at: Step, why: String) -> Vec<Step> {
    let mut undo = Vec::new();
    match at {
        Step::Throw => {
            let epoch = next(Some(from));
            life.ghost = GhostState::Suspended { epoch };
        }
        Step::Activate(_) => {
            undo.extend([DESTROY_GHOST, Step::Restore]);
            life.ghost = GhostState::Failed(why);
        }
        at if is_torn(extent(Some(from)), at) => {
            undo.push(DESTROY_GHOST);
            life.ghost = GhostState::Failed(why);
        }
        _ => life.ghost = GhostState::Suspended { epoch: from },
    }
    if life.primary == PrimaryState::Running && !matches!(at, Step::Gather(..)) {
        undo.push(RESUME_PRIMARY);
    }
    undo
}

fn taken_over(life: &mut Life, epoch: u64, at: Step, why: String) -> Vec<Step> {
    match at {
        Step::Throw => life.ghost = GhostState::Suspended { epoch },
        Step::Activate(_) => {
            life.ghost = GhostState::Failed(why);
            return vec![DESTROY_GHOST];
        }
        // It runs; what is left of the primary can be destroyed later.
        _ => life.ghost = GhostState::Active { epoch },
    }
    Vec::new()
}

/// The ghost goes on in any case.
fn returned(life: &mut Life, (from, home): (u64, Home), at: Step, why: String) -> Vec<Step> {
    let mut undo = Vec::new();
    let is_cut = matches!(at, Step::Apply(..) | Step::Restore | Step::Activate(_));
    let epoch = match at {
        Step::Restore | Step::Activate(_) => next(Some(from)),
        _ => from,
    };
    life.ghost = GhostState::Active { epoch };
    let is_spoilt = match home {
        Home::Remade => true,
        Home::Waiting => matches!(at, Step::Apply(..) | Step::Activate(_)),
    };
    if is_spoilt {
        undo.push(DESTROY_PRIMARY);
        life.primary = PrimaryState::Failed(why);
    }
    if matches!(at, Step::Activate(_)) {
        undo.push(Step::Throw);
    }
    if is_cut || matches!(at, Step::Pause(_) | Step::Cut(_)) {
        undo.push(RESUME_GHOST);
    }
    undo
}

/// Whether the copy that is filled is no whole cut after a failure here.
fn is_torn(extent: Extent, at: Step) -> bool {
    match at {
        Step::Apply(..) => true,
        // A whole cut goes over as it is taken.
        Step::Gather(..) | Step::Pause(_) | Step::Cut(_) | Step::Resume(_) => {
            extent == Extent::Whole
        }
        _ => false,
    }
}

pub(super) fn undone(mut life: Life, failed: Vec<(Step, String)>) -> Life {
    life.job = None;
    for (step, why) in failed {
        match step {
            RESUME_PRIMARY | DESTROY_PRIMARY => life.primary = PrimaryState::Failed(why),
            RESUME_GHOST | DESTROY_GHOST => life.ghost = GhostState::Failed(why),
            _ => {}
        }
    }
    life
}
