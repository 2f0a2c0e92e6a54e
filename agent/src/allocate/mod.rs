//! Who gets a ghost, and how much of one: risks and needs to a plan.
//!
//! Owns: the order in which instances are served, the division of the
//! reserve, and the reasons of what is refused. Pure: the same arguments give
//! the same plan, in whatever order the demands come.
//!
//! The rules, in the order in which they apply:
//!
//! 1. **Held risk.** A risk within the margin of the one that the last plan
//!    went by counts as that one, so small changes change nothing.
//! 2. **Grades rise together.** Everybody whose risk earns a lazy ghost is
//!    served before anybody gets a resident one, and so on: nobody's huge
//!    pages starve somebody else's ghost.
//! 3. **Order.** Within a grade by score, which is risk times the priorities
//!    of instance and owner; whoever had the grade in the last plan counts by
//!    the margin more. Ties: higher priority of the instance, then name. Who
//!    does not fit is refused, and the next one is tried.
//! 4. **Owners.** Nobody gets what would take an owner beyond its share.
//! 5. **What is divisible.** A lazy ghost has a little CPU and the bandwidth
//!    that keeps it within the longest epoch. The rest of both is divided by
//!    score among all ghosts, none of which gets more than it can use.
//!
//! What each grade maximises is therefore lexicographic: an instance counts
//! for more than all those after it together. It is not the largest number
//! of ghosts; in return it can be explained by one comparison, raising a risk
//! never takes anything away from that instance, and a plan made again from
//! itself is the same plan.
//!
//! Refuses: disks. A ghost's disk is a file, and its file system's matter.
//!
//! How it fails: it cannot. Nonsense in (a need beyond all bounds) is a
//! refusal out.

mod demand;
mod divide;
mod grade;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::model::{
    Amounts, Demand, Grade, Grant, InstanceName, Plan, Reason, Refusal, Resource, Risk, Shortage,
};
use grade::{Candidate, Left};

pub use demand::demands;
pub use policy::{Policy, Thresholds};

/// Plans for instances with unique names. `capacity` is the whole host's.
pub fn plan(
    previous: Option<&Plan>,
    demand: &[Demand],
    capacity: &Amounts,
    policy: &Policy,
) -> Plan {
    let reserve = policy.reserve.of(capacity);
    let mut candidates = grade::candidates(previous, demand, policy);
    let left = grade::rise(&mut candidates, &reserve);
    let refusals = refusals(&candidates, &left, policy);
    let [.., (_, left)] = left;
    divide::rest(&mut candidates, &left.reserve, &left.owners);
    let grants: Vec<Grant> = candidates
        .iter()
        .map(|candidate| grant(candidate, policy))
        .collect();
    let used = grants
        .iter()
        .fold(Amounts::default(), |sum, grant| sum.plus(&grant.amounts));
    Plan {
        grants,
        refusals,
        reserve,
        used,
    }
}

fn grant(candidate: &Candidate<'_>, policy: &Policy) -> Grant {
    let amounts = candidate.amounts;
    let (cpu_weight, epoch_ms) = match candidate.grade {
        Grade::None => (0, 0),
        Grade::Lazy | Grade::Resident | Grade::Huge => (
            candidate.cpu_weight(),
            policy.epoch_ms(candidate.held, &candidate.demand.need, amounts.bandwidth),
        ),
    };
    Grant {
        name: candidate.demand.name.clone(),
        grade: candidate.grade,
        risk: candidate.held,
        amounts,
        cpu_weight,
        epoch_ms,
    }
}

/// For each instance the grade next to its own, if there is one that its risk
/// earns; and why there is no ghost where the risk earns none.
/// `left` is what each grade left.
fn refusals(candidates: &[Candidate<'_>], left: &[(Grade, Left)], policy: &Policy) -> Vec<Refusal> {
    // Many miss the same grade; what all of them want is summed once.
    let mut sums = BTreeMap::new();
    let mut for_all = |grade: Grade, owner: Option<usize>| {
        let sum = sums.entry((grade, owner));
        *sum.or_insert_with(|| grade::for_all(candidates, grade, owner))
    };
    let refusal = |candidate: &Candidate<'_>| {
        let next = left.iter().find(|(grade, _)| *grade > candidate.grade);
        let (wanted, left) = next?;
        let reason = if candidate.misses(*wanted) {
            short(candidate, *wanted, left, &mut for_all)
        } else if candidate.grade == Grade::None {
            Reason::SmallRisk {
                threshold: policy.thresholds.of(*wanted),
            }
        } else {
            return None;
        };
        Some(Refusal {
            name: candidate.demand.name.clone(),
            wanted: *wanted,
            reason,
        })
    };
    candidates.iter().filter_map(refusal).collect()
}

/// What the reserve lacks, or else the owner's share. `for_all` is what it
/// takes that everybody, or everybody of an owner, has a grade.
fn short(
    candidate: &Candidate<'_>,
    wanted: Grade,
    left: &Left,
    for_all: &mut impl FnMut(Grade, Option<usize>) -> Amounts,
) -> Reason {
    let step = candidate.step(wanted);
    let of_reserve = shortages(&step, &left.reserve, || for_all(wanted, None));
    let owners = candidate.owner.and_then(|owner| left.owners.get(owner));
    match owners {
        Some(owners) if of_reserve.is_empty() => {
            let owner = candidate.owner;
            Reason::OwnersShare(shortages(&step, owners, || for_all(wanted, owner)))
        }
        _ => Reason::Short(of_reserve),
    }
}

fn shortages(step: &Amounts, left: &Amounts, for_all: impl FnOnce() -> Amounts) -> Vec<Shortage> {
    let short = Resource::ALL
        .into_iter()
        .filter(|resource| step.get(*resource) > left.get(*resource));
    if step.fits_in(left) {
        return Vec::new();
    }
    let for_all = for_all();
    let shortage = |resource: Resource| Shortage {
        resource,
        wanted: step.get(resource),
        left: left.get(resource),
        enough_for_all: for_all.get(resource),
    };
    short.map(shortage).collect()
}

/// `demand` as it would be if these instances had these risks. Names that
/// are not there are given back.
pub fn supposing(
    mut demand: Vec<Demand>,
    risks: &[(InstanceName, Risk)],
) -> (Vec<Demand>, Vec<InstanceName>) {
    let mut unknown = Vec::new();
    for (name, risk) in risks {
        match demand.iter_mut().find(|demand| demand.name == *name) {
            Some(demand) => demand.risk = *risk,
            None => unknown.push(name.clone()),
        }
    }
    (demand, unknown)
}
