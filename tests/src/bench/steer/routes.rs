//! Ten routes or a hundred thousand: what the number does to a packet.
//!
//! Routes form one ring in random order: the ghost of each is the service of
//! the next. So each of the runs of a call steers, and each finds another route.

use std::net::IpAddr;

use agent_common::abi::{Filter, HOP_SLOTS, Position, names};
use anyhow::{Context, Result, ensure};

use super::{
    frames::{L4, TTL, frame, ttl_of},
    rig::{Behind, EMPTY, Rig},
    tables::{self, Point},
};
use crate::bench::{
    report::{Section, Target},
    sample::{in_turns, net, ratio},
};
use crate::{
    bpf::{Object, Room, XDP_TX},
    oracle::{Rng, build},
    topology::CLIENT_V4,
};

/// Runs of a call: each takes one from the hop limit.
const RUNS: u32 = 250;
const CALLS: u32 = 300;
const ROUNDS: usize = 11;

const FEW: u32 = 10;
const MANY: u32 = 100_000;
/// `[limits] routes` by default.
const ROOM_DEFAULT: u32 = 4_096;
/// Routes of an instance, where there are many.
const ROUTES_PER_INSTANCE: u32 = 10;
/// Addresses that port routes share.
const SHARED: u32 = 10;

/// What tells the routes of a set apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Ports of a few addresses: all next hops stay cached.
    Ports,
    /// The same, but only as many as there are addresses have packets.
    PortsHot,
    /// Addresses.
    Addresses,
    /// Addresses that all share a slot of the cache of next hops: none is ever
    /// found there, as with many addresses in random order.
    Uncached,
}

struct Set {
    name: String,
    object: Object,
    ring: Vec<Point>,
}

pub(super) fn measure() -> Result<Section> {
    let mut rig = Rig::new()?;
    let mut sets = Vec::new();
    for (kind, count) in [
        (Kind::Ports, FEW),
        (Kind::PortsHot, MANY),
        (Kind::Ports, MANY),
        (Kind::Addresses, FEW),
        (Kind::Uncached, FEW),
        (Kind::Addresses, MANY),
    ] {
        sets.push(load(&mut rig, kind, count)?);
    }
    let mut rng = Rng::new(1);
    let turns: Vec<Option<&Set>> = std::iter::once(None).chain(sets.iter().map(Some)).collect();
    let values = rig.run(|| {
        in_turns(&turns, ROUNDS, |turn| match turn {
            None => empty(&rig, &sets[0]),
            Some(set) => time(&rig, set, &mut rng).with_context(|| set.name.clone()),
        })
    })?;
    let costs: Vec<Vec<f64>> = values[1..].iter().map(|v| net(v, &values[0])).collect();
    let mut section = Section::new("Ten routes or 100,000 (test runs, UDP v4 to ghost)");
    for (set, cost) in sets.iter().zip(&costs) {
        section.row(set.name.clone(), cost.clone(), "ns", Target::None);
    }
    for (name, few, many) in [
        ("100,000 port routes, packets for 10, against 10", 0, 1),
        ("100,000 port routes, packets for all, against 10", 0, 2),
        ("100,000 address routes against 10, uncached both", 4, 5),
    ] {
        let limit = Target::AtMost(1.3);
        section.row(name, ratio(&costs[many], &costs[few]), "x", limit);
    }
    section.note(format!(
        "net of the empty program; a whole packet, of which the look-up is a part; each packet \
         for another route, in random order; {ROUNDS} rounds of {CALLS} calls of {RUNS} runs in turns"
    ));
    section.note(
        "uncached: the cache of next hops has 1,024 slots, so that random packets for more \
         destinations than that ask the routing table each time, whatever the number of routes",
    );
    Ok(section)
}

fn load(rig: &mut Rig, kind: Kind, count: u32) -> Result<Set> {
    let mut object = Object::load(Room {
        routes: count.max(ROOM_DEFAULT),
        instances: count.div_ceil(ROUTES_PER_INSTANCE),
    })?;
    rig.park(&mut object, names::STEER)?;
    for slot in 0..count.div_ceil(ROUTES_PER_INSTANCE) {
        tables::switch(&mut object, slot, Position::Ghost, 0)?;
    }
    let mut ring = ring(kind, count)?;
    let rest = match kind {
        Kind::PortsHot => ring.split_off(SHARED as usize),
        Kind::Ports | Kind::Addresses | Kind::Uncached => Vec::new(),
    };
    let mut counter = 0;
    for ring in [&ring, &rest] {
        for (place, &from) in ring.iter().enumerate() {
            let to = ring[(place + 1) % ring.len()];
            let switch = counter / ROUTES_PER_INSTANCE;
            tables::route(&mut object, from, to, switch, counter)?;
            counter += 1;
        }
    }
    let what = match kind {
        Kind::Ports => format!("ports of {SHARED} addresses"),
        Kind::PortsHot => format!("ports of {SHARED} addresses, packets for {SHARED}"),
        Kind::Addresses => "addresses".to_owned(),
        Kind::Uncached => "addresses, next hops uncached".to_owned(),
    };
    Ok(Set {
        name: format!("{count} routes: {what}"),
        object,
        ring,
    })
}

/// The routes of a set in the order in which packets meet them.
fn ring(kind: Kind, count: u32) -> Result<Vec<Point>> {
    let mut rng = Rng::new(u64::from(count));
    if matches!(kind, Kind::Ports | Kind::PortsHot) {
        // Neighbours in the ring differ in their address; the ports of each
        // address come in an order of their own.
        let each = count / SHARED;
        let ports: Vec<Vec<u32>> = (0..SHARED).map(|_| shuffled(each, &mut rng)).collect();
        let point = |place: u32| {
            let (addr, nth) = (place % SHARED, place / SHARED);
            let port = 1_000 + ports[addr as usize][nth as usize];
            Point {
                addr: Behind::Uplink.v4(0x1000 + addr),
                l4: Some((build::UDP, port as u16)),
            }
        };
        return Ok((0..count).map(point).collect());
    }
    let slot = |addr: &IpAddr| match addr {
        IpAddr::V4(addr) => Filter::v4(addr.octets()).word % HOP_SLOTS,
        IpAddr::V6(_) => 0,
    };
    let all = (0x1_0000..0x4_0000).map(|index| Behind::Uplink.v4(index));
    let chosen: Vec<IpAddr> = match kind {
        Kind::Uncached => all
            .filter(|addr| slot(addr) == 7)
            .take(count as usize)
            .collect(),
        _ => all.take(count as usize).collect(),
    };
    ensure!(chosen.len() == count as usize, "too few addresses");
    let order = shuffled(count, &mut rng);
    Ok(order
        .iter()
        .map(|&i| Point::of(chosen[i as usize]))
        .collect())
}

/// The numbers below `count` in random order (Fisher and Yates).
fn shuffled(count: u32, rng: &mut Rng) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count).collect();
    for last in (1..numbers.len()).rev() {
        let other = rng.below(last + 1);
        numbers.swap(last, other);
    }
    numbers
}

/// Nanoseconds of a packet, from random places of the ring on.
fn time(rig: &Rig, set: &Set, rng: &mut Rng) -> Result<f64> {
    let mut total_ns = 0;
    for _ in 0..CALLS {
        let start = set.ring[rng.below(set.ring.len())];
        let port = start.l4.map_or(53, |(_, port)| port);
        let frame = frame(L4::Udp, (CLIENT_V4.into(), 9_000), (start.addr, port));
        let done = set.object.repeat(names::STEER, &frame, rig.uplink, RUNS)?;
        ensure!(done.last.action == XDP_TX, "action {}", done.last.action);
        let left = ttl_of(&done.last.frame);
        ensure!(left == Some(TTL - RUNS as u8), "hop limit left {left:?}");
        total_ns += done.each.as_nanos();
    }
    Ok(total_ns as f64 / f64::from(CALLS))
}

fn empty(rig: &Rig, set: &Set) -> Result<f64> {
    let to = (set.ring[0].addr, 53);
    let frame = frame(L4::Udp, (CLIENT_V4.into(), 9_000), to);
    let mut total_ns = 0;
    for _ in 0..CALLS {
        let done = rig.floor.repeat(EMPTY, &frame, rig.uplink, RUNS)?;
        total_ns += done.each.as_nanos();
    }
    Ok(total_ns as f64 / f64::from(CALLS))
}
