//! Rows for the tables of a loaded object.

use std::net::IpAddr;

use agent_common::abi::{
    Control, Filter, HostSwitch, Position, ReverseV4, ReverseV6, RouteKeyV4, RouteKeyV6, RouteV4,
    RouteV6, Side, Switch, TargetKind, TargetV4, TargetV6, names,
};
use anyhow::{Result, bail};

use crate::bpf::Object;

/// An end of a route: an address, and protocol and port of a port route.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) addr: IpAddr,
    pub(super) l4: Option<(u8, u16)>,
}

impl Point {
    pub(super) fn of(addr: IpAddr) -> Self {
        Self { addr, l4: None }
    }

    fn port_be(self) -> [u8; 2] {
        self.l4.map_or([0; 2], |(_, port)| port.to_be_bytes())
    }

    fn protocol(self) -> u8 {
        self.l4.map_or(0, |(protocol, _)| protocol)
    }
}

/// Points a switch somewhere.
pub(super) fn switch(object: &mut Object, slot: u32, position: Position, flags: u8) -> Result<()> {
    let generation = object.get::<HostSwitch>(names::HOST_SWITCH, 0)?.generation;
    let switch = Switch {
        control: Control {
            position: position as u8,
            flags,
            host_generation_seen: HostSwitch::short(generation),
            term: 0,
        },
        drain_idle_ns: 60_000_000_000,
        ..Switch::UNUSED
    };
    object.set(names::SWITCHES, slot, switch)
}

/// Sets the bit that says "look".
pub(super) fn mark(object: &mut Object, filter: Filter) -> Result<()> {
    let word: u64 = object.get(names::FILTER, filter.word)?;
    object.set(names::FILTER, filter.word, word | filter.mask)
}

/// Routes `from` to the ghost `to`; the primary is native.
pub(super) fn route(
    object: &mut Object,
    from: Point,
    to: Point,
    switch: u32,
    counter: u32,
) -> Result<()> {
    let (port_be, kind, pad) = (to.port_be(), TargetKind::Translate as u8, 0);
    match (from.addr, to.addr) {
        (IpAddr::V4(service), IpAddr::V4(ghost)) => {
            let key = RouteKeyV4 {
                addr_be: service.octets(),
                port_be: from.port_be(),
                protocol: from.protocol(),
                pad,
            };
            let target = |addr_be, kind| TargetV4 {
                addr_be,
                port_be,
                kind,
                pad,
            };
            let row = RouteV4 {
                switch,
                counter,
                primary: target(service.octets(), TargetKind::Native as u8),
                ghost: target(ghost.octets(), kind),
            };
            for filter in Filter::of_v4(&key) {
                mark(object, filter)?;
            }
            object.insert(names::ROUTES_V4, key, row)
        }
        (IpAddr::V6(service), IpAddr::V6(ghost)) => {
            let key = RouteKeyV6 {
                addr_be: service.octets(),
                port_be: from.port_be(),
                protocol: from.protocol(),
                pad,
            };
            let target = |addr_be, kind| TargetV6 {
                addr_be,
                port_be,
                kind,
                pad,
            };
            let row = RouteV6 {
                switch,
                counter,
                primary: target(service.octets(), TargetKind::Native as u8),
                ghost: target(ghost.octets(), kind),
            };
            for filter in Filter::of_v6(&key) {
                mark(object, filter)?;
            }
            object.insert(names::ROUTES_V6, key, row)
        }
        _ => bail!("a route within two families"),
    }
}

/// Lets what the ghost `copy` sends come from `service`.
pub(super) fn reverse(
    object: &mut Object,
    copy: IpAddr,
    service: IpAddr,
    switch: u32,
    counter: u32,
) -> Result<()> {
    let (port_be, protocol, pad, side) = ([0; 2], 0, 0, Side::Ghost as u8);
    match (copy, service) {
        (IpAddr::V4(copy), IpAddr::V4(service)) => {
            let key = RouteKeyV4 {
                addr_be: copy.octets(),
                port_be,
                protocol,
                pad,
            };
            let row = ReverseV4 {
                switch,
                counter,
                service_be: service.octets(),
                port_be,
                side,
                pad,
            };
            mark(object, Filter::v4(copy.octets()))?;
            object.insert(names::REVERSE_V4, key, row)
        }
        (IpAddr::V6(copy), IpAddr::V6(service)) => {
            let key = RouteKeyV6 {
                addr_be: copy.octets(),
                port_be,
                protocol,
                pad,
            };
            let row = ReverseV6 {
                switch,
                counter,
                service_be: service.octets(),
                port_be,
                side,
                pad: [0; 5],
            };
            mark(object, Filter::v6(copy.octets()))?;
            object.insert(names::REVERSE_V6, key, row)
        }
        _ => bail!("a reverse entry within two families"),
    }
}

/// A row of the floor's tables.
pub(super) fn floor(object: &mut Object, from: IpAddr, to: IpAddr, macs: [u32; 3]) -> Result<()> {
    let mut target = [0u32; 8];
    target[4..7].copy_from_slice(&macs);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            target[0] = u32::from_ne_bytes(to.octets());
            object.insert("gd_floor_v4", u32::from_ne_bytes(from.octets()), target)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            target[..4].copy_from_slice(&words(to.octets()));
            object.insert("gd_floor_v6", words(from.octets()), target)
        }
        _ => bail!("a translation within two families"),
    }
}

fn words(bytes: [u8; 16]) -> [u32; 4] {
    let word = |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    [word(0), word(4), word(8), word(12)]
}
