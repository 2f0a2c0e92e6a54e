//! The kernel as the planner's tests see it: maps that hold what effects
//! store, and a slow look-up that says where a packet would go.

use std::{collections::BTreeMap, net::IpAddr};

use agent_common::abi::{
    FILTER_WORDS, Filter, HostSwitch, InstanceRecord, Position, RouteKeyV4, RouteKeyV6, Switch,
    TargetKind,
};

use super::super::{Actual, ActualSlot, Effect, recorded_name};
use crate::model::SlotIndex;

const EMPTY: ActualSlot = ActualSlot {
    record: InstanceRecord {
        name: [0; 60],
        pad: 0,
    },
    switch: Switch::UNUSED,
};

/// Carries out one effect, and checks that it may be carried out.
pub(super) fn apply(k: &mut Actual, effect: &Effect) {
    match effect {
        Effect::ClaimSlot { slot, record } => slot_mut(k, *slot).record = *record,
        Effect::InitSwitch { slot, switch } => slot_mut(k, *slot).switch = *switch,
        Effect::SetFlags {
            slot,
            set,
            clear,
            drain_idle_ns,
        } => {
            let generation = HostSwitch::short(k.host_generation);
            let switch = &mut slot_mut(k, *slot).switch;
            switch.drain_idle_ns = *drain_idle_ns;
            switch.control = switch.control.reflagged(*set, *clear, generation);
        }
        Effect::PutCgroup { cgroup_id, slot } => {
            k.cgroups.insert(*cgroup_id, *slot);
        }
        Effect::PutPort { ifindex, port } => {
            k.ports.insert(*ifindex, *port);
        }
        Effect::PutFilter { words } => {
            k.filter.resize(FILTER_WORDS as usize, 0);
            for word in words {
                assert_ne!(k.filter[word.index as usize], word.bits, "a needless store");
                k.filter[word.index as usize] = word.bits;
            }
        }
        Effect::ResetCounter { counter } => {
            let used = routes(k).values().any(|route| route.counter == counter.0);
            assert!(!used, "a counter in use is zeroed");
        }
        Effect::PutReverseV4 { key, value } => {
            assert_ne!(k.reverse_v4.insert(*key, *value), Some(*value));
        }
        Effect::PutReverseV6 { key, value } => {
            assert_ne!(k.reverse_v6.insert(*key, *value), Some(*value));
        }
        Effect::PutRouteV4 { key, value } => {
            assert_ne!(k.routes_v4.insert(*key, *value), Some(*value));
        }
        Effect::PutRouteV6 { key, value } => {
            assert_ne!(k.routes_v6.insert(*key, *value), Some(*value));
        }
        Effect::DeleteRouteV4 { key } => assert!(k.routes_v4.remove(key).is_some()),
        Effect::DeleteRouteV6 { key } => assert!(k.routes_v6.remove(key).is_some()),
        Effect::DeleteReverseV4 { key } => assert!(k.reverse_v4.remove(key).is_some()),
        Effect::DeleteReverseV6 { key } => assert!(k.reverse_v6.remove(key).is_some()),
        Effect::DeletePort { ifindex } => assert!(k.ports.remove(ifindex).is_some()),
        Effect::DeleteCgroup { cgroup_id } => assert!(k.cgroups.remove(cgroup_id).is_some()),
        Effect::ClearSwitch { slot } => slot_mut(k, *slot).switch = EMPTY.switch,
        Effect::ReleaseSlot { slot } => slot_mut(k, *slot).record = EMPTY.record,
    }
    k.slots.retain(|_, slot| *slot != EMPTY);
}

fn slot_mut(k: &mut Actual, slot: SlotIndex) -> &mut ActualSlot {
    k.slots.entry(slot).or_insert(EMPTY)
}

/// Address, protocol and port; the last two zero for an address as a whole.
pub(super) type Key = (IpAddr, u8, u16);

/// Where one side's packets go, if not where they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Rewritten(IpAddr, u16),
    Via(IpAddr),
}

/// A route of either family; `None` is a native side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) slot: u32,
    pub(super) counter: u32,
    pub(super) primary: Option<To>,
    pub(super) ghost: Option<To>,
}

/// A reverse entry of either family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reverse {
    pub(super) slot: u32,
    pub(super) counter: u32,
    pub(super) service: (IpAddr, u16),
    pub(super) side: u8,
}

fn key_v4(key: &RouteKeyV4) -> Key {
    let port = u16::from_be_bytes(key.port_be);
    (key.addr_be.into(), key.protocol, port)
}

fn key_v6(key: &RouteKeyV6) -> Key {
    let port = u16::from_be_bytes(key.port_be);
    (key.addr_be.into(), key.protocol, port)
}

pub(super) fn routes(k: &Actual) -> BTreeMap<Key, Route> {
    fn target(kind: u8, addr: IpAddr, port_be: [u8; 2]) -> Option<To> {
        match TargetKind::from_tag(kind)? {
            TargetKind::Native => None,
            TargetKind::Translate => Some(To::Rewritten(addr, u16::from_be_bytes(port_be))),
            TargetKind::Via => Some(To::Via(addr)),
        }
    }
    let v4 = k.routes_v4.iter().map(|(key, r)| {
        let (primary, ghost) = (&r.primary, &r.ghost);
        let route = Route {
            slot: r.switch,
            counter: r.counter,
            primary: target(primary.kind, primary.addr_be.into(), primary.port_be),
            ghost: target(ghost.kind, ghost.addr_be.into(), ghost.port_be),
        };
        (key_v4(key), route)
    });
    let v6 = k.routes_v6.iter().map(|(key, r)| {
        let (primary, ghost) = (&r.primary, &r.ghost);
        let route = Route {
            slot: r.switch,
            counter: r.counter,
            primary: target(primary.kind, primary.addr_be.into(), primary.port_be),
            ghost: target(ghost.kind, ghost.addr_be.into(), ghost.port_be),
        };
        (key_v6(key), route)
    });
    v4.chain(v6).collect()
}

pub(super) fn reverses(k: &Actual) -> BTreeMap<Key, Reverse> {
    let v4 = k.reverse_v4.iter().map(|(key, r)| {
        let reverse = Reverse {
            slot: r.switch,
            counter: r.counter,
            service: (r.service_be.into(), u16::from_be_bytes(r.port_be)),
            side: r.side,
        };
        (key_v4(key), reverse)
    });
    let v6 = k.reverse_v6.iter().map(|(key, r)| {
        let reverse = Reverse {
            slot: r.switch,
            counter: r.counter,
            service: (r.service_be.into(), u16::from_be_bytes(r.port_be)),
            side: r.side,
        };
        (key_v6(key), reverse)
    });
    v4.chain(v6).collect()
}

/// Whether the filter lets packets look for the entry at `key`.
pub(super) fn filter_has(k: &Actual, key: Key) -> bool {
    let (addr, protocol, port) = key;
    let (bit, last_four) = match addr {
        IpAddr::V4(addr) => (Filter::v4(addr.octets()), addr.octets()),
        IpAddr::V6(addr) => {
            let [.., a, b, c, d] = addr.octets();
            (Filter::v6(addr.octets()), [a, b, c, d])
        }
    };
    let word = u32::from_ne_bytes(last_four);
    let is_set = |bit: Filter| k.filter.get(bit.word as usize).unwrap_or(&0) & bit.mask != 0;
    is_set(bit) && (protocol == 0 || is_set(Filter::with_port(word, port.to_be_bytes(), protocol)))
}

/// The name and the position of a slot; `None` if it points nowhere.
pub(super) fn instance(k: &Actual, slot: u32) -> Option<(String, Position)> {
    let held = k.slots.get(&SlotIndex(slot))?;
    let generation = HostSwitch::short(k.host_generation);
    let position = held.switch.control.effective(generation)?;
    Some((recorded_name(&held.record)?.to_string(), position))
}

/// Where one packet may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) instance: String,
    /// For the primary and for the ghost.
    pub(super) to: [Option<To>; 2],
}

/// Where a client's packet may go; `None` if no route names it.
pub(super) fn forward(k: &Actual, packet: Key) -> Option<Fate> {
    let (addr, protocol, port) = packet;
    let routes = routes(k);
    let (key, route) = match routes.get(&packet) {
        Some(route) => (packet, route),
        None => ((addr, 0, 0), routes.get(&(addr, 0, 0))?),
    };
    assert!(filter_has(k, key), "a route {key:?} that the filter hides");
    let by_port = key == packet;
    let (instance, _) = instance(k, route.slot)
        .unwrap_or_else(|| panic!("{addr}/{protocol}/{port} is steered by an unused slot"));
    let side = |target: Option<To>| match target? {
        To::Rewritten(to, _) if !by_port => Some(To::Rewritten(to, port)),
        as_it_says => Some(as_it_says),
    };
    Some(Fate {
        instance,
        to: [side(route.primary), side(route.ghost)],
    })
}

/// From whom a side's packet seems to come.
pub(super) fn backward(k: &Actual, packet: Key) -> (IpAddr, u16) {
    let (addr, _, port) = packet;
    let reverses = reverses(k);
    let (key, entry) = match (reverses.get(&packet), reverses.get(&(addr, 0, 0))) {
        (Some(entry), _) => (packet, entry),
        (None, Some(entry)) => ((addr, 0, 0), entry),
        (None, None) => return (addr, port),
    };
    assert!(filter_has(k, key), "a target {key:?} that the filter hides");
    let by_port = key == packet;
    let (service, service_port) = entry.service;
    (service, if by_port { service_port } else { port })
}
