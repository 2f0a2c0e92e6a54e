//! Commands of operators.

use std::time::{Duration, Instant};

use agent_common::abi::{Position, Side};
use tokio::time;

use super::Driver;
use crate::{
    model::{InstanceName, SlotIndex, Trouble},
    orchestrate::{
        command::{Answer, Caller, Command, Refusal, Request, Subject},
        event::EventKind,
        motion::Motion,
        wanted::{interface_troubles, side_targets},
    },
    steer::{NextHop, SteerError, chain},
};

/// How long a throw waits for a next hop to be resolved. A neighbour on the
/// same link answers within a millisecond; what does not within this will be
/// handed up the stack, which resolves it too.
const COLD_MAX: Duration = Duration::from_millis(200);
/// Between two looks at it.
const COLD_LOOK: Duration = Duration::from_millis(2);
/// Targets that are looked at before a switch is moved. Instances have a few;
/// those of armed ones are kept resolved anyway.
const TARGETS_MAX: usize = 16;

impl Driver {
    pub(super) async fn on_request(&mut self, request: Request) {
        let Request { command, by, reply } = request;
        // Whoever asked has been told that it failed: nothing moves afterwards.
        if reply.is_closed() {
            return;
        }
        let result = self.command(&command, by).await;
        if let Err(refusal) = &result {
            tracing::info!(?command, uid = by.uid, pid = by.pid, error = %refusal, "refused");
        }
        // Whoever asked may have gone.
        let _ = reply.send(result);
    }

    async fn command(&mut self, command: &Command, by: Caller) -> Result<Answer, Refusal> {
        match command {
            Command::Throw(Subject::Host) => {
                self.plane.pins().throw_host(by.pid);
                self.moved(None, Position::Ghost, by);
                Ok(Answer::Done)
            }
            Command::Restore(Subject::Host) => {
                let moved = self
                    .plane
                    .pins()
                    .restore_host(by.pid)
                    .map_err(|e| kernel(&e))?;
                if !moved {
                    return Ok(Answer::Unchanged);
                }
                self.moved(None, Position::Primary, by);
                Ok(Answer::Done)
            }
            Command::Throw(Subject::Instance(name)) => {
                self.warm(name, Side::Ghost).await;
                self.move_one(name, Motion::Throw, by)
            }
            Command::Restore(Subject::Instance(name)) => {
                self.warm(name, Side::Primary).await;
                self.move_one(name, Motion::Restore, by)
            }
            Command::Drain(name) => {
                self.warm(name, Side::Primary).await;
                let answer = self.move_one(name, Motion::Drain, by)?;
                self.find_drains();
                Ok(answer)
            }
            Command::Arm(name) => self.move_one(name, Motion::Arm, by),
            Command::Disarm(name) => self.move_one(name, Motion::Disarm, by),
            Command::Plan(risks) => self.plan_ghosts(risks),
            Command::IsArmed(name) => {
                let slot = self.slot(name)?;
                Ok(Answer::Armed(self.plane.pins().is_armed(slot)))
            }
            Command::Reload => self.reload(),
            Command::Snapshot => {
                let mut snapshot = self.plane.pins().snapshot().map_err(|e| kernel(&e))?;
                let interfaces =
                    interface_troubles(&self.wanted, &self.facts.ifindex, &snapshot.uplinks);
                let failures = self.failures.iter().cloned();
                let failures = failures.map(|what| Trouble::Failed { what });
                snapshot
                    .troubles
                    .extend(interfaces.into_iter().chain(failures));
                Ok(Answer::Snapshot(Box::new(snapshot)))
            }
        }
    }

    fn move_one(
        &mut self,
        name: &InstanceName,
        motion: Motion,
        by: Caller,
    ) -> Result<Answer, Refusal> {
        let slot = self.slot(name)?;
        let answer = self.plane.pins().move_slot(name, slot, motion, by.pid)?;
        if let (Answer::Done, Some(to)) = (&answer, motion.to()) {
            self.moved(Some(name.to_string()), to, by);
        }
        Ok(answer)
    }

    fn slot(&self, name: &InstanceName) -> Result<SlotIndex, Refusal> {
        let slot = self.slots.get(name).copied();
        slot.ok_or_else(|| Refusal::UnknownInstance(name.clone()))
    }

    fn moved(&mut self, instance: Option<String>, to: Position, by: Caller) {
        self.record(EventKind::SwitchMoved { instance, to, by });
    }

    /// Has the next hops of one side resolved before packets go there, within
    /// a bound: a throw is never held up by a neighbour that is not there.
    async fn warm(&mut self, name: &InstanceName, side: Side) {
        let Some(spec) = self.wanted.instance(name) else {
            return;
        };
        let targets = side_targets(spec, side, TARGETS_MAX);
        let deadline = Instant::now() + COLD_MAX;
        let warmed = self.plane.warm(targets);
        let mut cold: Vec<NextHop> = self.note(warmed).map(|w| w.cold).unwrap_or_default();
        while !cold.is_empty() && Instant::now() < deadline {
            time::sleep(COLD_LOOK).await;
            let still = self.plane.still_cold(cold);
            cold = self.note(still).unwrap_or_default();
        }
        if !cold.is_empty() {
            tracing::warn!(
                instance = %name,
                next_hops = ?cold,
                "not resolved in time; moving the switch nevertheless"
            );
        }
    }
}

fn kernel(error: &SteerError) -> Refusal {
    Refusal::Kernel(chain(error))
}
