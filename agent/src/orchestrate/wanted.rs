//! What the driver is to bring about, and what follows from it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use agent_common::abi::Side;

use crate::model::{Affinity, Ifindex, InstanceName, InstanceSpec, RouteSpec, Target, UplinkMode};

/// The configuration, as far as it can change while the daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub uplinks: BTreeMap<String, UplinkMode>,
    /// Take foreign XDP programs off instead of refusing.
    pub replace_foreign: bool,
    pub instances: Vec<InstanceSpec>,
}

/// The program an interface is to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    Steer(UplinkMode),
    Port,
}

impl Wanted {
    pub fn routes(&self) -> usize {
        self.instances.iter().map(|i| i.routes.len()).sum()
    }

    pub fn instance(&self, name: &InstanceName) -> Option<&InstanceSpec> {
        self.instances.iter().find(|i| i.name == *name)
    }

    /// Interfaces that are to carry a program. An uplink that is a port too
    /// carries the port's program: it does all that the uplink's does.
    pub fn interfaces(&self) -> BTreeMap<&str, Carries> {
        let uplinks = self
            .uplinks
            .iter()
            .map(|(name, mode)| (name.as_str(), Carries::Steer(*mode)));
        let ports = self.instances.iter().flat_map(|i| &i.ports);
        uplinks
            .chain(ports.map(|p| (p.interface.as_str(), Carries::Port)))
            .collect()
    }

    /// Addresses whose next hops are to be kept resolved: both sides of each
    /// armed instance, as nobody gives notice before the kernel throws it.
    pub fn targets(&self) -> BTreeSet<IpAddr> {
        let armed = self.instances.iter().filter(|i| i.armed);
        armed
            .flat_map(|i| &i.routes)
            .flat_map(|r| [address(r, Side::Primary), address(r, Side::Ghost)])
            .collect()
    }
}

/// Where packets of a route go for one side.
fn address(route: &RouteSpec, side: Side) -> IpAddr {
    let target = match side {
        Side::Primary => route.primary,
        Side::Ghost => route.ghost,
    };
    match target {
        Target::Native => route.service.addr,
        Target::Translate { addr, .. } => addr,
    }
}

/// At most `max` addresses to which packets of an instance go for one side.
pub fn side_targets(spec: &InstanceSpec, side: Side, max: usize) -> BTreeSet<IpAddr> {
    let mut targets = BTreeSet::new();
    for route in &spec.routes {
        if targets.len() == max {
            break;
        }
        targets.insert(address(route, side));
    }
    targets
}

/// How long an instance may drain.
pub fn drain_max(spec: Option<&InstanceSpec>) -> Duration {
    match spec.map(|s| s.affinity) {
        Some(Affinity::Connections { drain_max, .. }) => drain_max,
        Some(Affinity::None) | None => Duration::ZERO,
    }
}

/// Links that are to go: of interfaces that are not wanted any more, or that
/// are no more.
pub fn surplus_links(linked: &[Ifindex], wanted: &BTreeSet<Ifindex>) -> Vec<Ifindex> {
    let surplus = linked.iter().filter(|i| !wanted.contains(i));
    surplus.copied().collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use agent_common::abi::FenceMode;

    use super::*;
    use crate::model::{PortSpec, Service};

    fn instance(name: &str, armed: bool, last: u8) -> InstanceSpec {
        InstanceSpec {
            name: name.parse().unwrap(),
            owner: None,
            cgroup: None,
            armed,
            affinity: Affinity::None,
            routes: vec![RouteSpec {
                service: Service {
                    addr: IpAddr::from([192, 0, 2, last]),
                    l4: None,
                },
                primary: Target::Native,
                ghost: Target::Translate {
                    addr: IpAddr::from([198, 51, 100, last]),
                    port: None,
                },
            }],
            ports: vec![PortSpec {
                interface: format!("tap{last}"),
                side: Side::Primary,
                fence: FenceMode::Quiet,
            }],
        }
    }

    fn wanted() -> Wanted {
        Wanted {
            uplinks: BTreeMap::from([("up0".to_owned(), UplinkMode::Auto)]),
            replace_foreign: false,
            instances: vec![instance("web", true, 1), instance("db", false, 2)],
        }
    }

    #[test]
    fn uplinks_steer_and_ports_are_fenced() {
        let wanted = wanted();
        let interfaces = wanted.interfaces();
        assert_eq!(interfaces["up0"], Carries::Steer(UplinkMode::Auto));
        assert_eq!(interfaces["tap1"], Carries::Port);
        assert_eq!(interfaces.len(), 3);
    }

    #[test]
    fn both_sides_of_armed_instances_are_kept_warm() {
        let expected = [
            IpAddr::from([192, 0, 2, 1]),
            IpAddr::from([198, 51, 100, 1]),
        ];
        assert_eq!(wanted().targets(), BTreeSet::from(expected));
    }

    #[test]
    fn only_links_that_nobody_wants_go() {
        let index = |i| Ifindex(NonZeroU32::new(i).unwrap());
        let wanted = BTreeSet::from([index(2), index(5)]);
        assert_eq!(
            surplus_links(&[index(2), index(3)], &wanted),
            vec![index(3)]
        );
    }
}
