//! The planner's promises, and a slow oracle for what it maximises.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::{Need, Owner, Portion, Priority, Reserve};

const MIB: u64 = 1 << 20;

fn risk(text: &str) -> Risk {
    text.parse().unwrap()
}

fn demand(name: &str, at_risk: &str, memory_mib: u64) -> Demand {
    Demand {
        name: name.parse().unwrap(),
        owner: None,
        priority: Priority::ORDINARY,
        risk: risk(at_risk),
        need: Need {
            memory_bytes: memory_mib * MIB,
            working_set_bytes: memory_mib * MIB / 8,
            vcpus: 1,
            dirty_rate: 10_000_000,
        },
    }
}

fn capacity(memory_mib: u64) -> Amounts {
    Amounts {
        memory_bytes: memory_mib * MIB,
        huge_pages: memory_mib / 2,
        cpu_milli: 4000,
        bandwidth: 125_000_000,
    }
}

/// All of the capacity is reserve.
fn policy() -> Policy {
    let all = Portion::Percent(100);
    Policy {
        reserve: Reserve {
            memory: all,
            huge_pages: all,
            cpu: all,
            bandwidth: all,
        },
        ..Policy::default()
    }
}

fn grades(plan: &Plan) -> BTreeMap<&str, Grade> {
    let grades = plan.grants.iter().map(|g| (g.name.as_str(), g.grade));
    grades.collect()
}

#[test]
fn risk_earns_grades() {
    let risks = ["0.009", "0.01", "0.05", "0.2"];
    let demands = ["a", "b", "c", "d"].iter().zip(risks);
    let demands: Vec<_> = demands.map(|(name, at)| demand(name, at, 64)).collect();
    let plan = plan(None, &demands, &capacity(1024), &policy());
    let expected = [
        ("a", Grade::None),
        ("b", Grade::Lazy),
        ("c", Grade::Resident),
        ("d", Grade::Huge),
    ];
    assert_eq!(grades(&plan), BTreeMap::from(expected));
    assert_eq!(plan.refusals.len(), 1);
    let threshold = risk("0.01");
    assert_eq!(plan.refusals[0].reason, Reason::SmallRisk { threshold });
}

#[test]
fn nobody_gets_huge_pages_before_all_are_resident() {
    // 64 MiB round up to nothing; 65 MiB take one more in huge pages.
    let demands = [demand("a", "0.9", 65), demand("b", "0.3", 65)];
    let room = 2 * 65 + 2 * 8;
    let made = plan(None, &demands, &capacity(room), &policy());
    assert_eq!(
        grades(&made),
        BTreeMap::from([("a", Grade::Resident), ("b", Grade::Resident)])
    );
    let made = plan(None, &demands, &capacity(room + 1), &policy());
    assert_eq!(
        grades(&made),
        BTreeMap::from([("a", Grade::Huge), ("b", Grade::Resident)])
    );
}

fn owner(name: &str, priority: u32, share_percent: u8) -> Option<Owner> {
    Some(Owner {
        name: name.to_owned(),
        priority: Priority::new(priority).unwrap(),
        share_percent,
    })
}

#[test]
fn an_owner_takes_no_more_than_its_share() {
    let mut demands: Vec<Demand> = (0..20)
        .map(|n| demand(&format!("big{n}"), "0.9", 100))
        .collect();
    for demand in &mut demands {
        demand.need.dirty_rate = 1_000_000;
        demand.owner = owner("big", 100, 50);
    }
    demands.push(demand("small", "0.1", 100));
    let made = plan(None, &demands, &capacity(1000), &policy());
    assert_eq!(grades(&made)["small"], Grade::Resident);
    let resident = made.grants.iter().filter(|g| g.grade >= Grade::Resident);
    assert_eq!(resident.count(), 1 + (500 - 20 * 8) / 100);
    let of_big = |g: &&Grant| g.name.as_str() != "small";
    let cpu = made
        .grants
        .iter()
        .filter(of_big)
        .map(|g| g.amounts.cpu_milli);
    assert_eq!(cpu.sum::<u64>(), 2000);
    let refusal = made.refusals.iter().find(|r| r.wanted == Grade::Resident);
    let Some(Reason::OwnersShare(shortages)) = refusal.map(|r| &r.reason) else {
        panic!("{refusal:?}");
    };
    assert_eq!(shortages[0].enough_for_all, 20 * 108 * MIB);

    for demand in &mut demands[..20] {
        demand.owner = owner("big", 100, 100);
    }
    let made = plan(None, &demands, &capacity(1000), &policy());
    assert_eq!(grades(&made)["small"], Grade::Lazy);
}

#[test]
fn ties_go_by_priority_then_by_name() {
    let winner = |change: &dyn Fn(&mut Demand)| {
        let mut demands = [demand("a", "0.1", 64), demand("b", "0.1", 64)];
        change(&mut demands[1]);
        let made = plan(None, &demands, &capacity(64 + 16), &policy());
        let has = made.grants.iter().filter(|g| g.grade == Grade::Resident);
        let names: Vec<_> = has.map(|g| g.name.to_string()).collect();
        names.join(",")
    };
    assert_eq!(winner(&|_| ()), "a");
    assert_eq!(winner(&|b| b.owner = owner("x", 101, 100)), "b");
    assert_eq!(winner(&|b| b.owner = owner("x", 99, 100)), "a");
    // Half the risk at twice the priority is the same score.
    let half = |b: &mut Demand| {
        b.priority = Priority::new(200).unwrap();
        b.risk = risk("0.05");
    };
    assert_eq!(winner(&half), "b");
}

#[test]
fn an_incumbent_gives_way_only_to_a_clearly_greater_score() {
    let room = capacity(64 + 16);
    let demands = [demand("a", "0.11", 64), demand("b", "0.1", 64)];
    let first = plan(None, &demands, &room, &policy());
    assert_eq!(grades(&first)["a"], Grade::Resident);
    // b's risk has clearly changed, but is not clearly greater than a's.
    let after = |b: &str| {
        let demands = [demand("a", "0.11", 64), demand("b", b, 64)];
        let made = plan(Some(&first), &demands, &room, &policy());
        grades(&made)["b"]
    };
    assert_eq!(after("0.132"), Grade::Lazy);
    assert_eq!(after("0.133"), Grade::Resident);
}

#[test]
fn a_grade_is_kept_until_the_risk_is_clearly_too_small() {
    let had = plan(None, &[demand("a", "0.05", 64)], &capacity(1024), &policy());
    let after = |now: &str| {
        let demands = [demand("a", now, 64)];
        let made = plan(Some(&had), &demands, &capacity(1024), &policy());
        made.grants[0].grade
    };
    assert_eq!(after("0.0417"), Grade::Resident);
    assert_eq!(after("0.039"), Grade::Lazy);
    let fresh = plan(
        None,
        &[demand("a", "0.0417", 64)],
        &capacity(1024),
        &policy(),
    );
    assert_eq!(fresh.grants[0].grade, Grade::Lazy);
}

#[test]
fn a_refusal_says_what_is_short_and_what_would_do() {
    let demands = [demand("a", "0.1", 64), demand("b", "0.09", 640)];
    let made = plan(None, &demands, &capacity(256), &policy());
    let [refusal] = made.refusals.as_slice() else {
        panic!("{:?}", made.refusals);
    };
    assert_eq!(
        (refusal.name.as_str(), refusal.wanted),
        ("b", Grade::Resident)
    );
    let shortage = Shortage {
        resource: Resource::Memory,
        wanted: 640 * MIB,
        left: (256 - 64 - 16) * MIB,
        enough_for_all: (64 + 640 + 16) * MIB,
    };
    assert_eq!(refusal.reason, Reason::Short(vec![shortage]));
}

#[test]
fn an_epoch_is_as_long_as_the_bandwidth_makes_it() {
    let demands = [demand("a", "0.5", 64)];
    let made = plan(None, &demands, &capacity(1024), &policy());
    assert_eq!(made.grants[0].epoch_ms, 1000 - 487);
    // 8 MiB written again and again, and 9 MB a second to send them.
    let scarce = Amounts {
        bandwidth: 9_000_000,
        ..capacity(1024)
    };
    let made = plan(None, &demands, &scarce, &policy());
    assert_eq!(made.grants[0].amounts.bandwidth, 8 * MIB + 4 * 125_000);
    assert_eq!(made.grants[0].epoch_ms, 944);
}

#[test]
fn a_thousand_instances_are_planned() {
    let demands: Vec<Demand> = (0..1000u32)
        .map(|n| {
            let mut demand = demand(&format!("i{n}"), "0", 64 + u64::from(n % 7) * 64);
            demand.risk = Risk::from_ppm(n * 997 % 1_000_000).unwrap();
            demand.owner = owner(&format!("owner{}", n % 13), 100 + n % 13, 20);
            demand
        })
        .collect();
    let capacity = capacity(64 * 1024);
    let made = plan(None, &demands, &capacity, &policy());
    assert_eq!(made.grants.len(), 1000);
    assert!(made.used.fits_in(&made.reserve));
    assert_eq!(plan(Some(&made), &demands, &capacity, &policy()), made);
}

#[test]
fn nonsense_is_refused() {
    let mut huge = demand("a", "1", 1);
    huge.need.memory_bytes = u64::MAX;
    huge.need.working_set_bytes = u64::MAX;
    huge.need.dirty_rate = u64::MAX;
    let made = plan(None, &[huge], &capacity(1024), &policy());
    assert_eq!(made.grants[0].grade, Grade::None);
    assert!(matches!(made.refusals[0].reason, Reason::Short(_)));
}

// Random cases, small and tight, so that much is refused.

fn any_owner() -> impl Strategy<Value = Option<Owner>> {
    let one = |name, priority, share| Just(owner(name, priority, share));
    prop_oneof![
        Just(None),
        one("x", 50, 40),
        one("y", 100, 100),
        one("z", 150, 60)
    ]
}

fn any_demand(name: String) -> impl Strategy<Value = Demand> {
    let risks = prop_oneof![0..=1_000_000u32, Just(100_000), Just(250_000)];
    (any_owner(), 1..4u32, risks, 1..9u64, 0..5u8, 0..5u64).prop_map(
        move |(owner, priority, ppm, size, vcpus, rate)| Demand {
            name: name.parse().unwrap(),
            owner,
            priority: Priority::new(priority * 50).unwrap(),
            risk: Risk::from_ppm(ppm).unwrap(),
            need: Need {
                memory_bytes: size * 15 * MIB,
                working_set_bytes: size * MIB,
                vcpus,
                dirty_rate: rate * 700_000,
            },
        },
    )
}

fn any_demands(most: usize) -> impl Strategy<Value = Vec<Demand>> {
    (1..=most).prop_flat_map(|count| {
        let each = (0..count).map(|n| any_demand(format!("i{n}")));
        each.collect::<Vec<_>>()
    })
}

fn any_capacity() -> impl Strategy<Value = Amounts> {
    (0..600u64, 0..200u64, 0..1500u64, 0..12u64).prop_map(|(memory, huge, cpu, bandwidth)| {
        Amounts {
            memory_bytes: memory * MIB,
            huge_pages: huge,
            cpu_milli: cpu,
            bandwidth: bandwidth * 1_000_000,
        }
    })
}

/// A plan that was made when the risks were others.
fn history(demands: &[Demand], then: &[u32], capacity: &Amounts) -> Plan {
    let mut demands = demands.to_vec();
    for (demand, ppm) in demands.iter_mut().zip(then) {
        demand.risk = Risk::from_ppm(*ppm).unwrap();
    }
    plan(None, &demands, capacity, &policy())
}

fn any_risks() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(0..=1_000_000u32, 8)
}

proptest! {
    #[test]
    fn the_reserve_is_never_exceeded(
        demands in any_demands(8), then in any_risks(), capacity in any_capacity(), percent in 0..=100u8,
    ) {
        let mut policy = policy();
        policy.reserve.memory = Portion::Percent(percent);
        policy.reserve.cpu = Portion::Percent(percent);
        let before = history(&demands, &then, &capacity);
        let made = plan(Some(&before), &demands, &capacity, &policy);
        let sum = made.grants.iter().fold(Amounts::default(), |sum, g| sum.plus(&g.amounts));
        prop_assert_eq!(sum, made.used);
        for owner in demands.iter().filter_map(|d| d.owner.as_ref()) {
            let theirs = demands.iter().filter(|d| d.owner.as_ref() == Some(owner));
            let used = theirs.fold(Amounts::default(), |sum, d| {
                sum.plus(&made.grant(&d.name).unwrap().amounts)
            });
            let share = u64::from(owner.share_percent);
            prop_assert!(used.fits_in(&made.reserve.with(&used, |whole, _| whole * share / 100)));
        }
        prop_assert!(sum.fits_in(&made.reserve));
        prop_assert!(made.reserve.fits_in(&capacity));
        prop_assert!(made.reserve.memory_bytes <= capacity.memory_bytes / 100 * u64::from(percent) + 100 * MIB);
        for grant in &made.grants {
            let is_none = grant.grade == Grade::None;
            prop_assert_eq!(is_none, grant.amounts == Amounts::default());
            prop_assert_eq!(is_none, grant.epoch_ms == 0);
        }
    }

    #[test]
    fn more_risk_never_gets_less(
        demands in any_demands(8), then in any_risks(), capacity in any_capacity(),
        who in 0..8usize, by in 0..=1_000_000u32,
    ) {
        let before = history(&demands, &then, &capacity);
        for previous in [None, Some(&before)] {
            let who = who % demands.len();
            let low = plan(previous, &demands, &capacity, &policy());
            let mut raised = demands.clone();
            raised[who].risk = Risk::from_ppm((raised[who].risk.ppm() + by).min(1_000_000)).unwrap();
            let high = plan(previous, &raised, &capacity, &policy());
            let (low, high) = (&low.grants[who], &high.grants[who]);
            prop_assert!(high.grade >= low.grade, "{:?} {:?}", low, high);
            prop_assert!(high.amounts.cpu_milli >= low.amounts.cpu_milli, "{:?} {:?}", low, high);
            prop_assert!(high.amounts.bandwidth >= low.amounts.bandwidth, "{:?} {:?}", low, high);
            prop_assert!(high.cpu_weight >= low.cpu_weight);
            prop_assert!(low.epoch_ms == 0 || high.epoch_ms <= low.epoch_ms, "{:?} {:?}", low, high);
        }
    }

    #[test]
    fn of_two_alike_the_one_at_more_risk_gets_more(
        mut demands in any_demands(7), capacity in any_capacity(), ppm in 0..=1_000_000u32,
    ) {
        let mut twin = demands[0].clone();
        twin.name = "twin".parse().unwrap();
        twin.risk = Risk::from_ppm(ppm.max(twin.risk.ppm())).unwrap();
        demands.push(twin);
        let made = plan(None, &demands, &capacity, &policy());
        let (twin, other) = (made.grants.last().unwrap(), &made.grants[0]);
        if demands[0].risk != demands.last().unwrap().risk {
            prop_assert!(twin.grade >= other.grade);
            prop_assert!(twin.amounts.cpu_milli >= other.amounts.cpu_milli);
            prop_assert!(twin.amounts.bandwidth >= other.amounts.bandwidth);
            prop_assert!(other.epoch_ms == 0 || twin.epoch_ms <= other.epoch_ms);
        }
    }

    #[test]
    fn the_order_of_demands_does_not_matter(
        (demands, shuffled) in any_demands(8).prop_flat_map(|d| (Just(d.clone()), Just(d).prop_shuffle())),
        then in any_risks(), capacity in any_capacity(),
    ) {
        let before = history(&demands, &then, &capacity);
        for previous in [None, Some(&before)] {
            let made = plan(previous, &demands, &capacity, &policy());
            prop_assert_eq!(made, plan(previous, &shuffled, &capacity, &policy()));
        }
    }

    #[test]
    fn a_plan_made_again_is_the_same(
        demands in any_demands(8), then in any_risks(), capacity in any_capacity(),
    ) {
        let before = history(&demands, &then, &capacity);
        for previous in [None, Some(&before)] {
            let made = plan(previous, &demands, &capacity, &policy());
            prop_assert_eq!(plan(Some(&made), &demands, &capacity, &policy()), made);
        }
    }

    #[test]
    fn small_changes_of_all_risks_change_nothing(
        demands in any_demands(8), capacity in any_capacity(),
        changes in proptest::collection::vec(80..=120u64, 8),
    ) {
        let made = plan(None, &demands, &capacity, &policy());
        let mut changed = demands.clone();
        for (demand, percent) in changed.iter_mut().zip(changes) {
            let ppm = (u64::from(demand.risk.ppm()) * percent).div_ceil(100);
            // Rounding up must not lead out of the margin.
            let ppm = if percent > 100 { u64::from(demand.risk.ppm()) * percent / 100 } else { ppm };
            demand.risk = Risk::from_ppm(u32::try_from(ppm.min(1_000_000)).unwrap()).unwrap();
        }
        prop_assert_eq!(plan(Some(&made), &changed, &capacity, &policy()), made);
    }

    #[test]
    fn what_is_said_to_be_enough_for_all_is(
        demands in any_demands(8), capacity in any_capacity(),
    ) {
        let made = plan(None, &demands, &capacity, &policy());
        let mut candidates = grade::candidates(None, &demands, &policy());
        grade::rise(&mut candidates, &made.reserve);
        for refusal in &made.refusals {
            let Reason::Short(shortages) = &refusal.reason else { continue };
            prop_assert!(!shortages.is_empty());
            let for_all = grade::for_all(&candidates, refusal.wanted, None);
            for shortage in shortages {
                prop_assert_eq!(shortage.enough_for_all, for_all.get(shortage.resource));
                prop_assert!(shortage.wanted > shortage.left);
            }
            let enough = capacity.with(&for_all, u64::max);
            let mut demands = demands.clone();
            for owner in demands.iter_mut().filter_map(|d| d.owner.as_mut()) {
                owner.share_percent = 100;
            }
            let again = plan(None, &demands, &enough, &policy());
            prop_assert!(again.grant(&refusal.name).unwrap().grade >= refusal.wanted);
        }
    }

    #[test]
    fn each_grade_is_the_best_there_is(
        demands in any_demands(6), then in any_risks(), capacity in any_capacity(),
    ) {
        let before = history(&demands, &then, &capacity);
        for previous in [None, Some(&before)] {
            let made = plan(previous, &demands, &capacity, &policy());
            let grades: Vec<Grade> = made.grants.iter().map(|g| g.grade).collect();
            prop_assert_eq!(grades, oracle::grades(previous, &demands, &capacity, &policy()));
        }
    }

    #[test]
    fn units_are_divided_as_one_by_one(
        total in 0..60u64,
        claims in proptest::collection::vec((0..9u64, 0..30u64), 0..6),
    ) {
        let claims: Vec<_> = claims.into_iter().map(|(weight, cap)| divide::Claim { weight, cap }).collect();
        prop_assert_eq!(divide::divide(total, &claims), oracle::divide(total, &claims));
    }
}

/// The stated rules without any cleverness: all subsets, all units.
mod oracle {
    use super::*;
    use crate::allocate::divide::Claim;

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
}
