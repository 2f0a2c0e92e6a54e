//! What was written and has not arrived for good elsewhere.
//!
//! Bits that were harvested are gone from where they were kept, so they stay
//! here until their receiver says that it has them. A harvest is answered
//! with everything that is pending, so whoever was interrupted asks again.

use std::collections::VecDeque;

/// Harvests that are kept apart. A receiver that has fallen further behind is
/// told more than it needs: the latest two become one.
const HARVESTS_MAX: usize = 4;

/// One bit for each page or block, lowest bit first.
pub(super) type Bits = Vec<u64>;

/// Pages of the memfd, and blocks of the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) pages: Bits,
    pub(super) blocks: Bits,
}

impl Written {
    fn add(&mut self, more: &Self) {
        let Self { pages, blocks } = more;
        add(&mut self.pages, pages);
        add(&mut self.blocks, blocks);
    }
}

/// Sets in `bits` what is set in `more`, wherever that begins there.
pub(super) fn add(bits: &mut Bits, more: &[u64]) {
    if bits.len() < more.len() {
        bits.resize(more.len(), 0);
    }
    for (to, word) in bits.iter_mut().zip(more) {
        *to |= word;
    }
}

pub(super) fn count(bits: &[u64]) -> u64 {
    bits.iter().map(|word| u64::from(word.count_ones())).sum()
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Of the latest harvest; 0 before the first.
    sequence: u64,
    /// The oldest first, each with its sequence number.
    harvests: VecDeque<(u64, Written)>,
}

impl Pending {
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Forgets what had been harvested by then. `false` if there was no such
    /// harvest yet, and nothing is forgotten.
    pub(super) fn release(&mut self, sequence: u64) -> bool {
        if sequence > self.sequence {
            return false;
        }
        self.harvests.retain(|(own, _)| *own > sequence);
        true
    }

    /// All that is pending, with what was written since the last harvest.
    pub(super) fn harvest(&mut self, fresh: Written) -> Written {
        self.sequence += 1;
        let is_full = self.harvests.len() >= HARVESTS_MAX;
        match self.harvests.back_mut() {
            Some((latest, written)) if is_full => {
                *latest = self.sequence;
                written.add(&fresh);
            }
            _ => self.harvests.push_back((self.sequence, fresh)),
        }
        let mut all = self.harvests.iter().map(|(_, written)| written);
        let mut union = all.next().cloned().unwrap_or_default();
        all.for_each(|written| union.add(written));
        union
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{Pending, Written, count};

    fn written(pages: &BTreeSet<usize>) -> Written {
        let mut bits = vec![0; 4];
        for page in pages {
            bits[page / 64] |= 1 << (page % 64);
        }
        Written {
            blocks: bits.clone(),
            pages: bits,
        }
    }

    fn pages(bits: &[u64]) -> BTreeSet<usize> {
        (0..bits.len() * 64)
            .filter(|page| bits[page / 64] & (1 << (page % 64)) != 0)
            .collect()
    }

    #[test]
    fn what_was_not_released_is_told_again() {
        let set = |pages: &[usize]| pages.iter().copied().collect::<BTreeSet<_>>();
        let mut pending = Pending::default();
        assert!(!pending.release(1), "nothing was harvested yet");
        assert!(pending.release(0));
        let first = pending.harvest(written(&set(&[1, 70])));
        assert_eq!(pages(&first.pages), set(&[1, 70]));
        let second = pending.harvest(written(&set(&[2])));
        assert_eq!(pages(&second.pages), set(&[1, 2, 70]));
        assert_eq!(count(&second.blocks), 3);
        // What was written again after the harvest that arrived stays.
        assert!(pending.release(1));
        let third = pending.harvest(written(&set(&[1])));
        assert_eq!(pages(&third.pages), set(&[1, 2]));
        assert!(pending.release(pending.sequence()));
        assert_eq!(count(&pending.harvest(written(&set(&[]))).pages), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Harvest(BTreeSet<usize>),
        /// This many harvests ago.
        Release(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop::collection::btree_set(0_usize..256, 0..20).prop_map(Step::Harvest),
            (0_u64..8).prop_map(Step::Release),
        ]
    }

    proptest! {
        /// Against a list of everything, forever: nothing that did not arrive
        /// is ever left out, and nothing is told once the latest has arrived.
        #[test]
        fn nothing_is_forgotten_before_it_arrived(steps in prop::collection::vec(step(), 1..60)) {
            let mut pending = Pending::default();
            let mut all: Vec<(u64, BTreeSet<usize>)> = Vec::new();
            let mut released = 0;
            let mut has_fallen_behind = false;
            for step in steps {
                match step {
                    Step::Harvest(fresh) => {
                        let told = pending.harvest(written(&fresh));
                        all.push((pending.sequence(), fresh));
                        let due: BTreeSet<usize> = all
                            .iter()
                            .filter(|(sequence, _)| *sequence > released)
                            .flat_map(|(_, pages)| pages.iter().copied())
                            .collect();
                        let told = pages(&told.pages);
                        prop_assert!(told.is_superset(&due));
                        let kept = pending.sequence() - released;
                        has_fallen_behind |= kept > super::HARVESTS_MAX as u64;
                        if !has_fallen_behind {
                            prop_assert_eq!(told, due);
                        }
                    }
                    Step::Release(ago) => {
                        let sequence = pending.sequence().saturating_sub(ago);
                        prop_assert!(pending.release(sequence));
                        released = released.max(sequence);
                    }
                }
            }
        }
    }
}
