//! A copy's limits: asked of the plan, brought into force, taken back.

use agent_common::abi::Side;

use super::control::Control;
use crate::{
    ghost::{backend::GhostBackend, error::GhostError},
    model::{CopyId, NotInForce, VmSpec},
    orchestrate::vms::VmRefusal,
};

/// What of each copy's limits is not in force.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    pub(super) primary: Vec<NotInForce>,
    pub(super) ghost: Vec<NotInForce>,
}

impl<B: GhostBackend> Control<B> {
    /// Whether the reserve has room for a ghost, which it then holds.
    pub(super) fn admit(&mut self, vm: &VmSpec) -> Result<(), VmRefusal> {
        let plan = self.switch.plan();
        let plan = plan.map_err(|error| VmRefusal::Failed(error.chain()))?;
        let name = self.spec.name.clone();
        if self.ghost.is_some() {
            self.limits.hold(&name, vm, &plan);
            self.limit(Side::Ghost);
            return Ok(());
        }
        self.limits
            .admit(&name, vm, &plan)
            .map_err(|over| VmRefusal::NotNow {
                what: over.to_string(),
                hint: "`ghostctl plan` shows who has what of it; `ghostctl ghost destroy` of \
                       another instance makes room, or more in [reserve] does"
                    .to_owned(),
            })
    }

    /// Copies that an earlier daemon made. Whatever the reserve has become,
    /// they are there.
    pub(super) fn limit_adopted(&mut self) {
        if self.ghost.is_some()
            && let Some(vm) = self.spec.vm.clone()
        {
            match self.switch.plan() {
                Ok(plan) => self.limits.hold(&self.spec.name, &vm, &plan),
                Err(error) => {
                    let error = error.chain();
                    tracing::warn!(instance = %self.spec.name, error, "its ghost has no limits");
                }
            }
        }
        for side in [Side::Primary, Side::Ghost] {
            self.limit(side);
        }
    }

    pub(super) fn limit(&mut self, side: Side) {
        let copy = match side {
            Side::Primary => &self.primary,
            Side::Ghost => &self.ghost,
        };
        let (Some(copy), Some(vm)) = (copy, &self.spec.vm) else {
            return;
        };
        let folder = self.backend.cgroup(copy);
        let lacking = self.limits.apply(&self.id(side), vm, folder);
        *self.lacking_of(side) = lacking;
    }

    /// Ends a copy, and then what was changed for it.
    pub(super) fn end_copy(&mut self, side: Side) -> Result<(), GhostError> {
        let backend = std::sync::Arc::clone(&self.backend);
        let id = self.id(side);
        if let Some(copy) = self.copy(side) {
            let folder = backend.cgroup(copy).map(ToOwned::to_owned);
            backend.destroy(copy)?;
            self.limits.gone(&id, folder.as_deref());
        }
        self.lacking_of(side).clear();
        Ok(())
    }

    fn id(&self, side: Side) -> CopyId {
        CopyId {
            instance: self.spec.name.clone(),
            side,
        }
    }

    fn lacking_of(&mut self, side: Side) -> &mut Vec<NotInForce> {
        match side {
            Side::Primary => &mut self.lacking.primary,
            Side::Ghost => &mut self.lacking.ghost,
        }
    }
}
