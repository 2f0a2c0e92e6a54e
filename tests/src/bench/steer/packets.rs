//! What one packet costs.
//!
//! A test run with `repeat` feeds a packet back in as the last run has left it.
//! So routes come in pairs: what is translated from the first to the second is
//! translated back by the next run, and each run steers. A translation takes
//! one from the hop limit, which bounds the runs of a call.

use std::net::IpAddr;

use agent_common::abi::{Filter, Position, flags, names};
use anyhow::{Context, Result, ensure};

use super::{
    frames::{L4, TTL, frame, ttl_of},
    rig::{Behind, EMPTY, FLOOR, Rig},
    tables::{self, Point},
};
use crate::bench::{
    report::{Section, Target},
    sample::{in_turns, net, ratio},
};
use crate::{
    bpf::{Object, Room, XDP_PASS, XDP_TX},
    topology::{CLIENT_MAC, CLIENT_V4, CLIENT_V6, UPLINK_MAC},
};

/// Runs of a call: each takes one from the hop limit.
const RUNS: u32 = 250;
const CALLS: u32 = 150;
const ROUNDS: usize = 21;

/// Slots of `gd_switches`.
const SWITCH_PLAIN: u32 = 0;
const SWITCH_TRACKING: u32 = 1;
const SWITCH_PRIMARY: u32 = 2;
const SWITCHES: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    fn client(self) -> IpAddr {
        match self {
            Self::V4 => CLIENT_V4.into(),
            Self::V6 => CLIENT_V6.into(),
        }
    }

    fn addr(self, index: u32) -> IpAddr {
        match self {
            Self::V4 => Behind::Uplink.v4(index),
            Self::V6 => Behind::Uplink.v6(index),
        }
    }

    fn limit(self) -> Target {
        match self {
            Self::V4 => Target::AtMost(150.0),
            Self::V6 => Target::AtMost(180.0),
        }
    }
}

/// A frame through a program, many times over.
struct Case {
    name: String,
    program: &'static str,
    frame: Vec<u8>,
    /// Translated by each run, and sent back.
    steered: bool,
    target: Target,
    /// Name of the case this one is to come close to.
    floor: Option<String>,
}

/// Both objects.
pub(super) struct Bench {
    pub(super) rig: Rig,
    pub(super) steer: Object,
}

impl Bench {
    pub(super) fn new(room: Room) -> Result<Self> {
        let mut rig = Rig::new()?;
        let mut steer = Object::load(room)?;
        rig.park(&mut steer, names::STEER)?;
        Ok(Self { rig, steer })
    }

    pub(super) fn object(&self, program: &str) -> &Object {
        if program == names::STEER {
            &self.steer
        } else {
            &self.rig.floor
        }
    }
}

/// The first 12 bytes of a frame that goes back where it came from.
pub(super) fn macs_back() -> [u32; 3] {
    let [d, s] = [CLIENT_MAC, UPLINK_MAC];
    [
        u32::from_ne_bytes([d[0], d[1], d[2], d[3]]),
        u32::from_ne_bytes([d[4], d[5], s[0], s[1]]),
        u32::from_ne_bytes([s[2], s[3], s[4], s[5]]),
    ]
}

// Addresses, as indices behind the uplink: pairs are next to each other.
const PAIR_PLAIN: u32 = 0x1010;
const PAIR_TRACKED: u32 = 0x1020;
const PAIR_REVERSE: u32 = 0x1030;
const PRIMARY: u32 = 0x1040;
const FOREIGN: u32 = 0x2001;
const FOREIGN_MARKED: u32 = 0x2002;
const PAIR_UNCACHED: u32 = 0x1050;

pub(super) fn measure() -> Result<Section> {
    let mut bench = Bench::new(Room {
        routes: 64,
        instances: SWITCHES,
    })?;
    fill(&mut bench)?;
    let cases = cases()?;
    let Bench { rig, .. } = &bench;
    let values = rig.run(|| {
        for case in &cases {
            check(&bench, case).with_context(|| case.name.clone())?;
        }
        in_turns(&cases, ROUNDS, |case| time(&bench, case))
    })?;
    let mut section = Section::new("Cost of a packet (test runs)");
    section.note(format!(
        "net of the empty program, round by round; {ROUNDS} rounds of {CALLS} calls of {RUNS} \
         runs each, in turns; all next hops the same neighbour, leaving by XDP_TX"
    ));
    section.note(
        "floor: parse, one hash look-up, destination and checksums rewritten, XDP_TX; no TTL, \
         no routing, no counters, no switch",
    );
    let named = |name: &str| cases.iter().position(|case| case.name == name);
    let empty = values.first().context("no case")?;
    for (case, raw) in cases.iter().zip(&values) {
        let own = net(raw, empty);
        let name = case.name.clone();
        if case.program == EMPTY {
            section.row(name, raw.clone(), "ns", Target::None);
            continue;
        }
        section.row(name, own.clone(), "ns", case.target);
        if let Some(name) = &case.floor {
            let place = named(name).context("the floor was not measured")?;
            let floor = net(&values[place], empty);
            let name = format!("  as a multiple of the {name}");
            section.row(name, ratio(&own, &floor), "x", Target::AtMost(1.5));
        }
    }
    Ok(section)
}

fn fill(bench: &mut Bench) -> Result<()> {
    let Bench { rig, steer } = bench;
    tables::switch(steer, SWITCH_PLAIN, Position::Ghost, flags::ARMED)?;
    tables::switch(
        steer,
        SWITCH_TRACKING,
        Position::Ghost,
        flags::ARMED | flags::TRACK,
    )?;
    tables::switch(steer, SWITCH_PRIMARY, Position::Primary, flags::ARMED)?;
    let mut counter = 0;
    let mut next = || {
        counter += 1;
        counter
    };
    for family in Family::BOTH {
        let pairs = [
            (PAIR_PLAIN, SWITCH_PLAIN),
            (PAIR_TRACKED, SWITCH_TRACKING),
            (PRIMARY, SWITCH_PRIMARY),
        ];
        for (first, switch) in pairs {
            let [a, b] = [family.addr(first), family.addr(first + 1)];
            for (from, to) in [(a, b), (b, a)] {
                tables::route(steer, Point::of(from), Point::of(to), switch, next())?;
                tables::floor(&mut rig.floor, from, to, macs_back())?;
            }
        }
        let [a, b] = [family.addr(PAIR_REVERSE), family.addr(PAIR_REVERSE + 1)];
        for (copy, service) in [(a, b), (b, a)] {
            tables::reverse(steer, copy, service, SWITCH_PLAIN, next())?;
        }
        let filter = match family.addr(FOREIGN_MARKED) {
            IpAddr::V4(addr) => Filter::v4(addr.octets()),
            IpAddr::V6(addr) => Filter::v6(addr.octets()),
        };
        tables::mark(steer, filter)?;
    }
    let [a, b] = uncached()?;
    for (from, to) in [(a, b), (b, a)] {
        tables::route(steer, Point::of(from), Point::of(to), SWITCH_PLAIN, next())?;
    }
    Ok(())
}

/// Two addresses that share a slot of the cache of next hops, and evict each
/// other: what a packet costs whose next hop is not cached.
fn uncached() -> Result<[IpAddr; 2]> {
    use agent_common::abi::HOP_SLOTS;
    let slot = |index: u32| match Behind::Uplink.v4(index) {
        IpAddr::V4(addr) => Filter::v4(addr.octets()).word % HOP_SLOTS,
        IpAddr::V6(_) => 0,
    };
    let other = (PAIR_UNCACHED + 1..FOREIGN)
        .find(|&index| slot(index) == slot(PAIR_UNCACHED))
        .or_else(|| (0x3000..0x3_0000).find(|&index| slot(index) == slot(PAIR_UNCACHED)))
        .context("no two addresses share a slot")?;
    Ok([PAIR_UNCACHED, other].map(|index| Behind::Uplink.v4(index)))
}

fn cases() -> Result<Vec<Case>> {
    let foreign = |family: Family, index, name: &str| Case {
        name: format!("{name}, UDP {}", family.name()),
        program: names::STEER,
        frame: to(family, L4::Udp, index),
        steered: false,
        target: Target::None,
        floor: None,
    };
    let mut cases = vec![Case {
        name: "empty program and meter, not subtracted".to_owned(),
        program: EMPTY,
        ..foreign(Family::V4, FOREIGN, "")
    }];
    for family in Family::BOTH {
        cases.push(Case {
            target: Target::AtMost(25.0),
            ..foreign(family, FOREIGN, "not ours")
        });
        cases.push(foreign(
            family,
            FOREIGN_MARKED,
            "not ours, but in the filter",
        ));
        cases.push(foreign(family, PRIMARY, "ours, for a native primary"));
    }
    for family in Family::BOTH {
        for l4 in [L4::Udp, L4::Tcp] {
            steered(&mut cases, family, l4);
        }
    }
    let [first, _] = uncached()?;
    cases.push(Case {
        name: "to ghost, UDP v4, next hop not cached".to_owned(),
        frame: frame(L4::Udp, (CLIENT_V4.into(), 9_000), (first, 53)),
        steered: true,
        ..foreign(Family::V4, FOREIGN, "")
    });
    Ok(cases)
}

/// The floor, and all that is translated, of one kind of packet.
fn steered(cases: &mut Vec<Case>, family: Family, l4: L4) {
    let kind = format!("{l4:?} {}", family.name()).replace("Tcp", "TCP");
    let kind = kind.replace("Udp", "UDP");
    let floor = format!("floor, {kind}");
    let case = |name: &str, program, frame, target, floor| Case {
        name: format!("{name}, {kind}"),
        program,
        frame,
        steered: true,
        target,
        floor,
    };
    let plain = to(family, l4, PAIR_PLAIN);
    let reply = frame(
        l4,
        (family.addr(PAIR_REVERSE), 53),
        (family.client(), 9_000),
    );
    let (steer, limit) = (names::STEER, family.limit());
    cases.extend([
        case("floor", FLOOR, plain.clone(), Target::None, None),
        case("to ghost", steer, plain, limit, Some(floor)),
        case(
            "to ghost, flow recorded",
            steer,
            to(family, l4, PAIR_TRACKED),
            limit,
            None,
        ),
        case("from ghost", steer, reply, limit, None),
    ]);
}

fn to(family: Family, l4: L4, index: u32) -> Vec<u8> {
    frame(l4, (family.client(), 9_000), (family.addr(index), 53))
}

/// Whether each run of a call does what the case says.
fn check(bench: &Bench, case: &Case) -> Result<()> {
    let object = bench.object(case.program);
    let done = object.repeat(case.program, &case.frame, bench.rig.uplink, RUNS)?;
    let (action, spent) = match (case.steered, case.program) {
        (false, _) => (XDP_PASS, 0),
        (true, FLOOR) => (XDP_TX, 0),
        (true, _) => (XDP_TX, RUNS as u8),
    };
    ensure!(done.last.action == action, "action {}", done.last.action);
    let left = ttl_of(&done.last.frame);
    ensure!(left == Some(TTL - spent), "hop limit left {left:?}");
    Ok(())
}

/// Nanoseconds of a run.
fn time(bench: &Bench, case: &Case) -> Result<f64> {
    let object = bench.object(case.program);
    let mut total_ns = 0;
    for _ in 0..CALLS {
        let done = object.repeat(case.program, &case.frame, bench.rig.uplink, RUNS)?;
        total_ns += done.each.as_nanos();
    }
    Ok(total_ns as f64 / f64::from(CALLS))
}
