//! One step, carried out.

use std::{sync::Arc, time::Instant};

use agent_common::abi::Side;

use super::control::Control;
use crate::{
    ghost::{
        backend::{Begin, CopyPlan, GhostBackend, side_name},
        error::GhostError,
        life::{Extent, Mark, Step},
        link::{self, GhostLink, PrimaryLink},
    },
    model::{CopyId, beside},
    orchestrate::event::EventKind,
};

impl<B: GhostBackend> Control<B> {
    pub(super) fn carry_out_one(&mut self, step: Step) -> Result<(), GhostError> {
        match step {
            Step::CreatePrimary(begin) => self.create(Side::Primary, begin),
            Step::CreateGhost(begin) => self.create(Side::Ghost, begin),
            Step::Destroy(side) => self.destroy(side),
            Step::Pause(side) => {
                self.still_since = Some(Instant::now());
                let (backend, copy) = self.needed(side)?;
                backend.pause(copy).map(drop)
            }
            Step::Resume(side) => {
                let (backend, copy) = self.needed(side)?;
                backend.resume(copy)?;
                self.goes_on();
                Ok(())
            }
            Step::Gather(side, extent) => self.gather(side, extent),
            Step::Cut(side) => self.cut(side),
            Step::Apply(side, epoch) => self.apply(side, epoch),
            Step::Throw => self.switch.point(&self.spec.name, Side::Ghost),
            Step::Restore => self.switch.point(&self.spec.name, Side::Primary),
            Step::Activate(side) => {
                self.forward(other(side));
                let (backend, copy) = self.needed(side)?;
                let took = backend.activate(copy)?;
                self.done.activate = Some(took);
                self.goes_on();
                Ok(())
            }
            Step::Drill => self.drill(),
        }
    }

    /// What came for a paused copy before the switch moved goes to the other
    /// one. Without it, it goes on all the same, and clients send again.
    fn forward(&mut self, from: Side) {
        let copies = match from {
            Side::Primary => (&mut self.primary, &mut self.ghost),
            Side::Ghost => (&mut self.ghost, &mut self.primary),
        };
        let (Some(from), Some(to)) = copies else {
            return;
        };
        if let Err(error) = self.backend.forward(from, to) {
            tracing::info!(error = %error.chain(), "frames were not handed on");
        }
    }

    fn goes_on(&mut self) {
        if let Some(since) = self.still_since.take() {
            self.done.pause = Some(since.elapsed());
        }
    }

    fn needed(&mut self, side: Side) -> Result<(Arc<B>, &mut B::Copy), GhostError> {
        let backend = Arc::clone(&self.backend);
        let copy = self.copy(side).ok_or(GhostError::NoCopy(side_name(side)))?;
        Ok((backend, copy))
    }

    fn drill(&mut self) -> Result<(), GhostError> {
        let plan = self.plan(Side::Ghost, Begin::Suspended)?;
        let backend = Arc::clone(&self.backend);
        let ghost = self.ghost.as_mut().ok_or(GhostError::NoCopy("ghost"))?;
        let verdict = backend.drill(&plan, ghost, self.primary.as_mut())?;
        self.tell(EventKind::Drilled {
            instance: self.spec.name.to_string(),
            is_healthy: verdict.is_healthy,
            what: verdict.what.clone(),
        });
        self.done.verdict = Some(verdict);
        Ok(())
    }

    fn plan(&self, side: Side, begin: Begin) -> Result<CopyPlan, GhostError> {
        let spec = &self.spec;
        let vm = spec.vm.clone().ok_or(GhostError::NoCopy("[instance.vm]"))?;
        let port = spec.ports.iter().find(|port| port.side == side);
        Ok(CopyPlan {
            id: CopyId {
                instance: spec.name.clone(),
                side,
            },
            vm,
            interface: port.map(|port| port.interface.clone()),
            cgroup: spec.cgroup.clone().map(|path| match side {
                Side::Primary => path,
                // So the kernel takes only the primary's for the instance's.
                Side::Ghost => beside(&path, ".ghost"),
            }),
            begin,
        })
    }

    fn create(&mut self, side: Side, begin: Begin) -> Result<(), GhostError> {
        let plan = self.plan(side, begin)?;
        let mut copy = self.backend.create(&plan)?;
        if let Err(error) = self.connect(&plan) {
            if let Err(also) = self.backend.destroy(&mut copy) {
                tracing::warn!(error = %also.chain(), "something of a copy is left");
            }
            return Err(error);
        }
        match side {
            Side::Primary => self.primary = Some(copy),
            Side::Ghost => self.ghost = Some(copy),
        }
        // Before anything is brought into it.
        self.limit(side);
        Ok(())
    }

    /// Makes the host's end of a new copy's interface what it is to be.
    fn connect(&self, plan: &CopyPlan) -> Result<(), GhostError> {
        let (Some(interface), Some(guest_mac)) = (plan.interface.as_deref(), plan.vm.mac) else {
            return Ok(());
        };
        let mac = link::host_mac(&self.spec.name);
        let host_addresses = plan.vm.host_addresses.as_slice();
        let prepared = match plan.id.side {
            Side::Primary => PrimaryLink {
                interface,
                mac,
                host_addresses,
                services: &link::services(&self.spec),
            }
            .prepare(),
            Side::Ghost => GhostLink {
                interface,
                mac,
                guest_mac,
                vias: &link::vias(&self.spec),
                host_addresses,
            }
            .prepare(),
        };
        prepared.map_err(GhostError::Link)
    }

    fn destroy(&mut self, side: Side) -> Result<(), GhostError> {
        self.end_copy(side)?;
        match side {
            Side::Primary => self.primary = None,
            Side::Ghost => self.ghost = None,
        }
        Ok(())
    }

    fn gather(&mut self, from: Side, extent: Extent) -> Result<(), GhostError> {
        let to = other(from);
        if extent == Extent::Whole {
            self.note(to, |mark| Mark {
                is_torn: true,
                ..mark
            });
        }
        let (backend, copy) = self.needed(to)?;
        let mut stage = backend.begin(copy, extent)?;
        let (backend, copy) = self.needed(from)?;
        let taken = backend.gather(copy, &mut stage)?;
        self.stage = Some(stage);
        self.done.pages = Some(taken.pages);
        Ok(())
    }

    fn cut(&mut self, from: Side) -> Result<(), GhostError> {
        let mut stage = self.stage.take().ok_or(GhostError::NoCopy("cut"))?;
        let (backend, copy) = self.needed(from)?;
        let taken = backend.cut(copy, &mut stage)?;
        self.stage = Some(stage);
        self.done.pages_paused = Some(taken.pages);
        Ok(())
    }

    fn apply(&mut self, to: Side, epoch: u64) -> Result<(), GhostError> {
        let from = other(to);
        let stage = self.stage.take().ok_or(GhostError::NoCopy("cut"))?;
        self.note(to, |mark| Mark {
            is_torn: true,
            ..mark
        });
        let (backend, copy) = self.needed(to)?;
        backend.apply(copy, &stage)?;
        for side in [from, to] {
            self.note(side, |mark| Mark {
                epoch,
                is_torn: mark.is_torn && side != to,
                ..mark
            });
        }
        let (backend, copy) = self.needed(from)?;
        // What is not released comes again with the next cut.
        if let Err(error) = backend.release(copy, &stage) {
            tracing::warn!(error = %error.chain(), "more than necessary will go over next time");
        }
        Ok(())
    }
}

const fn other(side: Side) -> Side {
    match side {
        Side::Primary => Side::Ghost,
        Side::Ghost => Side::Primary,
    }
}
