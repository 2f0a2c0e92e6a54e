//! Which route counts where.

use std::collections::BTreeMap;

use super::{Actual, PlanError, family::Family, wanted::Tables};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Never,
    /// Some entry in the kernel counts here, but no route that stays.
    Before,
    Taken,
}

/// The slots of `gd_counters`.
pub(super) struct Pool {
    uses: Vec<Use>,
    /// Nothing below is `Never`.
    never_from: usize,
    /// Nothing below is `Before`.
    before_from: usize,
}

/// The counters of one family's routes.
pub(super) struct Counters<F: Family> {
    pub(super) of: BTreeMap<F::Key, u32>,
}

impl Pool {
    pub(super) fn new(size: u32) -> Self {
        Self {
            uses: vec![Use::Never; size as usize],
            never_from: 0,
            before_from: 0,
        }
    }

    /// Marks what the kernel's entries use. To be done for both families
    /// before the first counter is given out.
    pub(super) fn mark<F: Family>(&mut self, actual: &Actual) {
        let routes = F::routes(actual).values().map(F::counter);
        let reverses = F::reverses(actual).values().map(F::reverse_counter);
        for counter in routes.chain(reverses) {
            if let Some(state) = self.uses.get_mut(counter as usize) {
                *state = Use::Before;
            }
        }
    }

    /// Services that stay keep theirs. Both families, before [`Self::assign`].
    pub(super) fn keep<F: Family>(&mut self, wanted: &Tables<F>, actual: &Actual) -> Counters<F> {
        let mut of = BTreeMap::new();
        for (key, route) in F::routes(actual) {
            let counter = F::counter(route);
            let Some(state) = self.uses.get_mut(counter as usize) else {
                continue;
            };
            if wanted.routes.contains_key(key) && *state != Use::Taken {
                *state = Use::Taken;
                of.insert(*key, counter);
            }
        }
        Counters { of }
    }

    /// Gives the rest one each, and tells which ones those are.
    pub(super) fn assign<F: Family>(
        &mut self,
        wanted: &Tables<F>,
        counters: &mut Counters<F>,
        fresh: &mut Vec<u32>,
    ) -> Result<(), PlanError> {
        for key in wanted.routes.keys() {
            if !counters.of.contains_key(key) {
                let counter = self.take().ok_or(PlanError::NoCounter)?;
                counters.of.insert(*key, counter);
                fresh.push(counter);
            }
        }
        Ok(())
    }

    /// One that no entry has used, if there is one; else one whose user goes.
    fn take(&mut self) -> Option<u32> {
        let uses = &mut self.uses;
        let next = |from: usize, wanted: Use| (from..uses.len()).find(|&i| uses[i] == wanted);
        let index = match next(self.never_from, Use::Never) {
            Some(index) => {
                self.never_from = index + 1;
                index
            }
            None => {
                self.never_from = uses.len();
                let index = next(self.before_from, Use::Before)?;
                self.before_from = index + 1;
                index
            }
        };
        uses[index] = Use::Taken;
        u32::try_from(index).ok()
    }
}
