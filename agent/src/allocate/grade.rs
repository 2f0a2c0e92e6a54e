//! Grades: who gets a ghost at all, who gets its memory, who huge pages.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use super::policy::Policy;
use crate::model::{Amounts, Demand, Grade, Plan, Priority, Risk, scaled};

/// A demand, and what it has got so far.
pub(super) struct Candidate<'d> {
    pub(super) demand: &'d Demand,
    /// The risk that counts: see rule 1.
    pub(super) held: Risk,
    pub(super) grade: Grade,
    pub(super) amounts: Amounts,
    /// In the last plan.
    had: Grade,
    /// The highest grade that the risk earns, or keeps.
    earned: Grade,
    /// The highest grade that the risk would earn somebody who has none.
    earned_anew: Grade,
    /// Index of the owner's limit, if it has an owner.
    pub(super) owner: Option<usize>,
    margin_percent: u32,
    steps: [(Grade, Amounts); 3],
}

impl Candidate<'_> {
    /// Risk times the priorities of instance and owner.
    pub(super) fn score(&self) -> u64 {
        let priorities = [self.demand.priority, self.owner_priority()];
        let priorities = priorities.map(|priority| u64::from(priority.get()));
        u64::from(self.held.ppm()) * priorities.iter().product::<u64>()
    }

    fn owner_priority(&self) -> Priority {
        let owner = self.demand.owner.as_ref();
        owner.map_or(Priority::ORDINARY, |owner| owner.priority)
    }

    fn earns(&self, grade: Grade) -> bool {
        self.earned >= grade
    }

    /// Whether the grade is missed if it is not had. Who only kept it is not
    /// told so twice.
    pub(super) fn misses(&self, grade: Grade) -> bool {
        self.grade < grade && self.earned_anew >= grade
    }

    /// What `grade` takes beyond the one below it.
    pub(super) fn step(&self, grade: Grade) -> Amounts {
        let step = self.steps.iter().find(|(at, _)| *at == grade);
        step.map_or_else(Amounts::default, |(_, step)| *step)
    }

    /// 1 to 100, so that no ghost weighs more than an ordinary primary. Half
    /// of that for a certain reboot of an instance of ordinary priority.
    pub(super) fn cpu_weight(&self) -> u16 {
        let ordinary = u64::from(Priority::ORDINARY.get());
        let half = u64::from(Risk::CERTAIN.ppm()) * ordinary * ordinary;
        let weight = scaled(50, self.score(), half).clamp(1, 100);
        u16::try_from(weight).unwrap_or(100)
    }

    /// Whoever has the grade already counts by the margin more.
    fn score_for(&self, grade: Grade) -> u64 {
        let percent = if self.had >= grade {
            100 + u64::from(self.margin_percent)
        } else {
            100
        };
        self.score() * percent
    }

    /// Rule 3: who is served first.
    pub(super) fn order(&self, other: &Self, grade: Grade) -> Ordering {
        let by_score = other.score_for(grade).cmp(&self.score_for(grade));
        let (mine, theirs) = (self.demand, other.demand);
        by_score
            .then_with(|| theirs.priority.cmp(&mine.priority))
            .then_with(|| mine.name.cmp(&theirs.name))
    }
}

/// One for each demand, by name.
pub(super) fn candidates<'d>(
    previous: Option<&Plan>,
    demand: &'d [Demand],
    policy: &Policy,
) -> Vec<Candidate<'d>> {
    let owners = demand.iter().filter_map(|demand| demand.owner.as_ref());
    let owners: BTreeSet<&str> = owners.map(|owner| owner.name.as_str()).collect();
    let owners: BTreeMap<&str, usize> = owners.into_iter().zip(0..).collect();
    let candidate = |demand: &'d Demand| {
        let last = previous.and_then(|plan| plan.grant(&demand.name));
        let had = last.map_or(Grade::None, |grant| grant.grade);
        let held = last.map_or(demand.risk, |grant| {
            held(grant.risk, demand.risk, policy.margin_percent)
        });
        let owner = demand.owner.as_ref();
        let owner = owner.and_then(|owner| owners.get(owner.name.as_str()));
        Candidate {
            demand,
            held,
            grade: Grade::None,
            amounts: Amounts::default(),
            had,
            earned: earned(held, had, policy),
            earned_anew: earned(held, Grade::None, policy),
            owner: owner.copied(),
            margin_percent: policy.margin_percent,
            steps: Grade::RISING.map(|grade| (grade, policy.step(&demand.need, grade))),
        }
    };
    let mut candidates: Vec<_> = demand.iter().map(candidate).collect();
    candidates.sort_by(|a, b| a.demand.name.cmp(&b.demand.name));
    candidates
}

/// The last plan's risk, unless the new one is beyond the margin around it.
fn held(last: Risk, new: Risk, margin_percent: u32) -> Risk {
    let distance = u64::from(last.ppm().abs_diff(new.ppm()));
    let margin = u64::from(last.ppm()) * u64::from(margin_percent);
    if distance * 100 <= margin { last } else { new }
}

/// A grade is kept until the risk is below its threshold by the margin.
fn earned(held: Risk, had: Grade, policy: &Policy) -> Grade {
    let earns = |grade: &Grade| {
        let threshold = u64::from(policy.thresholds.of(*grade).ppm()) * 100;
        let percent = if had >= *grade {
            100 + u64::from(policy.margin_percent)
        } else {
            100
        };
        u64::from(held.ppm()) * percent >= threshold
    };
    let earned = Grade::RISING.into_iter().take_while(earns);
    earned.last().unwrap_or(Grade::None)
}

/// What may still be given away.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) reserve: Amounts,
    /// Of each owner's share, by index.
    pub(super) owners: Vec<Amounts>,
}

impl Left {
    fn of(candidates: &[Candidate<'_>], reserve: &Amounts) -> Self {
        let mut owners: BTreeMap<usize, u8> = BTreeMap::new();
        for candidate in candidates {
            if let (Some(index), Some(owner)) = (candidate.owner, &candidate.demand.owner) {
                let share = owners.entry(index).or_insert(100);
                *share = owner.share_percent.min(*share);
            }
        }
        let share = |percent: &u8| {
            let percent = u64::from(*percent);
            reserve.with(reserve, |whole, _| scaled(whole, percent, 100))
        };
        Self {
            reserve: *reserve,
            owners: owners.values().map(share).collect(),
        }
    }

    fn of_owner(&self, owner: Option<usize>) -> Option<&Amounts> {
        self.owners.get(owner?)
    }

    /// Whether it was there to be taken.
    fn take(&mut self, step: &Amounts, owner: Option<usize>) -> bool {
        let is_there = step.fits_in(&self.reserve)
            && self.of_owner(owner).is_none_or(|left| step.fits_in(left));
        if is_there {
            self.reserve = self.reserve.less(step);
            if let Some(left) = owner.and_then(|owner| self.owners.get_mut(owner)) {
                *left = left.less(step);
            }
        }
        is_there
    }
}

/// Raises grades by the rules 2 to 4, and returns what each of them left.
pub(super) fn rise(candidates: &mut [Candidate<'_>], reserve: &Amounts) -> [(Grade, Left); 3] {
    let mut left = Left::of(candidates, reserve);
    let mut below = Grade::None;
    Grade::RISING.map(|grade| {
        let mut queue: Vec<&mut Candidate<'_>> = candidates
            .iter_mut()
            .filter(|candidate| candidate.earns(grade) && candidate.grade == below)
            .collect();
        queue.sort_by(|a, b| a.order(b, grade));
        for candidate in queue {
            let step = candidate.step(grade);
            if left.take(&step, candidate.owner) {
                candidate.amounts = candidate.amounts.plus(&step);
                candidate.grade = grade;
            }
        }
        below = grade;
        (grade, left.clone())
    })
}

/// What it takes that everybody has `grade` who has or misses it; everybody of one
/// owner, if there is one.
pub(super) fn for_all(candidates: &[Candidate<'_>], grade: Grade, owner: Option<usize>) -> Amounts {
    let those = candidates
        .iter()
        .filter(|candidate| owner.is_none() || candidate.owner == owner);
    let steps = those.flat_map(|candidate| {
        let steps = candidate.steps.iter();
        let counts = |at: Grade| candidate.grade >= at || candidate.misses(at);
        steps.filter(move |(at, _)| *at <= grade && counts(*at))
    });
    steps.fold(Amounts::default(), |sum, (_, step)| sum.plus(step))
}
