//! From wanted to real: gather, plan, carry out, attach.

use std::time::Instant;

use agent_common::abi::{HostSwitch, Position};

use super::{Driver, RETRY, Sign};
use crate::{
    model::{InstanceName, SlotIndex},
    orchestrate::{
        agenda::Job,
        command::{Answer, Refusal},
        event::EventKind,
        plan::{self, PlanError},
        wanted::Wanted,
    },
    steer::{SteerError, chain},
};

/// Why the kernel was not brought to what is wanted.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    #[error("the configuration does not fit")]
    Plan(#[source] PlanError),
    #[error("cannot bring the kernel to the configuration")]
    Steer(#[source] SteerError),
}

impl Driver {
    /// The first time: what fails here and leaves nothing steered is fatal.
    pub(super) fn begin(&mut self, wanted: Wanted) -> Result<(), SteerError> {
        self.wanted = wanted;
        self.watch_cgroups();
        self.gather();
        let result = self.write_maps();
        self.report(result);
        let mut errors = self.attach_all();
        let steers = self
            .wanted
            .uplinks
            .keys()
            .any(|u| self.attached.contains_key(u));
        if !steers && !self.wanted.uplinks.is_empty() && !errors.is_empty() {
            return Err(errors.swap_remove(0));
        }
        self.fail(&errors);
        self.settle();
        let now = Instant::now();
        self.agenda.set(Job::Egress, now);
        self.work(Job::Guests);
        self.agenda.set(Job::Heartbeat, now);
        Ok(())
    }

    /// Brings the kernel to what is wanted, as far as it goes, and reports
    /// what does not.
    pub(super) fn reconcile(&mut self) {
        self.complaints.next_round();
        self.failures.clear();
        self.gather();
        let result = self.write_maps();
        self.report(result);
        let errors = self.attach_all();
        self.fail(&errors);
        self.settle();
    }

    /// Reads the configuration again. A wrong one changes nothing.
    pub(super) fn reload(&mut self) -> Result<Answer, Refusal> {
        (self.service.tell)(Sign::Reloading);
        let result = self.try_reload();
        (self.service.tell)(Sign::Ready);
        result
    }

    fn try_reload(&mut self) -> Result<Answer, Refusal> {
        let wanted = (self.source)().map_err(|diagnostic| self.refuse(diagnostic))?;
        let before = std::mem::replace(&mut self.wanted, wanted);
        self.watch_cgroups();
        self.gather();
        let abandoned = self.abandoned();
        match self.write_maps() {
            Ok(()) => {}
            Err(ReconcileError::Plan(e)) => {
                self.wanted = before;
                self.watch_cgroups();
                self.gather();
                return Err(self.refuse(chain(&e)));
            }
            Err(e @ ReconcileError::Steer(_)) => {
                let text = chain(&e);
                self.report(Err(e));
                return Err(Refusal::Kernel(text));
            }
        }
        self.complaints.forget();
        self.failures.clear();
        let errors = self.attach_all();
        self.fail(&errors);
        self.settle();
        for name in abandoned {
            self.record(EventKind::Degraded {
                what: format!(
                    "instance {name} was taken out of the configuration while not at its primary: \
                     its packets go to the primary now, or nowhere"
                ),
            });
        }
        self.record(EventKind::ConfigReloaded {
            instances: self.wanted.instances.len(),
            routes: self.wanted.routes(),
        });
        Ok(Answer::Done)
    }

    /// Instances that are not wanted any more and not at their primaries.
    fn abandoned(&self) -> Vec<InstanceName> {
        let board = self.plane.pins().board();
        let generation = HostSwitch::short(board.host_generation());
        let away = |slot: SlotIndex| {
            let position = board.control(slot).and_then(|c| c.effective(generation));
            matches!(position, Some(Position::Ghost | Position::Draining))
        };
        let dropped = self.slots.iter();
        let dropped = dropped.filter(|(name, _)| self.wanted.instance(name).is_none());
        dropped
            .filter(|&(_, &slot)| away(slot))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn refuse(&mut self, diagnostic: String) -> Refusal {
        tracing::error!(%diagnostic, "the new configuration was refused; the old one stays");
        self.record(EventKind::ConfigRefused {
            diagnostic: diagnostic.clone(),
        });
        Refusal::Config(diagnostic)
    }

    fn write_maps(&mut self) -> Result<(), ReconcileError> {
        let pins = self.plane.pins();
        let actual = pins.actual().map_err(ReconcileError::Steer)?;
        let effects = plan::plan(
            &self.wanted.instances,
            &self.plane.limits(),
            &self.facts,
            &actual,
        )
        .map_err(ReconcileError::Plan)?;
        tracing::debug!(effects = effects.len(), "plan");
        pins.execute(&effects).map_err(ReconcileError::Steer)
    }

    fn report(&mut self, result: Result<(), ReconcileError>) {
        let Err(error) = result else { return };
        let what = chain(&error);
        if self.complaints.add(&what) {
            tracing::error!(error = %what, "degraded");
            self.record(EventKind::Degraded { what: what.clone() });
        }
        self.failures.push(what);
        self.agenda
            .no_later_than(Job::Reconcile, Instant::now() + RETRY);
    }

    fn fail(&mut self, errors: &[SteerError]) {
        for error in errors {
            self.complain(error);
            self.failures.push(chain(error));
        }
    }

    /// What follows from new maps.
    fn settle(&mut self) {
        let slots = self.plane.pins().names();
        if let Some(slots) = self.note(slots) {
            self.slots = slots
                .into_iter()
                .filter_map(|(slot, name): (SlotIndex, String)| Some((name.parse().ok()?, slot)))
                .collect();
        }
        self.find_drains();
        self.warmer.set(self.wanted.targets());
        self.agenda.set(Job::Warm, Instant::now());
    }
}
