//! What the planner refuses, and how much it can take.

use std::time::Instant;

use agent_common::abi::FenceMode;

use super::{
    super::{Actual, Effect, Facts, FilterWord, PlanError, plan},
    A, B, LIMITS, facts_for, ifindex, instance, tcp, whole, with_port,
};
use crate::model::{InstanceSpec, Limits, RouteSpec, Service, Target};

#[test]
fn what_does_not_fit_is_refused() {
    let small = Limits {
        routes: 1,
        instances: 1,
        ..LIMITS
    };
    let refusal = |desired: &[InstanceSpec]| {
        plan(desired, &small, &Facts::default(), &Actual::default()).unwrap_err()
    };
    let a = instance("a", &[whole(A, "10.0.0.3")]);
    let b = instance("b", &[whole(B, "10.0.0.4")]);
    let instances = PlanError::TooManyInstances {
        wanted: 2,
        limit: 1,
    };
    assert_eq!(refusal(&[a, b]), instances);
    let two = instance("a", &[whole(A, "10.0.0.3"), whole(B, "10.0.0.4")]);
    let routes = PlanError::TooManyRoutes {
        family: "IPv4",
        wanted: 2,
        limit: 1,
    };
    assert_eq!(refusal(&[two]), routes);
}

#[test]
fn a_contradictory_wish_is_refused() {
    let refusal = |desired: &[InstanceSpec], facts: &Facts| {
        plan(desired, &LIMITS, facts, &Actual::default()).unwrap_err()
    };
    let none = Facts::default();
    let a = |routes: &[RouteSpec]| instance("a", routes);
    let service = |route: &RouteSpec| -> Service { route.service };

    let (one, two) = (whole(A, "10.0.0.3"), whole(B, "10.0.0.3"));
    let shared = PlanError::SharedTarget(service(&two));
    assert_eq!(refusal(&[a(&[one, two])], &none), shared);
    let again = whole(A, "10.0.0.4");
    let shared = PlanError::SharedService(service(&one));
    assert_eq!(
        refusal(&[a(&[one]), instance("b", &[again])], &none),
        shared
    );
    let mixed = whole(A, "2001:db8::1");
    let expected = PlanError::MixedFamilies(service(&mixed));
    assert_eq!(refusal(&[a(&[mixed])], &none), expected);
    let mut mixed = whole(A, "10.0.0.3");
    mixed.ghost = Target::Via {
        addr: "2001:db8::1".parse().unwrap(),
    };
    let expected = PlanError::MixedFamilies(service(&mixed));
    assert_eq!(refusal(&[a(&[mixed])], &none), expected);
    let mut portless = tcp(A, 80, "10.0.0.3", 80);
    portless.ghost = Target::Translate {
        addr: "10.0.0.3".parse().unwrap(),
        port: None,
    };
    let expected = PlanError::PortMismatch(service(&portless));
    assert_eq!(refusal(&[a(&[portless])], &none), expected);
    let twice = PlanError::SharedName("a".parse().unwrap());
    assert_eq!(refusal(&[a(&[one]), a(&[])], &none), twice);

    let ports = with_port(a(&[one]), "vnet0", FenceMode::Off);
    let ports = with_port(ports, "alias", FenceMode::Off);
    let mut facts = facts_for(&ports);
    facts.ifindex.insert("alias".to_owned(), ifindex(7));
    let expected = PlanError::SharedInterface {
        first: "vnet0".to_owned(),
        second: "alias".to_owned(),
    };
    assert_eq!(refusal(&[ports], &facts), expected);
    let b = instance("b", &[whole(B, "10.0.0.4")]);
    let mut facts = facts_for(&b);
    facts.cgroup_id.insert("a".parse().unwrap(), 4242);
    let expected = PlanError::SharedCgroup {
        first: "a".parse().unwrap(),
        second: "b".parse().unwrap(),
    };
    assert_eq!(refusal(&[a(&[one]), b], &facts), expected);
}

#[test]
fn ten_thousand_routes_plan_quickly() {
    let limits = Limits {
        routes: 10_000,
        instances: 1_000,
        ..LIMITS
    };
    let desired: Vec<InstanceSpec> = (0..1_000u32)
        .map(|i| {
            let routes: Vec<_> = (0..10u32)
                .map(|r| {
                    let n = i * 10 + r;
                    let host = format!("{}.{}", n >> 8, n & 0xff);
                    whole(&format!("203.0.{host}"), &format!("10.1.{host}"))
                })
                .collect();
            instance(&format!("vm{i}"), &routes)
        })
        .collect();
    let start = Instant::now();
    let effects = plan(&desired, &limits, &Facts::default(), &Actual::default()).unwrap();
    let took = start.elapsed();
    let routes = effects
        .iter()
        .filter(|e| matches!(e, Effect::PutRouteV4 { .. }));
    assert_eq!(routes.count(), 10_000);
    let words: Vec<&[FilterWord]> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::PutFilter { words } => Some(words.as_slice()),
            _ => None,
        })
        .collect();
    assert_eq!(words.len(), 1);
    // Debug builds on a busy machine take some 0.1 s; anything quadratic takes minutes.
    assert!(took.as_secs() < 5, "planning took {took:?}");
}
