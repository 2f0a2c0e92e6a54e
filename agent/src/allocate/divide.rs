//! What is divisible: CPU and bandwidth, by score.
//!
//! Unit by unit, each to whoever would have the most score a unit with it
//! (D'Hondt's method). Unlike shares that are rounded it is exact, and nobody
//! ever loses a unit because a score of theirs rose. The first units of all
//! are found at once, by a level that a binary search finds, so that the cost
//! does not grow with what there is.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap},
};

use super::grade::Candidate;
use crate::model::{Amounts, Grade};

/// Thousandths of a CPU: the kernel takes no quota below 1 ms in 100 ms.
const CPU_UNIT: u64 = 10;

/// 1 Mbit/s, in bytes.
const BANDWIDTH_UNIT: u64 = 125_000;

/// Divides what `left` has of CPU and bandwidth, and keeps to what the owners
/// have left of theirs.
pub(super) fn rest(candidates: &mut [Candidate<'_>], left: &Amounts, owners: &[Amounts]) {
    let mut ghosts: Vec<&mut Candidate<'_>> = candidates
        .iter_mut()
        .filter(|candidate| candidate.grade > Grade::None)
        .collect();
    ghosts.sort_by(|a, b| a.order(b, Grade::None));

    let cpu = |candidate: &Candidate<'_>| {
        let all = u64::from(candidate.demand.need.vcpus) * 1000;
        all.saturating_sub(candidate.amounts.cpu_milli) / CPU_UNIT
    };
    let claims = capped(&ghosts, cpu, |owner| {
        owners.get(owner).map(|left| left.cpu_milli / CPU_UNIT)
    });
    let units = divide(left.cpu_milli / CPU_UNIT, &claims);
    for (ghost, units) in ghosts.iter_mut().zip(units) {
        ghost.amounts.cpu_milli += units * CPU_UNIT;
    }

    let bandwidth = |candidate: &Candidate<'_>| {
        let missing = candidate.demand.need.dirty_rate;
        let missing = missing.saturating_sub(candidate.amounts.bandwidth);
        missing.div_ceil(BANDWIDTH_UNIT)
    };
    let claims = capped(&ghosts, bandwidth, |owner| {
        owners
            .get(owner)
            .map(|left| left.bandwidth / BANDWIDTH_UNIT)
    });
    let units = divide(left.bandwidth / BANDWIDTH_UNIT, &claims);
    for (ghost, units) in ghosts.iter_mut().zip(units) {
        ghost.amounts.bandwidth += units * BANDWIDTH_UNIT;
    }
}

/// A claim for each ghost. What an owner may have is divided first; what each
/// gets of that is the most it can claim of the whole. That is as if an owner
/// were passed over from the unit on that would be too many.
fn capped(
    ghosts: &[&mut Candidate<'_>],
    wants: impl Fn(&Candidate<'_>) -> u64,
    owner_has: impl Fn(usize) -> Option<u64>,
) -> Vec<Claim> {
    let claims = ghosts.iter().map(|ghost| Claim {
        weight: ghost.score(),
        cap: wants(ghost),
    });
    let mut claims: Vec<Claim> = claims.collect();
    let mut of_owner: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, owner) in ghosts
        .iter()
        .enumerate()
        .filter_map(|(i, g)| Some((i, g.owner?)))
    {
        of_owner.entry(owner).or_default().push(index);
    }
    for (owner, members) in of_owner {
        let Some(total) = owner_has(owner) else {
            continue;
        };
        let own = members.iter().filter_map(|index| claims.get(*index));
        let units = divide(total, &own.copied().collect::<Vec<_>>());
        for (index, units) in members.iter().zip(units) {
            if let Some(claim) = claims.get_mut(*index) {
                claim.cap = units;
            }
        }
    }
    claims
}

/// Who wants units, by falling rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) weight: u64,
    /// The most units it can use.
    pub(super) cap: u64,
}

/// Parts of a level that is one unit for a weight of one.
const LEVEL: u128 = 1 << 40;

/// Units for each claim. Never more than `total` together, nor than each cap;
/// less than `total` only if all that have a weight have their cap.
pub(super) fn divide(total: u64, claims: &[Claim]) -> Vec<u64> {
    let at = |level: u128, claim: &Claim| -> u64 {
        let units = level.saturating_mul(u128::from(claim.weight)) / LEVEL;
        u64::try_from(units).unwrap_or(u64::MAX).min(claim.cap)
    };
    let fits = |level: u128| -> bool {
        let sum: u128 = claims.iter().map(|c| u128::from(at(level, c))).sum();
        sum <= u128::from(total)
    };
    // The highest level that fits; `u64::MAX * LEVEL` gives everybody its cap.
    let (mut low, mut high) = (0, u128::from(u64::MAX) * LEVEL);
    if fits(high) {
        return claims.iter().map(|claim| at(high, claim)).collect();
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    let mut units: Vec<u64> = claims.iter().map(|claim| at(low, claim)).collect();
    let mut left = total - units.iter().sum::<u64>().min(total);
    let seat = |(rank, (claim, units)): (usize, (&Claim, &u64))| -> Option<Seat> {
        let next = units + 1;
        (claim.weight > 0 && next <= claim.cap).then_some(Seat {
            weight: claim.weight,
            next,
            rank,
        })
    };
    let seats = claims.iter().zip(&units).enumerate().filter_map(seat);
    let mut seats: BinaryHeap<Seat> = seats.collect();
    while left > 0 {
        let Some(Seat { weight, next, rank }) = seats.pop() else {
            break;
        };
        left -= 1;
        let (Some(units), Some(claim)) = (units.get_mut(rank), claims.get(rank)) else {
            continue;
        };
        *units = next;
        if next < claim.cap {
            seats.push(Seat {
                weight,
                next: next + 1,
                rank,
            });
        }
    }
    units
}

/// The next unit of a claim. The greatest has the most weight a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seat {
    weight: u64,
    next: u64,
    rank: usize,
}

impl Ord for Seat {
    fn cmp(&self, other: &Self) -> Ordering {
        let mine = u128::from(self.weight) * u128::from(other.next);
        let theirs = u128::from(other.weight) * u128::from(self.next);
        mine.cmp(&theirs).then(other.rank.cmp(&self.rank))
    }
}

impl PartialOrd for Seat {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
