//! Random cases, small and tight, so that much is refused.

use proptest::prelude::*;

use super::{oracle, *};
use crate::allocate::divide;

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
