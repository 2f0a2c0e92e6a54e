//! The plan of who gets what of the reserve.

use std::path::Path;

use super::Driver;
use crate::{
    allocate::{Policy, demands, plan, supposing},
    enforce::read_capacity,
    model::{InstanceName, Planned, Risk},
    orchestrate::command::{Answer, Refusal},
    steer::chain,
};

impl Driver {
    /// Plans anew, from the last plan; beside it, under other risks.
    pub(super) fn plan_ghosts(
        &mut self,
        risks: &[(InstanceName, Risk)],
    ) -> Result<Answer, Refusal> {
        let uplinks = self.wanted.uplinks.keys().map(String::as_str);
        let capacity = read_capacity(Path::new("/"), uplinks)
            .map_err(|error| Refusal::Kernel(chain(&error)))?;
        let allocation = &self.wanted.allocation;
        let policy = Policy {
            reserve: allocation.reserve,
            ..Policy::default()
        };
        let demand = demands(&self.wanted.instances, allocation);
        let (otherwise, unknown) = supposing(demand.clone(), risks);
        if let Some(name) = unknown.into_iter().next() {
            return Err(match self.wanted.instance(&name) {
                Some(_) => Refusal::NoMicrovm(name),
                None => Refusal::UnknownInstance(name),
            });
        }
        let made = plan(self.ghosts_plan.as_ref(), &demand, &capacity, &policy);
        let supposed =
            (!risks.is_empty()).then(|| plan(Some(&made), &otherwise, &capacity, &policy));
        self.ghosts_plan = Some(made.clone());
        Ok(Answer::Planned(Box::new(Planned {
            plan: made,
            capacity,
            supposed,
        })))
    }
}
