//! Orders, failures and ends in any order, in a world where copies are a few
//! flags. What must never be is looked for after each step.

use agent_common::abi::Side;
use proptest::prelude::*;

use super::super::{Effect, Extent, Found, FoundVm, Input, Life, Mark, Step, adopted, step};
use crate::{
    ghost::backend::Begin,
    model::{GhostState, GuestEnd, PrimaryState},
    orchestrate::vms::VmOrder,
};

#[derive(Debug, Clone, Copy, Default)]
struct Copy {
    runs: bool,
    torn: bool,
    /// What its memory was last made the same as.
    content: u32,
    ended: bool,
    works: bool,
    epoch: u64,
}

#[derive(Debug, Clone, Default)]
struct World {
    primary: Option<Copy>,
    ghost: Option<Copy>,
    at_ghost: bool,
    cut: Option<u32>,
    next_content: u32,
}

impl World {
    fn copy(&mut self, side: Side) -> &mut Option<Copy> {
        match side {
            Side::Primary => &mut self.primary,
            Side::Ghost => &mut self.ghost,
        }
    }

    fn fresh(&mut self) -> u32 {
        self.next_content += 1;
        self.next_content
    }

    fn create(&mut self, side: Side, begin: Begin) {
        assert!(self.copy(side).is_none(), "a second one is made");
        let content = self.fresh();
        *self.copy(side) = Some(Copy {
            runs: begin == Begin::Running,
            torn: begin == Begin::Blank,
            content,
            ..Copy::default()
        });
    }

    fn run(&mut self, side: Side) {
        let content = self.fresh();
        let copy = self.copy(side).as_mut().expect("nothing is there to run");
        assert!(!copy.torn, "a torn copy runs");
        copy.runs = true;
        copy.content = content;
        let both = [self.primary, self.ghost].into_iter().flatten();
        assert!(
            both.filter(|c| c.runs && !c.ended).count() < 2,
            "two copies run"
        );
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::CreatePrimary(begin) => self.create(Side::Primary, begin),
            Step::CreateGhost(begin) => self.create(Side::Ghost, begin),
            Step::Destroy(side) => *self.copy(side) = None,
            Step::Pause(side) => {
                self.copy(side).as_mut().expect("a copy to pause").runs = false;
            }
            Step::Resume(side) | Step::Activate(side) => self.run(side),
            Step::Gather(from, extent) => {
                let to = if from == Side::Primary {
                    Side::Ghost
                } else {
                    Side::Primary
                };
                let copy = self.copy(to).as_mut().expect("a copy to fill");
                assert!(!copy.runs, "a copy that runs is filled");
                if extent == Extent::Whole {
                    copy.torn = true;
                }
            }
            Step::Cut(side) => {
                let copy = self.copy(side).expect("a copy to cut");
                assert!(!copy.runs && !copy.torn);
                self.cut = Some(copy.content);
            }
            Step::Apply(side, epoch) => {
                let content = self.cut.take().expect("a cut");
                let copy = self.copy(side).as_mut().expect("a copy to fill");
                assert!(!copy.runs);
                (copy.torn, copy.content, copy.epoch) = (false, content, epoch);
            }
            Step::Throw => self.at_ghost = true,
            Step::Restore => self.at_ghost = false,
            Step::Drill => {}
        }
    }

    /// What a step that fails may have done by half.
    fn spoil(&mut self, step: Step) {
        if let Step::Apply(side, _) = step {
            self.cut = None;
            self.copy(side).as_mut().expect("a copy to fill").torn = true;
        }
        if let Step::Gather(..) = step {
            self.carry_out(step);
        }
    }

    fn agrees(&self, life: &Life) {
        let runs = |copy: &Option<Copy>| copy.is_some_and(|c| c.runs && !c.ended);
        assert_eq!(
            runs(&self.primary),
            life.primary == PrimaryState::Running,
            "{life:?}"
        );
        let is_active = matches!(life.ghost, GhostState::Active { .. });
        assert_eq!(runs(&self.ghost), is_active, "{life:?}");
        if let GhostState::Suspended { .. } = life.ghost {
            assert!(!self.ghost.expect("a suspended ghost").torn);
        }
        let is_there = matches!(
            life.ghost,
            GhostState::Suspended { .. } | GhostState::Active { .. }
        );
        assert_eq!(self.ghost.is_some(), is_there, "{life:?}");
        if is_active {
            assert!(self.at_ghost, "the ghost runs unseen");
        }
        if life.primary == PrimaryState::Running {
            assert!(!self.at_ghost, "the primary runs unseen");
        }
    }
}

/// Runs a job to its end, the step `fails` of it failing.
fn play(world: &mut World, life: Life, input: Input, fails: Option<usize>) -> Life {
    let (mut life, mut effect) = step(life, input);
    loop {
        let next = match effect {
            Effect::Nothing | Effect::Refuse(_) => return life,
            Effect::Run(steps) => {
                let at = fails.filter(|at| *at < steps.len());
                for &step in steps.iter().take(at.unwrap_or(steps.len())) {
                    world.carry_out(step);
                }
                match at {
                    Some(at) => {
                        world.spoil(steps[at]);
                        let why = "it failed".to_owned();
                        Input::Failed { at: steps[at], why }
                    }
                    None => Input::Done,
                }
            }
            Effect::Undo(steps) => {
                for step in steps {
                    world.carry_out(step);
                }
                Input::Undone { failed: Vec::new() }
            }
        };
        (life, effect) = step(life, next);
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Order(VmOrder, Option<usize>),
    Ends(Side, GuestEnd),
    /// The daemon dies before this step of an order, and another one starts.
    Dies(VmOrder, usize),
}

fn order() -> impl Strategy<Value = VmOrder> {
    prop::sample::select(vec![
        VmOrder::Create,
        VmOrder::Pause,
        VmOrder::Resume,
        VmOrder::Reset,
        VmOrder::Destroy,
        VmOrder::Prepare,
        VmOrder::Activate,
        VmOrder::Suspend,
        VmOrder::DestroyGhost,
        VmOrder::Drill,
    ])
}

fn deed() -> impl Strategy<Value = Deed> {
    let side = prop::sample::select(vec![Side::Primary, Side::Ghost]);
    let end = prop::sample::select(vec![
        GuestEnd::Reset,
        GuestEnd::PoweredOff,
        GuestEnd::Vanished,
    ]);
    prop_oneof![
        6 => order().prop_map(|order| Deed::Order(order, None)),
        3 => (order(), 0usize..8).prop_map(|(order, at)| Deed::Order(order, Some(at))),
        1 => (side, end).prop_map(|(side, end)| Deed::Ends(side, end)),
        2 => (order(), 0usize..9).prop_map(|(order, at)| Deed::Dies(order, at)),
    ]
}

/// A failure to destroy or to point the switch leaves what cannot be judged
/// here; those are tried again by the operator.
fn may_fail(step: Step) -> bool {
    !matches!(step, Step::Destroy(_) | Step::Restore | Step::Drill)
}

fn found(copy: Option<Copy>) -> Option<Found> {
    copy.map(|copy| Found {
        vm: match (copy.ended, copy.runs) {
            (true, _) => FoundVm::Ended,
            (false, true) => FoundVm::Running,
            (false, false) => FoundVm::Paused,
        },
        mark: Mark {
            epoch: copy.epoch,
            is_torn: copy.torn,
            works: copy.works,
        },
    })
}

/// What is noted beside the copies once a job is done.
fn settle(world: &mut World, life: &Life) {
    if let Some(primary) = &mut world.primary {
        primary.works = life.primary == PrimaryState::Running;
    }
    if let Some(ghost) = &mut world.ghost {
        ghost.works = matches!(life.ghost, GhostState::Active { .. });
        ghost.epoch = life.ghost.epoch().unwrap_or(ghost.epoch);
    }
}

fn dies(world: &mut World, life: Life, order: VmOrder, at: usize) -> Life {
    let (_, effect) = step(life, Input::Order(order));
    if let Effect::Run(steps) = effect {
        for &step in steps.iter().take(at) {
            world.carry_out(step);
        }
    }
    world.cut = None;
    let (life, steps) = adopted(found(world.primary), found(world.ghost));
    for step in steps {
        world.carry_out(step);
    }
    let mut life = life;
    for side in [Side::Primary, Side::Ghost] {
        if world.copy(side).is_some_and(|copy| copy.ended) {
            let end = GuestEnd::PoweredOff;
            let armed = false;
            life = play(world, life, Input::Ended { side, end, armed }, None);
        }
    }
    life
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn at_most_one_copy_runs_and_none_that_is_torn(
        deeds in prop::collection::vec(deed(), 1..25),
        armed: bool,
    ) {
        let (mut world, mut life) = (World::default(), Life::default());
        for deed in deeds {
            life = match deed {
                Deed::Order(order, fails) => {
                    let (_, effect) = step(life.clone(), Input::Order(order));
                    let fails = fails.filter(|at| match &effect {
                        Effect::Run(steps) => steps.get(*at).is_some_and(|s| may_fail(*s)),
                        _ => false,
                    });
                    play(&mut world, life, Input::Order(order), fails)
                }
                Deed::Dies(order, at) => dies(&mut world, life, order, at),
                Deed::Ends(side, end) => match world.copy(side) {
                    Some(copy) if !copy.ended => {
                        copy.ended = true;
                        copy.runs = false;
                        play(&mut world, life, Input::Ended { side, end, armed }, None)
                    }
                    _ => life,
                },
            };
            settle(&mut world, &life);
            world.agrees(&life);
        }
    }

    #[test]
    fn a_ghost_is_the_cut_that_was_taken(refreshes in 0usize..4) {
        let (mut world, mut life) = (World::default(), Life::default());
        life = play(&mut world, life, Input::Order(VmOrder::Create), None);
        for _ in 0..=refreshes {
            life = play(&mut world, life, Input::Order(VmOrder::Prepare), None);
        }
        let epoch = refreshes as u64 + 1;
        prop_assert_eq!(&life.ghost, &GhostState::Suspended { epoch });
        life = play(&mut world, life, Input::Order(VmOrder::Activate), None);
        life = play(&mut world, life, Input::Order(VmOrder::Suspend), None);
        prop_assert_eq!(life.primary, PrimaryState::Running);
        prop_assert_eq!(life.ghost, GhostState::Suspended { epoch: epoch + 2 });
    }
}
