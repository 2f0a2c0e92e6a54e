//! What the driver is to bring about, and what follows from it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use agent_common::abi::Side;

use crate::model::{
    Affinity, Allocation, Ifindex, InstanceName, InstanceSpec, RouteSpec, Target, Trouble,
    UplinkMode, UplinkView, XdpMode,
};

/// The configuration, as far as it can change while the daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub uplinks: BTreeMap<String, UplinkMode>,
    /// Take foreign XDP programs off instead of refusing.
    pub replace_foreign: bool,
    pub instances: Vec<InstanceSpec>,
    pub allocation: Allocation,
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
        Target::Translate { addr, .. } | Target::Via { addr } => addr,
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

/// Where what interfaces carry differs from what they should. An uplink should
/// always be there; ports come and go with their microVMs.
pub fn interface_troubles(
    wanted: &Wanted,
    present: &BTreeMap<String, Ifindex>,
    seen: &[UplinkView],
) -> Vec<Trouble> {
    let modes: BTreeMap<&str, XdpMode> = seen
        .iter()
        .filter_map(|u| Some((u.interface.as_str(), u.mode?)))
        .collect();
    let judge = |(name, carries): (&str, Carries)| {
        let interface = name.to_owned();
        match (carries, modes.get(name)) {
            (Carries::Steer(_), None) => Some(Trouble::Bare { interface }),
            (Carries::Port, None) if present.contains_key(name) => {
                Some(Trouble::Bare { interface })
            }
            (Carries::Steer(UplinkMode::Native), Some(&mode @ XdpMode::Generic))
            | (
                Carries::Steer(UplinkMode::Generic),
                Some(&mode @ (XdpMode::Native | XdpMode::Offloaded)),
            ) => Some(Trouble::OtherMode { interface, mode }),
            (Carries::Steer(_) | Carries::Port, _) => None,
        }
    };
    wanted.interfaces().into_iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use agent_common::abi::FenceMode;

    use super::*;
    use crate::model::{PortSpec, Service, Stake};

    #[test]
    fn uplinks_without_a_program_and_in_another_mode_are_trouble() {
        let index = Ifindex(NonZeroU32::MIN);
        let view = |name: &str, mode| UplinkView {
            interface: name.to_owned(),
            ifindex: index,
            mode,
            program_id: 1,
            program: String::new(),
        };
        let uplinks = [
            ("asked", UplinkMode::Generic),
            ("bare", UplinkMode::Auto),
            ("dead", UplinkMode::Auto),
            ("good", UplinkMode::Auto),
            ("gone", UplinkMode::Native),
        ];
        let mut web = instance("web", true, 1);
        web.ports = ["vnet0", "vnet1"]
            .map(|name| PortSpec {
                interface: name.to_owned(),
                side: Side::Primary,
                fence: FenceMode::Quiet,
            })
            .into();
        let wanted = Wanted {
            uplinks: uplinks.map(|(name, mode)| (name.to_owned(), mode)).into(),
            replace_foreign: false,
            instances: vec![web],
            allocation: Allocation::default(),
        };
        let present = ["asked", "bare", "dead", "good", "vnet1"];
        let present = present.map(|name| (name.to_owned(), index)).into();
        let seen = [
            view("asked", Some(XdpMode::Native)),
            view("dead", None),
            view("good", Some(XdpMode::Generic)),
        ];
        let bare = |name: &str| Trouble::Bare {
            interface: name.to_owned(),
        };
        let expected = [
            Trouble::OtherMode {
                interface: "asked".to_owned(),
                mode: XdpMode::Native,
            },
            bare("bare"),
            bare("dead"),
            bare("gone"),
            bare("vnet1"),
        ];
        assert_eq!(interface_troubles(&wanted, &present, &seen), expected);
    }

    fn instance(name: &str, armed: bool, last: u8) -> InstanceSpec {
        InstanceSpec {
            name: name.parse().unwrap(),
            owner: None,
            cgroup: None,
            armed,
            stake: Stake::default(),
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
            vm: None,
        }
    }

    fn wanted() -> Wanted {
        Wanted {
            uplinks: BTreeMap::from([("up0".to_owned(), UplinkMode::Auto)]),
            replace_foreign: false,
            instances: vec![instance("web", true, 1), instance("db", false, 2)],
            allocation: Allocation::default(),
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
