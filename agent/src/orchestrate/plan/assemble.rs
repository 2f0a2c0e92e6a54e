//! Puts the parts of a plan in order.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::abi::{FILTER_WORDS, Port};

use super::{
    Actual, Effect, Facts, FilterWord, PlanError,
    counters::Pool,
    diff::Diff,
    family::{Family, V4, V6},
    slots::{self, Seats},
    wanted::{self, Tables},
};
use crate::model::{CounterIndex, Ifindex, InstanceSpec, Limits, PortSpec, SlotIndex};

/// What is wanted and held, and what has been decided so far.
pub(super) struct Assembly<'a> {
    desired: &'a [InstanceSpec],
    actual: &'a Actual,
    v4: Diff<'a, V4>,
    v6: Diff<'a, V6>,
    ports: BTreeMap<Ifindex, (usize, &'a PortSpec)>,
    cgroups: BTreeMap<u64, usize>,
    seats: Seats,
    /// Slots to be released at once, and those that something has yet to leave.
    early: BTreeSet<SlotIndex>,
    late: BTreeSet<SlotIndex>,
    /// By the instance's place in the configuration.
    slots: Vec<SlotIndex>,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(
        desired: &'a [InstanceSpec],
        limits: &Limits,
        facts: &Facts,
        actual: &'a Actual,
    ) -> Result<Self, PlanError> {
        let v4 = Tables::<V4>::collect(desired)?;
        let v6 = Tables::<V6>::collect(desired)?;
        check_limits(desired, limits, &v4, &v6)?;
        let mut assembly = Self {
            desired,
            actual,
            v4: Diff::new(v4, actual),
            v6: Diff::new(v6, actual),
            ports: wanted::ports(desired, facts)?,
            cgroups: wanted::cgroups(desired, facts)?,
            seats: Seats::match_names(desired, actual)?,
            early: BTreeSet::new(),
            late: BTreeSet::new(),
            slots: Vec::new(),
        };
        assembly.split_stale(limits);
        assembly.seat(limits)?;
        Ok(assembly)
    }

    /// A slot that a route, port or cgroup is to move away from is released
    /// only after it has moved, unless every slot is needed at once.
    fn split_stale(&mut self, limits: &Limits) {
        let mut in_use = self.v4.slots_in_use();
        in_use.append(&mut self.v6.slots_in_use());
        let ports = self.ports.keys();
        in_use.extend(ports.filter_map(|i| Some(SlotIndex(self.actual.ports.get(i)?.switch))));
        let cgroups = self.cgroups.keys();
        in_use.extend(cgroups.filter_map(|id| self.actual.cgroups.get(id).copied()));
        let (late, early) = self.seats.stale.iter().partition(|s| in_use.contains(s));
        (self.late, self.early) = (late, early);

        let taken = self.seats.kept.iter().flatten().chain(&self.late);
        let taken = taken.filter(|slot| slot.0 < limits.instances).count();
        let new = self.seats.kept.iter().filter(|slot| slot.is_none()).count();
        if taken + new > limits.instances as usize {
            self.v4.withdraw_from(&self.late);
            self.v6.withdraw_from(&self.late);
            self.early.append(&mut self.late);
        }
    }

    /// New instances get the lowest slot that was not in use; only when there
    /// is none left, one that is released first.
    fn seat(&mut self, limits: &Limits) -> Result<(), PlanError> {
        let fresh = (0..limits.instances)
            .map(SlotIndex)
            .filter(|slot| !self.actual.slots.contains_key(slot));
        let again = self.early.iter().copied();
        let mut free = fresh.chain(again.filter(|slot| slot.0 < limits.instances));
        for kept in &self.seats.kept {
            let slot = match kept {
                Some(slot) => *slot,
                None => free.next().ok_or(PlanError::NoSlot)?,
            };
            self.slots.push(slot);
        }
        Ok(())
    }

    pub(super) fn effects(&self, limits: &Limits) -> Result<Vec<Effect>, PlanError> {
        let mut effects = Vec::new();
        self.v4.delete_routes(&mut effects);
        self.v6.delete_routes(&mut effects);
        self.v4.delete_reverses(&mut effects);
        self.v6.delete_reverses(&mut effects);
        self.delete_ports_and_cgroups(&mut effects);
        self.release(&self.early, &mut effects);

        self.put_instances(&mut effects);
        self.put_cgroups_and_ports(&mut effects);
        let filter = self.filter();
        let missing = |word: usize, held: u64| filter[word] & !held;
        self.put_filter(&mut effects, missing, |word, held| filter[word] | held);
        self.put_routes(limits, &mut effects)?;

        self.release(&self.late, &mut effects);
        let stale = |word: usize, held: u64| held & !filter[word];
        self.put_filter(&mut effects, stale, |word, _| filter[word]);
        Ok(effects)
    }

    fn delete_ports_and_cgroups(&self, effects: &mut Vec<Effect>) {
        for (&ifindex, port) in &self.actual.ports {
            if !self.ports.contains_key(&ifindex) || self.early.contains(&SlotIndex(port.switch)) {
                effects.push(Effect::DeletePort { ifindex });
            }
        }
        for (&cgroup_id, slot) in &self.actual.cgroups {
            if !self.cgroups.contains_key(&cgroup_id) || self.early.contains(slot) {
                effects.push(Effect::DeleteCgroup { cgroup_id });
            }
        }
    }

    fn release(&self, gone: &BTreeSet<SlotIndex>, effects: &mut Vec<Effect>) {
        for &slot in gone {
            effects.push(Effect::ClearSwitch { slot });
            effects.push(Effect::ReleaseSlot { slot });
        }
    }

    fn put_instances(&self, effects: &mut Vec<Effect>) {
        for (place, spec) in self.desired.iter().enumerate() {
            let slot = self.slots[place];
            let held = self.seats.kept[place].and_then(|slot| self.actual.slots.get(&slot));
            let record = slots::record(&spec.name);
            if held.is_none_or(|held| held.record != record) {
                effects.push(Effect::ClaimSlot { slot, record });
            }
            let Some(held) = held.filter(|held| slots::is_used(held)) else {
                let switch = slots::new_switch(spec, self.actual.host_generation);
                effects.push(Effect::InitSwitch { slot, switch });
                continue;
            };
            let (is, wanted) = (held.switch.control.flags, slots::wanted_flags(spec));
            let set = wanted & !is;
            let clear = is & slots::CONFIGURED & !wanted;
            let drain_idle_ns = slots::drain_idle_ns(spec);
            if set | clear != 0 || held.switch.drain_idle_ns != drain_idle_ns {
                effects.push(Effect::SetFlags {
                    slot,
                    set,
                    clear,
                    drain_idle_ns,
                });
            }
        }
    }

    fn put_cgroups_and_ports(&self, effects: &mut Vec<Effect>) {
        for (&cgroup_id, &place) in &self.cgroups {
            let slot = self.slots[place];
            let held = self.actual.cgroups.get(&cgroup_id);
            // Slots in `early` were taken from it above, even if given out again.
            if held != Some(&slot) || self.early.contains(&slot) {
                effects.push(Effect::PutCgroup { cgroup_id, slot });
            }
        }
        for (&ifindex, &(place, spec)) in &self.ports {
            let held = self.actual.ports.get(&ifindex);
            let held = held.filter(|held| !self.early.contains(&SlotIndex(held.switch)));
            let port = wanted_port(self.slots[place], spec, held);
            if held != Some(&port) {
                effects.push(Effect::PutPort { ifindex, port });
            }
        }
    }

    fn put_routes(&self, limits: &Limits, effects: &mut Vec<Effect>) -> Result<(), PlanError> {
        let mut pool = Pool::new(limits.counters());
        pool.mark::<V4>(self.actual);
        pool.mark::<V6>(self.actual);
        let mut v4 = pool.keep(&self.v4.wanted, self.actual);
        let mut v6 = pool.keep(&self.v6.wanted, self.actual);
        let mut fresh = Vec::new();
        pool.assign(&self.v4.wanted, &mut v4, &mut fresh)?;
        pool.assign(&self.v6.wanted, &mut v6, &mut fresh)?;
        effects.extend(fresh.into_iter().map(|index| Effect::ResetCounter {
            counter: CounterIndex(index),
        }));
        self.v4.put(&self.slots, &v4, effects)?;
        self.v6.put(&self.slots, &v6, effects)
    }

    /// The filter that the wanted tables need.
    fn filter(&self) -> Vec<u64> {
        let mut words = vec![0; FILTER_WORDS as usize];
        self.v4.set_filter(&mut words);
        self.v6.set_filter(&mut words);
        words
    }

    /// Stores, of the words that hold some bit of `when`, what `bits` says.
    fn put_filter(
        &self,
        effects: &mut Vec<Effect>,
        when: impl Fn(usize, u64) -> u64,
        bits: impl Fn(usize, u64) -> u64,
    ) {
        let words: Vec<FilterWord> = (0..FILTER_WORDS)
            .filter_map(|index| {
                let word = index as usize;
                let held = self.actual.filter.get(word).copied().unwrap_or(0);
                (when(word, held) != 0).then(|| FilterWord {
                    index,
                    bits: bits(word, held),
                })
            })
            .collect();
        if !words.is_empty() {
            effects.push(Effect::PutFilter { words });
        }
    }
}

/// Lease, term and count belong to whoever runs the copy, not to the plan.
fn wanted_port(slot: SlotIndex, spec: &PortSpec, held: Option<&Port>) -> Port {
    let same_copy = held.filter(|held| held.switch == slot.0 && held.side == spec.side as u8);
    Port {
        switch: slot.0,
        side: spec.side as u8,
        fence: spec.fence as u8,
        pad: [0; 2],
        lease_ns: same_copy.map_or(0, |held| held.lease_ns),
        fenced_packets: same_copy.map_or(0, |held| held.fenced_packets),
        term: same_copy.map_or(0, |held| held.term),
        pad1: 0,
    }
}

fn check_limits(
    desired: &[InstanceSpec],
    limits: &Limits,
    v4: &Tables<V4>,
    v6: &Tables<V6>,
) -> Result<(), PlanError> {
    if desired.len() > limits.instances as usize {
        return Err(PlanError::TooManyInstances {
            wanted: desired.len(),
            limit: limits.instances,
        });
    }
    for (family, wanted) in [(V4::NAME, v4.routes.len()), (V6::NAME, v6.routes.len())] {
        if wanted > limits.routes as usize {
            return Err(PlanError::TooManyRoutes {
                family,
                wanted,
                limit: limits.routes,
            });
        }
    }
    Ok(())
}
