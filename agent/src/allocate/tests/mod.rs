//! The planner's promises, by example.

mod oracle;
mod property;

use std::collections::BTreeMap;

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
