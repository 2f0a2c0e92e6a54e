//! The thread of one instance: orders and news in, steps out, one at a time.

use std::{
    mem,
    os::fd::AsFd as _,
    sync::{Arc, mpsc::Receiver},
    time::{Instant, SystemTime},
};

use agent_common::abi::Side;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};

use super::{limits::Lacking, switch::Switch};
use crate::{
    ghost::{
        backend::{Adopted, GhostBackend},
        error::GhostError,
        life::{self, Effect, Input, Life, Mark, Step, step},
    },
    model::{GhostState, GuestEnd, InstanceSpec, PrimaryState},
    orchestrate::{
        event::{EventKind, EventLog},
        limits::Limits,
        vms::{VmDesk, VmDone, VmOrder, VmRefusal, VmRequest},
    },
};

pub(super) type Found = Adopted<crate::ghost::embedded::Copy>;

/// What an instance's thread is told.
#[derive(Debug)]
pub(super) enum Word {
    Order(VmRequest),
    Spec(Box<InstanceSpec>),
    Stop,
}

/// To and from the others.
pub(super) struct Ways {
    pub(super) inbox: Receiver<Word>,
    pub(super) wake: Arc<EventFd>,
    pub(super) switch: Switch,
    pub(super) limits: Limits,
    pub(super) log: EventLog,
    pub(super) desk: VmDesk,
}

pub(super) struct Control<B: GhostBackend> {
    pub(super) backend: Arc<B>,
    pub(super) spec: InstanceSpec,
    pub(super) switch: Switch,
    pub(super) limits: Limits,
    pub(super) lacking: Lacking,
    inbox: Receiver<Word>,
    wake: Arc<EventFd>,
    log: EventLog,
    desk: VmDesk,
    life: Life,
    pub(super) primary: Option<B::Copy>,
    pub(super) ghost: Option<B::Copy>,
    pub(super) stage: Option<B::Stage>,
    /// Since when the copy that works has stood still.
    pub(super) still_since: Option<Instant>,
    pub(super) done: VmDone,
}

impl<B: GhostBackend> Control<B> {
    pub(super) fn new(backend: Arc<B>, spec: InstanceSpec, ways: Ways) -> Self {
        let Ways {
            inbox,
            wake,
            switch,
            limits,
            log,
            desk,
        } = ways;
        Self {
            backend,
            spec,
            switch,
            limits,
            lacking: Lacking::default(),
            inbox,
            wake,
            log,
            desk,
            life: Life::default(),
            primary: None,
            ghost: None,
            stage: None,
            still_since: None,
            done: VmDone::default(),
        }
    }

    /// Until told to stop.
    pub(super) fn run(mut self, found: Vec<Adopted<B::Copy>>) {
        self.adopt(found);
        loop {
            while let Ok(word) = self.inbox.try_recv() {
                match word {
                    Word::Order(request) => self.obey(request),
                    Word::Spec(spec) => {
                        self.spec = *spec;
                        self.publish();
                    }
                    Word::Stop => return,
                }
            }
            self.hear();
            if let Err(error) = self.wait() {
                tracing::error!(instance = %self.spec.name, error = %error.chain(), "gives up");
                return;
            }
        }
    }

    fn wait(&self) -> Result<(), GhostError> {
        let copies = [&self.primary, &self.ghost].into_iter().flatten();
        let wakes = copies.filter_map(|copy| self.backend.wake(copy));
        let fds = std::iter::once(self.wake.as_fd()).chain(wakes);
        let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(GhostError::Wait(errno.into())),
        }
        // Only says that there is something to look for.
        let _ = self.wake.read();
        Ok(())
    }

    /// What an earlier daemon left, finished or taken back.
    fn adopt(&mut self, found: Vec<Adopted<B::Copy>>) {
        let (mut primary, mut ghost) = (None, None);
        let mut ends = Vec::new();
        for adopted in found {
            let Adopted {
                id,
                copy,
                vm,
                mark,
                end,
            } = adopted;
            tracing::info!(copy = %id, ?vm, ?mark, "adopted");
            ends.extend(end.map(|end| (id.side, end)));
            let found = Some(life::Found { vm, mark });
            match id.side {
                Side::Primary => (self.primary, primary) = (Some(copy), found),
                Side::Ghost => (self.ghost, ghost) = (Some(copy), found),
            }
        }
        self.limit_adopted();
        let (life, steps) = life::adopted(primary, ghost);
        let before = mem::replace(&mut self.life, life);
        let failed = self.undo(&steps);
        for (step, why) in &failed {
            tracing::error!(instance = %self.spec.name, ?step, why, "could not be mended");
        }
        self.settle(&before);
        for (side, end) in ends {
            self.ended(side, end);
        }
    }

    fn obey(&mut self, request: VmRequest) {
        let VmRequest { order, by, reply } = request;
        // Whoever asked has been told that it failed: nothing is done afterwards.
        if reply.is_closed() {
            return;
        }
        tracing::info!(instance = %self.spec.name, ?order, uid = by.uid, pid = by.pid, "order");
        let started = Instant::now();
        let result = self.order(order).map(|()| VmDone {
            took: started.elapsed(),
            ..mem::take(&mut self.done)
        });
        if let Err(refusal) = &result {
            tracing::info!(instance = %self.spec.name, ?order, error = %refusal, "refused");
        }
        // Whoever asked may have gone.
        let _ = reply.send(result);
    }

    fn order(&mut self, order: VmOrder) -> Result<(), VmRefusal> {
        self.done = VmDone::default();
        if self.spec.vm.is_none() && !matches!(order, VmOrder::Destroy | VmOrder::DestroyGhost) {
            return Err(VmRefusal::Foreign(self.spec.name.clone()));
        }
        let is_suspended = matches!(self.life.ghost, GhostState::Suspended { .. });
        let has_question = self.spec.vm.as_ref().is_some_and(|vm| vm.health.is_some());
        if order == VmOrder::Drill && is_suspended && !has_question {
            return Err(VmRefusal::NotNow {
                what: format!("{} has no [instance.vm.health] to be asked", self.spec.name),
                hint: "a drill asks the question in [instance.vm.health]: its keys are `addr`, \
                       `port`, `protocol`, `send`, `expect` and `limit_ms`"
                    .to_owned(),
            });
        }
        if order == VmOrder::Prepare
            && let Some(vm) = self.spec.vm.clone()
        {
            self.admit(&vm)?;
        }
        let result = self.step(Input::Order(order));
        if self.ghost.is_none() {
            self.limits.give_back(&self.spec.name);
        }
        result
    }

    /// Steps the machine until it is at rest.
    fn step(&mut self, input: Input) -> Result<(), VmRefusal> {
        let mut input = Some(input);
        let mut result = Ok(());
        while let Some(now) = input.take() {
            let before = self.life.clone();
            let (life, effect) = step(before.clone(), now);
            self.life = life;
            self.settle(&before);
            match effect {
                Effect::Nothing => {}
                Effect::Refuse(no) => {
                    let (what, hint) = no.words();
                    result = Err(VmRefusal::NotNow {
                        what: format!("{} {what}", self.spec.name),
                        hint: hint.replace("NAME", self.spec.name.as_str()),
                    });
                }
                Effect::Run(steps) => {
                    input = Some(match self.carry_out(&steps) {
                        Ok(()) => Input::Done,
                        Err((at, error)) => {
                            let why = error.chain();
                            tracing::warn!(instance = %self.spec.name, step = ?at, why, "failed");
                            result = Err(VmRefusal::Failed(why.clone()));
                            Input::Failed { at, why }
                        }
                    });
                }
                Effect::Undo(steps) => {
                    let failed = self.undo(&steps);
                    input = Some(Input::Undone { failed });
                }
            }
        }
        self.stage = None;
        self.still_since = None;
        result
    }

    fn carry_out(&mut self, steps: &[Step]) -> Result<(), (Step, GhostError)> {
        for &step in steps {
            tracing::debug!(instance = %self.spec.name, ?step, "step");
            self.carry_out_one(step).map_err(|error| (step, error))?;
        }
        Ok(())
    }

    /// Each of them, whatever becomes of the others.
    fn undo(&mut self, steps: &[Step]) -> Vec<(Step, String)> {
        let mut failed = Vec::new();
        for &step in steps {
            if let Err(error) = self.carry_out_one(step) {
                failed.push((step, error.chain()));
            }
        }
        failed
    }

    /// Ends that copies came to by themselves.
    fn hear(&mut self) {
        for side in [Side::Primary, Side::Ghost] {
            let backend = Arc::clone(&self.backend);
            while let Some(end) = self.copy(side).and_then(|copy| backend.news(copy)) {
                self.ended(side, end);
            }
        }
    }

    fn ended(&mut self, side: Side, end: GuestEnd) {
        tracing::info!(instance = %self.spec.name, ?side, %end, "a copy ended");
        let armed = self.switch.is_armed(&self.spec.name);
        self.done = VmDone::default();
        // What became of it is an event.
        let _ = self.step(Input::Ended { side, end, armed });
    }

    pub(super) fn copy(&mut self, side: Side) -> Option<&mut B::Copy> {
        match side {
            Side::Primary => self.primary.as_mut(),
            Side::Ghost => self.ghost.as_mut(),
        }
    }

    /// Has records, events and the desk say what is so now.
    fn settle(&mut self, before: &Life) {
        let works = [
            (
                Side::Primary,
                self.life.primary == PrimaryState::Running,
                None,
            ),
            (
                Side::Ghost,
                matches!(self.life.ghost, GhostState::Active { .. }),
                self.life.ghost.epoch(),
            ),
        ];
        if !self.life.is_busy() {
            for (side, works, epoch) in works {
                self.note(side, |mark| Mark {
                    works,
                    epoch: epoch.unwrap_or(mark.epoch),
                    ..mark
                });
            }
        }
        if before.primary != self.life.primary {
            let state = &self.life.primary;
            self.record(Side::Primary, state.name(), None, state.reason());
        }
        if before.ghost != self.life.ghost {
            let state = &self.life.ghost;
            self.record(Side::Ghost, state.name(), state.epoch(), state.reason());
        }
        self.publish();
    }

    /// Best effort: what cannot be noted makes a later daemon more careful.
    pub(super) fn note(&mut self, side: Side, change: impl FnOnce(Mark) -> Mark) {
        let backend = Arc::clone(&self.backend);
        let Some(copy) = self.copy(side) else {
            return;
        };
        let mark = change(backend.mark(copy));
        if let Err(error) = backend.note(copy, mark) {
            tracing::warn!(instance = %self.spec.name, error = %error.chain(), "no note was made");
        }
    }

    fn record(
        &mut self,
        side: Side,
        state: &'static str,
        epoch: Option<u64>,
        reason: Option<String>,
    ) {
        let kind = EventKind::CopyChanged {
            instance: self.spec.name.to_string(),
            side,
            state,
            epoch,
            reason,
        };
        self.tell(kind);
    }

    pub(super) fn tell(&mut self, kind: EventKind) {
        tracing::info!(event = ?kind, "event");
        self.log.push(SystemTime::now(), kind);
    }

    fn publish(&self) {
        let pid = |copy: &Option<B::Copy>| copy.as_ref().and_then(|copy| self.backend.pid(copy));
        let mut view = super::view(&self.spec);
        view.primary = self.life.primary.clone();
        view.ghost = self.life.ghost.clone();
        view.primary_pid = pid(&self.primary);
        view.ghost_pid = pid(&self.ghost);
        view.primary_not_in_force = self.lacking.primary.clone();
        view.ghost_not_in_force = self.lacking.ghost.clone();
        self.desk.publish(&self.spec.name, view);
    }
}
