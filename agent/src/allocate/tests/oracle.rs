//! The stated rules without any cleverness: all subsets, all units.

use std::collections::BTreeMap;

use crate::{
    allocate::{Policy, divide::Claim},
    model::{Amounts, Demand, Grade, Plan},
};

struct One<'d> {
    demand: &'d Demand,
    risk: u64,
    had: Grade,
    grade: Grade,
}

pub(super) fn grades(
    previous: Option<&Plan>,
    demands: &[Demand],
    reserve: &Amounts,
    policy: &Policy,
) -> Vec<Grade> {
    let mut all: Vec<One<'_>> = demands.iter().map(|d| one(previous, d)).collect();
    all.sort_by(|a, b| a.demand.name.cmp(&b.demand.name));
    for grade in Grade::RISING {
        let eligible: Vec<usize> = order(&all, grade, policy);
        let chosen = best(&all, &eligible, grade, policy, reserve);
        chosen.iter().for_each(|index| all[*index].grade = grade);
    }
    all.iter().map(|one| one.grade).collect()
}

fn one<'d>(previous: Option<&Plan>, demand: &'d Demand) -> One<'d> {
    let last = previous.and_then(|p| p.grants.iter().find(|g| g.name == demand.name));
    let mut now = u64::from(demand.risk.ppm());
    if let Some(last) = last {
        let then = u64::from(last.risk.ppm());
        if 100 * now >= 80 * then && 100 * now <= 120 * then {
            now = then;
        }
    }
    One {
        demand,
        risk: now,
        had: last.map_or(Grade::None, |last| last.grade),
        grade: Grade::None,
    }
}

/// Those that may have the grade, by falling rank.
fn order(all: &[One<'_>], grade: Grade, policy: &Policy) -> Vec<usize> {
    let boost = |one: &One<'_>| if one.had >= grade { 120 } else { 100 };
    let is_eligible = |one: &One<'_>| {
        let earned = Grade::RISING.iter().filter(|g| **g <= grade).all(|g| {
            let boost = if one.had >= *g { 120 } else { 100 };
            one.risk * boost >= u64::from(policy.thresholds.of(*g).ppm()) * 100
        });
        earned
            && Grade::RISING
                .iter()
                .filter(|g| **g < grade)
                .all(|g| one.grade >= *g)
    };
    let mut eligible: Vec<usize> = (0..all.len()).filter(|i| is_eligible(&all[*i])).collect();
    eligible.sort_by_key(|i| {
        let one = &all[*i];
        let owner = one
            .demand
            .owner
            .as_ref()
            .map_or(100, |o| u64::from(o.priority.get()));
        let score = one.risk * u64::from(one.demand.priority.get()) * owner * boost(one);
        let falling = |n: u64| u64::MAX - n;
        (
            falling(score),
            falling(one.demand.priority.get().into()),
            one.demand.name.clone(),
        )
    });
    eligible
}

/// Of all subsets that fit, the first in lexicographic order.
fn best(
    all: &[One<'_>],
    eligible: &[usize],
    grade: Grade,
    policy: &Policy,
    reserve: &Amounts,
) -> Vec<usize> {
    let count = eligible.len();
    // The highest bit is the first of the order, so the greatest number wins.
    for set in (0..1u32 << count).rev() {
        let chosen: Vec<usize> = (0..count)
            .filter(|at| set & (1 << (count - 1 - at)) != 0)
            .map(|at| eligible[at])
            .collect();
        if fits(all, &chosen, grade, policy, reserve) {
            return chosen;
        }
    }
    Vec::new()
}

fn fits(
    all: &[One<'_>],
    chosen: &[usize],
    grade: Grade,
    policy: &Policy,
    reserve: &Amounts,
) -> bool {
    let mut sum = Amounts::default();
    let mut owners: BTreeMap<&str, (u64, Amounts)> = BTreeMap::new();
    for (index, one) in all.iter().enumerate() {
        let reached = if chosen.contains(&index) {
            grade
        } else {
            one.grade
        };
        for step in Grade::RISING.iter().filter(|g| **g <= reached) {
            let step = policy.step(&one.demand.need, *step);
            sum = sum.plus(&step);
            if let Some(owner) = &one.demand.owner {
                let of = owners.entry(&owner.name).or_default();
                *of = (owner.share_percent.into(), of.1.plus(&step));
            }
        }
    }
    let is_within = |(percent, used): &(u64, Amounts)| {
        used.fits_in(&reserve.with(reserve, |whole, _| whole * percent / 100))
    };
    sum.fits_in(reserve) && owners.values().all(is_within)
}

pub(super) fn divide(total: u64, claims: &[Claim]) -> Vec<u64> {
    let mut units = vec![0; claims.len()];
    for _ in 0..total {
        let mut best: Option<usize> = None;
        for (index, claim) in claims.iter().enumerate() {
            let wants = units[index] < claim.cap && claim.weight > 0;
            let beats = |other: usize| {
                claim.weight * (units[other] + 1) > claims[other].weight * (units[index] + 1)
            };
            if wants && best.is_none_or(beats) {
                best = Some(index);
            }
        }
        match best {
            Some(index) => units[index] += 1,
            None => break,
        }
    }
    units
}
