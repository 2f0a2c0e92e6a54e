//! Limits of copies: what ghosts hold of the reserve, and what is in force.
//!
//! Owns: the ledger of ghosts, which together never hold more than the
//! reserve; one journal of everything that was changed for limits.
//!
//! Refuses: to plan, and to start or end copies.
//!
//! How it fails: a ghost for which the reserve has too little left is
//! refused with the figures. A limit that the host cannot enforce is named,
//! and the copy lives without it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agent_common::abi::Side;

use crate::{
    allocate::Policy,
    enforce::{self, EnforceError, Journal, Setting},
    model::{Amounts, CopyId, Grade, Grant, InstanceName, NotInForce, Plan, Risk, VmSpec},
};

const MIB: u64 = 1 << 20;

/// A ghost that the reserve has no room for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverReserve {
    #[error(
        "the reserve has {} MiB left, {name} needs {} MiB; \
         ghosts hold {} MiB of {} MiB", left / MIB, needs.div_ceil(MIB), held / MIB, reserve / MIB
    )]
    Memory {
        name: InstanceName,
        needs: u64,
        left: u64,
        held: u64,
        reserve: u64,
    },
    #[error(
        "the reserve has {left} thousandths of a CPU left, {name} needs {needs}; \
         ghosts hold {held} of {reserve}"
    )]
    Cpu {
        name: InstanceName,
        needs: u64,
        left: u64,
        held: u64,
        reserve: u64,
    },
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Limits {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// Or why there is none.
    journal: Result<Journal, String>,
    /// What each ghost holds.
    held: BTreeMap<InstanceName, Grant>,
    /// Copies that limits were applied to.
    limited: Vec<CopyId>,
}

impl Limits {
    /// Undoes what an earlier daemon left in the journal. Copies that outlived
    /// it get their limits back when they are adopted.
    pub fn open(journal: &Path) -> Self {
        let journal = match Journal::open(journal) {
            Ok((journal, failures)) => {
                tell(&failures);
                Ok(journal)
            }
            Err(error) => {
                let why = in_words(&error);
                tracing::warn!(error = why, "copies run without limits");
                Err(why)
            }
        };
        let inner = Inner {
            journal,
            held: BTreeMap::new(),
            limited: Vec::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// No code panics while it holds the lock, so a poisoned one is as good.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a ghost hold its part of the reserve, if that has enough left. One
    /// that the plan gives nothing is made at an operator's word, with as
    /// little CPU as a ghost can do with.
    pub fn admit(&self, name: &InstanceName, vm: &VmSpec, plan: &Plan) -> Result<(), OverReserve> {
        self.inner().admit(name, vm, plan)
    }

    /// The same for a ghost that is there already: it is not sent away because
    /// the reserve has shrunk.
    pub fn hold(&self, name: &InstanceName, vm: &VmSpec, plan: &Plan) {
        self.inner().hold(name, vm, plan);
    }

    /// A ghost that was admitted was not made.
    pub fn give_back(&self, name: &InstanceName) {
        self.inner().held.remove(name);
    }

    /// Brings a copy's limits into force, as far as the host can.
    pub fn apply(&self, id: &CopyId, vm: &VmSpec, folder: Option<&Path>) -> Vec<NotInForce> {
        let inner = &mut *self.inner();
        let settings = match id.side {
            Side::Primary => enforce::of_primary(vm.memory_mib.saturating_mul(MIB)),
            Side::Ghost => match inner.held.get(&id.instance) {
                Some(grant) => enforce::of_ghost(grant),
                None => return Vec::new(),
            },
        };
        let Some(folder) = folder else {
            return none_of(&settings, "the instance has no `cgroup`");
        };
        let journal = match &mut inner.journal {
            Ok(journal) => journal,
            Err(why) => return none_of(&settings, why),
        };
        inner.limited.retain(|other| other != id);
        inner.limited.push(id.clone());
        match enforce::apply(folder, &settings, journal) {
            Ok(report) => report.not_in_force,
            Err(error) => none_of(&settings, &in_words(&error)),
        }
    }

    /// The copy is gone: so is what was changed for it, and with the last one
    /// all that was changed above.
    pub fn gone(&self, id: &CopyId, folder: Option<&Path>) {
        let inner = &mut *self.inner();
        if id.side == Side::Ghost {
            inner.held.remove(&id.instance);
        }
        inner.limited.retain(|other| other != id);
        let Ok(journal) = &mut inner.journal else {
            return;
        };
        if inner.limited.is_empty() {
            tell(&journal.undo());
        } else if let Some(folder) = folder {
            tell(&journal.undo_in(folder));
        }
    }
}

impl Inner {
    fn admit(&mut self, name: &InstanceName, vm: &VmSpec, plan: &Plan) -> Result<(), OverReserve> {
        let (held, left) = self.left(name, plan);
        let needs = needs(vm);
        if needs.memory_bytes > left.memory_bytes {
            return Err(OverReserve::Memory {
                name: name.clone(),
                needs: needs.memory_bytes,
                left: left.memory_bytes,
                held: held.memory_bytes,
                reserve: plan.reserve.memory_bytes,
            });
        }
        if needs.cpu_milli > left.cpu_milli {
            return Err(OverReserve::Cpu {
                name: name.clone(),
                needs: needs.cpu_milli,
                left: left.cpu_milli,
                held: held.cpu_milli,
                reserve: plan.reserve.cpu_milli,
            });
        }
        self.hold(name, vm, plan);
        Ok(())
    }

    /// What the other ghosts hold, and what they leave.
    fn left(&self, name: &InstanceName, plan: &Plan) -> (Amounts, Amounts) {
        let others = self.held.values().filter(|grant| grant.name != *name);
        let held = others.fold(Amounts::default(), |sum, grant| sum.plus(&grant.amounts));
        (held, plan.reserve.less(&held))
    }

    /// All of a ghost's memory is resident, in ordinary pages, whatever its
    /// grade: an incomplete one could not be brought up to date.
    fn hold(&mut self, name: &InstanceName, vm: &VmSpec, plan: &Plan) {
        let (_, left) = self.left(name, plan);
        let granted = plan.grant(name).filter(|grant| grant.grade > Grade::None);
        let least = needs(vm);
        let cpu = granted.map_or(0, |grant| grant.amounts.cpu_milli);
        let amounts = Amounts {
            cpu_milli: cpu.min(left.cpu_milli).max(least.cpu_milli),
            ..least
        };
        let grant = Grant {
            name: name.clone(),
            grade: Grade::Resident,
            risk: granted.map_or(Risk::NONE, |grant| grant.risk),
            amounts,
            cpu_weight: granted.map_or(1, |grant| grant.cpu_weight),
            epoch_ms: granted.map_or(0, |grant| grant.epoch_ms),
        };
        self.held.insert(name.clone(), grant);
    }
}

/// The least that a ghost of it can do with.
fn needs(vm: &VmSpec) -> Amounts {
    let policy = Policy::default();
    let guest = vm.memory_mib.saturating_mul(MIB);
    Amounts {
        memory_bytes: guest.saturating_add(policy.overhead_bytes),
        cpu_milli: policy.cpu_floor_milli,
        ..Amounts::default()
    }
}

fn none_of(settings: &[Setting], why: &str) -> Vec<NotInForce> {
    let none = settings.iter().map(|setting| NotInForce {
        file: setting.file,
        why: why.to_owned(),
    });
    none.collect()
}

fn tell(failures: &[EnforceError]) {
    for error in failures {
        tracing::warn!(
            error = in_words(error),
            "a change for limits was not undone"
        );
    }
}

fn in_words(error: &EnforceError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
