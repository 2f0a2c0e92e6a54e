//! The difference between the kernel's and the wanted tables of one family.

use std::collections::{BTreeMap, BTreeSet};

use super::{Actual, Effect, PlanError, counters::Counters, family::Family, wanted::Tables};
use crate::model::SlotIndex;

pub(super) struct Diff<'a, F: Family> {
    pub(super) wanted: Tables<F>,
    routes: &'a BTreeMap<F::Key, F::Route>,
    reverses: &'a BTreeMap<F::Key, F::Reverse>,
    /// Services whose routes go first. Some of them come back at the end:
    /// those that lose a target to another service. While the reverse entry
    /// changes hands, the service is not ours, rather than answered under
    /// the other's address.
    withdrawn: BTreeSet<F::Key>,
}

impl<'a, F: Family> Diff<'a, F> {
    pub(super) fn new(wanted: Tables<F>, actual: &'a Actual) -> Self {
        let routes = F::routes(actual);
        let reverses = F::reverses(actual);
        let mut withdrawn: BTreeSet<F::Key> = routes
            .keys()
            .filter(|key| !wanted.routes.contains_key(key))
            .copied()
            .collect();
        for (key, reverse) in reverses {
            let service = F::service(key, reverse);
            if loses_target::<F>(&wanted, key, &service) && routes.contains_key(&service) {
                withdrawn.insert(service);
            }
        }
        let mut diff = Self {
            wanted,
            routes,
            reverses,
            withdrawn,
        };
        diff.withdraw_covering();
        diff
    }

    /// Without its port route a packet falls through to the route of the
    /// address as a whole. Where that is not what the new configuration says
    /// either, the address is let go of with the port, and before it.
    fn withdraw_covering(&mut self) {
        let falls_wrong = |port: &&F::Key| {
            let whole = F::whole(port);
            let (Some(held), Some(wanted)) =
                (self.routes.get(&whole), self.wanted.routes.get(&whole))
            else {
                return false;
            };
            let comes_back = self.wanted.routes.contains_key(port);
            let (slot, counter) = (F::slot(held), F::counter(held));
            let (primary, ghost) = (wanted.spec.primary, wanted.spec.ghost);
            comes_back || F::route(slot, counter, primary, ghost) != Some(*held)
        };
        let covering: Vec<F::Key> = self
            .withdrawn
            .iter()
            .filter(falls_wrong)
            .map(F::whole)
            .collect();
        self.withdrawn.extend(covering);
    }

    fn stays(&self, service: &F::Key) -> bool {
        self.routes.contains_key(service) && !self.withdrawn.contains(service)
    }

    /// Slots that the routes which stay use now.
    pub(super) fn slots_in_use(&self) -> BTreeSet<SlotIndex> {
        self.routes
            .iter()
            .filter(|(key, _)| self.stays(key))
            .map(|(_, route)| SlotIndex(F::slot(route)))
            .collect()
    }

    /// Withdraws what still uses one of `slots`.
    pub(super) fn withdraw_from(&mut self, slots: &BTreeSet<SlotIndex>) {
        let leaving = self
            .routes
            .iter()
            .filter(|(_, route)| slots.contains(&SlotIndex(F::slot(route))))
            .map(|(key, _)| *key);
        self.withdrawn.extend(leaving);
        self.withdraw_covering();
    }

    /// In the order of keys: an address as a whole before its ports.
    pub(super) fn delete_routes(&self, effects: &mut Vec<Effect>) {
        effects.extend(self.withdrawn.iter().map(|key| F::delete_route(*key)));
    }

    /// The reverse entries of routes that are gone.
    pub(super) fn delete_reverses(&self, effects: &mut Vec<Effect>) {
        let gone = self
            .reverses
            .iter()
            .filter(|(key, reverse)| !self.stays(&F::service(key, reverse)))
            .map(|(key, _)| F::delete_reverse(*key));
        effects.extend(gone);
    }

    /// Sets the filter bits of everything wanted.
    pub(super) fn set_filter(&self, words: &mut [u64]) {
        for key in self.wanted.routes.keys().chain(self.wanted.reverses.keys()) {
            for bit in F::filters(key) {
                if let Some(word) = words.get_mut(bit.word as usize) {
                    *word |= bit.mask;
                }
            }
        }
    }

    /// New routes together, reverse entries first; then each route that
    /// changes, one by one, so that old and new targets never pile up.
    pub(super) fn put(
        &self,
        slots: &[SlotIndex],
        counters: &Counters<F>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), PlanError> {
        let new = || self.wanted.routes.keys().filter(|key| !self.stays(key));
        let entries = self.entries(slots, counters)?;
        let stale = self.stale_targets();
        for key in new() {
            self.put_reverses(&entries.reverses, key, effects);
        }
        // Against the order of keys: ports before the address as a whole.
        effects.extend(
            new()
                .rev()
                .map(|key| F::put_route(*key, entries.routes[key])),
        );
        for key in self.wanted.routes.keys().filter(|key| self.stays(key)) {
            self.put_reverses(&entries.reverses, key, effects);
            let route = entries.routes[key];
            if self.routes[key] != route {
                effects.push(F::put_route(*key, route));
            }
            for target in stale.get(key).into_iter().flatten() {
                effects.push(F::delete_reverse(*target));
            }
        }
        Ok(())
    }

    fn put_reverses(&self, of: &Reverses<F>, service: &F::Key, effects: &mut Vec<Effect>) {
        for (key, reverse) in of.get(service).into_iter().flatten() {
            let held = self.reverses.get(key);
            let held = held.filter(|held| self.stays(&F::service(key, held)));
            if held != Some(reverse) {
                effects.push(F::put_reverse(*key, *reverse));
            }
        }
    }

    /// The values to be written, slots and counters filled in.
    fn entries(
        &self,
        slots: &[SlotIndex],
        counters: &Counters<F>,
    ) -> Result<Entries<F>, PlanError> {
        let mut entries = Entries {
            routes: BTreeMap::new(),
            reverses: BTreeMap::new(),
        };
        for (key, wanted) in &self.wanted.routes {
            let (slot, counter) = (slots[wanted.instance].0, counters.of[key]);
            let spec = &wanted.spec;
            let route = F::route(slot, counter, spec.primary, spec.ghost)
                .ok_or(PlanError::MixedFamilies(spec.service))?;
            entries.routes.insert(*key, route);
        }
        for (key, (service, side)) in &self.wanted.reverses {
            let instance = self.wanted.routes[service].instance;
            let (slot, counter) = (slots[instance].0, counters.of[service]);
            let reverse = F::reverse(slot, counter, *service, *side);
            let of_service = entries.reverses.entry(*service).or_default();
            of_service.push((*key, reverse));
        }
        Ok(entries)
    }

    /// Targets that a route which stays has now and is to have no more.
    fn stale_targets(&self) -> BTreeMap<F::Key, Vec<F::Key>> {
        let mut stale = BTreeMap::<F::Key, Vec<F::Key>>::new();
        for (key, reverse) in self.reverses {
            let service = F::service(key, reverse);
            if self.stays(&service) && !self.wanted.reverses.contains_key(key) {
                stale.entry(service).or_default().push(*key);
            }
        }
        stale
    }
}

/// By service: reverse keys and their values.
type Reverses<F> = BTreeMap<<F as Family>::Key, Vec<(<F as Family>::Key, <F as Family>::Reverse)>>;

struct Entries<F: Family> {
    routes: BTreeMap<F::Key, F::Route>,
    reverses: Reverses<F>,
}

/// Whether the packets of a target that `service` has now are to come from
/// another service, all of them or some.
fn loses_target<F: Family>(wanted: &Tables<F>, target: &F::Key, service: &F::Key) -> bool {
    let (first, last) = F::span(target);
    let names_all = *target == first;
    wanted
        .reverses
        .range(first..=last)
        .filter(|(key, _)| names_all || *key == target || **key == first)
        .any(|(key, (other, _))| {
            // A port of an address that is translated as a whole may have a
            // route of its own that says the same.
            let agrees = F::whole(other) == F::whole(service)
                && F::same_l4(target, service)
                && F::same_l4(key, other);
            other != service && !agrees
        })
}
