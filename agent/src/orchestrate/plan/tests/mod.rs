//! Plans are judged by what packets would see after each single effect.

mod kernel;
mod limits;
mod property;
mod story;

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use agent_common::abi::{FenceMode, Side};

use super::{Actual, Effect, Facts, plan};
use crate::model::{
    Affinity, Ifindex, InstanceSpec, L4, Limits, PortSpec, Protocol, RouteSpec, Service, Stake,
    Target,
};

const LIMITS: Limits = Limits {
    routes: 64,
    instances: 6,
    flows: 64,
    fragments: 64,
};

const A: &str = "198.51.100.1";
const B: &str = "198.51.100.2";

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn ifindex(n: u32) -> Ifindex {
    Ifindex(NonZeroU32::new(n).unwrap())
}

fn whole(service: &str, ghost: &str) -> RouteSpec {
    RouteSpec {
        service: Service {
            addr: ip(service),
            l4: None,
        },
        primary: Target::Native,
        ghost: Target::Translate {
            addr: ip(ghost),
            port: None,
        },
    }
}

fn tcp(service: &str, port: u16, ghost: &str, ghost_port: u16) -> RouteSpec {
    RouteSpec {
        service: Service {
            addr: ip(service),
            l4: Some(L4 {
                protocol: Protocol::Tcp,
                port,
            }),
        },
        primary: Target::Native,
        ghost: Target::Translate {
            addr: ip(ghost),
            port: Some(ghost_port),
        },
    }
}

fn instance(name: &str, routes: &[RouteSpec]) -> InstanceSpec {
    InstanceSpec {
        name: name.parse().unwrap(),
        owner: None,
        cgroup: None,
        armed: true,
        affinity: Affinity::Connections {
            idle: Duration::from_secs(60),
            drain_max: Duration::from_secs(3600),
        },
        routes: routes.to_vec(),
        stake: Stake::default(),
        ports: Vec::new(),
        vm: None,
    }
}

/// Plans, carries out, and checks that nothing is left to do.
fn settle(desired: &[InstanceSpec], facts: &Facts, actual: &mut Actual) -> Vec<Effect> {
    let effects = plan(desired, &LIMITS, facts, actual).unwrap();
    for effect in &effects {
        kernel::apply(actual, effect);
    }
    assert_eq!(plan(desired, &LIMITS, facts, actual), Ok(Vec::new()));
    effects
}

fn with_port(mut spec: InstanceSpec, interface: &str, fence: FenceMode) -> InstanceSpec {
    spec.ports.push(PortSpec {
        interface: interface.to_owned(),
        side: Side::Primary,
        fence,
    });
    spec
}

fn facts_for(spec: &InstanceSpec) -> Facts {
    let mut facts = Facts::default();
    facts.ifindex.insert("vnet0".to_owned(), ifindex(7));
    facts.cgroup_id.insert(spec.name.clone(), 4242);
    facts
}
