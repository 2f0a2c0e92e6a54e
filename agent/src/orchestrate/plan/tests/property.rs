//! From any valid configuration to any other: what packets see in between.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use agent_common::abi::{FenceMode, Side};
use proptest::prelude::*;

use super::{
    super::{Actual, Facts, plan},
    LIMITS, ifindex, instance,
    kernel::{
        Key, To, apply, backward, filter_has, forward, instance as slot_of, reverses, routes,
    },
    settle,
};
use crate::model::{
    Affinity, InstanceSpec, L4, PortSpec, Protocol, RouteSpec, Service, SlotIndex, Target,
};

const SERVICES: u8 = 5;
const TARGETS: u8 = 6;
const PORTS: [u16; 3] = [80, 443, 8080];

fn addr(v6: bool, net: u8, n: u8) -> IpAddr {
    if v6 {
        IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, n])
    } else {
        IpAddr::from([10, 0, net, n])
    }
}

fn l4() -> impl Strategy<Value = Option<L4>> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let port = prop::sample::select(&PORTS[..]);
    prop::option::of((protocol, port).prop_map(|(protocol, port)| L4 { protocol, port }))
}

fn route() -> impl Strategy<Value = RouteSpec> {
    let target = || {
        let via = prop::bool::weighted(0.2);
        (0..TARGETS, prop::sample::select(&PORTS[..]), via)
    };
    let parts = (
        any::<bool>(),
        0..SERVICES,
        l4(),
        prop::option::of(target()),
        target(),
    );
    parts.prop_map(|(v6, service, l4, primary, ghost)| {
        let target = |(n, port, via): (_, _, bool)| {
            let addr = addr(v6, 2, n);
            if via {
                return Target::Via { addr };
            }
            Target::Translate {
                addr,
                port: l4.map(|_| port),
            }
        };
        RouteSpec {
            service: Service {
                addr: addr(v6, 1, service),
                l4,
            },
            primary: primary.map_or(Target::Native, target),
            ghost: target(ghost),
        }
    })
}

/// Whether two addresses with protocol and port, or without, meet.
fn overlap(a: (IpAddr, Option<L4>), b: (IpAddr, Option<L4>)) -> bool {
    a.0 == b.0 && (a.1.is_none() || b.1.is_none() || a.1 == b.1)
}

fn targets(route: &RouteSpec) -> Vec<(IpAddr, Option<L4>)> {
    let of = |target| match target {
        Target::Native | Target::Via { .. } => None,
        Target::Translate { addr, port } => {
            let l4 = route.service.l4;
            Some((addr, l4.zip(port).map(|(l4, port)| L4 { port, ..l4 })))
        }
    };
    [route.primary, route.ghost]
        .into_iter()
        .filter_map(of)
        .collect()
}

/// Keeps each route that is in order with those kept before.
fn only_valid(desired: Vec<InstanceSpec>) -> Vec<InstanceSpec> {
    let mut kept: Vec<(usize, RouteSpec)> = Vec::new();
    let mut valid = desired;
    for (place, spec) in valid.iter_mut().enumerate() {
        spec.routes.retain(|route| {
            let mine = targets(route);
            let fits = |(owner, other): &(usize, RouteSpec)| {
                let (a, b) = (route.service, other.service);
                let services = a.addr != b.addr || (*owner == place && a.l4 != b.l4);
                let theirs = targets(other);
                // One service may name a port that another covers, to the same end.
                let agree = |x: (IpAddr, Option<L4>), y: (IpAddr, Option<L4>)| {
                    a.addr == b.addr && x != y && x.1 == a.l4 && y.1 == b.l4
                };
                services
                    && !mine
                        .iter()
                        .any(|x| theirs.iter().any(|y| overlap(*x, *y) && !agree(*x, *y)))
            };
            let itself = mine.len() < 2 || !overlap(mine[0], mine[1]);
            let ok = itself && kept.iter().all(fits);
            if ok {
                kept.push((place, *route));
            }
            ok
        });
    }
    valid
}

fn specs() -> impl Strategy<Value = Vec<InstanceSpec>> {
    let one = (
        prop::collection::vec(route(), 1..5),
        any::<bool>(),
        prop::option::of(1..4u64),
        prop::collection::vec((1..3u32, any::<bool>()), 0..2),
    );
    let names = prop::sample::subsequence(vec!["a", "b", "c", "d", "e", "f"], 0..=6);
    (names.prop_shuffle(), prop::collection::vec(one, 6)).prop_map(|(names, parts)| {
        let named = names.into_iter().zip(parts);
        let specs = named.map(|(name, (routes, armed, idle, ports))| {
            let mut spec = instance(name, &routes);
            spec.armed = armed;
            spec.affinity = idle.map_or(Affinity::None, |idle| Affinity::Connections {
                idle: Duration::from_secs(idle),
                drain_max: Duration::from_secs(60),
            });
            spec.ports = ports
                .into_iter()
                .map(|(interface, primary)| PortSpec {
                    interface: format!("{name}{interface}"),
                    side: if primary { Side::Primary } else { Side::Ghost },
                    fence: FenceMode::Quiet,
                })
                .collect();
            spec
        });
        only_valid(specs.collect())
    })
}

/// Some interfaces and cgroups are there, some change hands.
fn facts() -> impl Strategy<Value = Facts> {
    let order = Just((1..=18u32).collect::<Vec<_>>()).prop_shuffle();
    (order, any::<[bool; 18]>()).prop_map(|(order, there)| {
        let mut facts = Facts::default();
        for (n, name) in "abcdef".chars().enumerate() {
            for interface in 1..3usize {
                let i = n * 3 + interface;
                if there[i] {
                    let index = ifindex(order[i]);
                    facts.ifindex.insert(format!("{name}{interface}"), index);
                }
            }
            if there[n * 3] {
                let id = u64::from(order[n * 3]);
                facts
                    .cgroup_id
                    .insert(name.to_string().parse().unwrap(), id);
            }
        }
        facts
    })
}

fn packets() -> Vec<Key> {
    let mut packets = Vec::new();
    for v6 in [false, true] {
        for n in 0..SERVICES {
            for protocol in [6, 17, 1] {
                packets.extend(PORTS.map(|port| (addr(v6, 1, n), protocol, port)));
            }
        }
    }
    packets
}

/// Moves switches as the kernel or an operator may have.
fn disturb(actual: &mut Actual, positions: &[u8; 6], generation: u64) {
    for (slot, position) in actual.slots.values_mut().zip(positions) {
        slot.switch.control.position = *position;
        slot.switch.control.term = u32::from(*position) + 7;
    }
    actual.host_generation = generation;
}

/// What must hold of the maps at any moment.
fn check(k: &Actual, old: &Actual, new: &Actual) {
    let mut counters = BTreeMap::new();
    for (key, route) in routes(k) {
        let other = counters.insert(route.counter, key);
        assert_eq!(other, None, "two services count in one place");
    }
    for (key, reverse) in reverses(k) {
        assert!(filter_has(k, key));
        assert!(slot_of(k, reverse.slot).is_some());
    }
    for port in k.ports.values() {
        assert!(slot_of(k, port.switch).is_some());
    }
    for slot in k.cgroups.values() {
        assert!(slot_of(k, slot.0).is_some());
    }
    assert!(k.reverse_v4.len() <= LIMITS.reverse() as usize);
    assert!(k.slots.len() <= LIMITS.instances as usize);
    for packet in packets() {
        let Some(fate) = forward(k, packet) else {
            continue;
        };
        let before = forward(old, packet);
        let after = forward(new, packet);
        let named = [before, after].into_iter().flatten();
        assert!(
            named.clone().any(|n| n.to == fate.to),
            "{packet:?} goes to {fate:?}, which neither configuration says"
        );
        assert!(named.clone().any(|n| n.instance == fate.instance));
        for to in fate.to {
            // Where the packet says what it said, the answer does too.
            let Some(To::Rewritten(addr, port)) = to else {
                continue;
            };
            let answer = backward(k, (addr, packet.1, port));
            assert!(
                answer == (packet.0, packet.2),
                "{packet:?} goes to {to:?} and is answered by {answer:?}"
            );
        }
    }
}

fn positions_by_name(k: &Actual) -> BTreeMap<String, (SlotIndex, u8, u32)> {
    let slots = k.slots.keys().filter_map(|slot| {
        let (name, position) = slot_of(k, slot.0)?;
        let term = k.slots[slot].switch.control.term;
        Some((name, (*slot, position as u8, term)))
    });
    slots.collect()
}

fn wanted_fate(desired: &[InstanceSpec], packet: Key) -> Option<(String, [Option<To>; 2])> {
    let mut best: Option<(&InstanceSpec, &RouteSpec)> = None;
    for spec in desired {
        for route in &spec.routes {
            let matches = match route.service.l4 {
                None => best.is_none_or(|(_, r)| r.service.l4.is_none()),
                Some(l4) => (l4.protocol.number(), l4.port) == (packet.1, packet.2),
            };
            if route.service.addr == packet.0 && matches {
                best = Some((spec, route));
            }
        }
    }
    let (spec, route) = best?;
    let side = |target| match target {
        Target::Native => None,
        Target::Translate { addr, port } => Some(To::Rewritten(addr, port.unwrap_or(packet.2))),
        Target::Via { addr } => Some(To::Via(addr)),
    };
    Some((
        spec.name.to_string(),
        [side(route.primary), side(route.ghost)],
    ))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_packet_is_mis_steered_on_the_way(
        old in specs(),
        new in specs(),
        facts in [facts(), facts()],
        positions in prop::array::uniform6(1..4u8),
        generation in 0..3u64,
    ) {
        let mut actual = Actual::default();
        settle(&old, &facts[0], &mut actual);
        disturb(&mut actual, &positions, generation);

        let before = actual.clone();
        let effects = plan(&new, &LIMITS, &facts[1], &actual).unwrap();
        let mut after = actual.clone();
        effects.iter().for_each(|effect| apply(&mut after, effect));
        check(&actual, &before, &after);
        for effect in &effects {
            apply(&mut actual, effect);
            check(&actual, &before, &after);
        }
        prop_assert_eq!(plan(&new, &LIMITS, &facts[1], &after), Ok(Vec::new()));

        let (was, is) = (positions_by_name(&before), positions_by_name(&after));
        prop_assert_eq!(is.len(), new.len());
        for (name, place) in &is {
            prop_assert!(was.get(name).is_none_or(|old| old == place), "{} moved", name);
        }
        for packet in packets() {
            let fate = forward(&after, packet).map(|fate| (fate.instance, fate.to));
            prop_assert_eq!(fate, wanted_fate(&new, packet));
        }
    }

    #[test]
    fn a_plan_cut_short_is_finished_by_the_next(
        old in specs(),
        new in specs(),
        facts in facts(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut actual = Actual::default();
        settle(&old, &facts, &mut actual);
        let effects = plan(&new, &LIMITS, &facts, &actual).unwrap();
        let cut = if effects.is_empty() { 0 } else { cut.index(effects.len()) };
        effects[..cut].iter().for_each(|effect| apply(&mut actual, effect));
        settle(&new, &facts, &mut actual);
        for packet in packets() {
            let fate = forward(&actual, packet).map(|fate| (fate.instance, fate.to));
            prop_assert_eq!(fate, wanted_fate(&new, packet));
        }
    }
}
