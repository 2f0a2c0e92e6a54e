//! One loaded object in the shared network, and what to expect of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_common::abi::{EGRESS_SLOTS, Position, Reason, RouteCounters, Side, Switch, names};
use anyhow::Result;
use ghostd_tests::{
    bpf::{Object, Outcome, Room, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX},
    oracle::build::Ends,
    topology::Family,
};
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    packet::{Body, Packet},
    place::{Place, Port, at},
    rows::{self, Key, Slots, Target},
};

/// Slots of switches in a lab; each family has a counter for each.
pub(crate) const SLOTS: u32 = 8;

/// By how much, at most, the coarse clock that the programs read is behind, in
/// ns: a tick, and what a busy virtual machine adds to it.
pub(crate) const TICK: u64 = 1_000_000_000;

/// The programs: of both the same is expected where no fence stands.
pub(crate) const BOTH_PROGRAMS: [&str; 2] = [names::STEER, names::PORT];

pub(crate) struct Lab {
    pub(crate) object: Object,
    room: Room,
    pub(crate) place: &'static Place,
}

/// Runs a test with empty tables, inside the router's namespace, on one CPU:
/// some tables are per CPU.
pub(crate) fn lab(test: impl FnOnce(&mut Lab) -> Result<()> + Send) -> Result<()> {
    let room = Room {
        routes: SLOTS,
        instances: SLOTS,
    };
    lab_with(room, test)
}

/// As [`lab`], with tables of other sizes.
pub(crate) fn lab_with(room: Room, test: impl FnOnce(&mut Lab) -> Result<()> + Send) -> Result<()> {
    let place = Place::get();
    place.router.run(|| -> Result<()> {
        let mut cpus = CpuSet::new();
        cpus.set(sched_getcpu()?)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
        test(&mut Lab::new(place, room)?)
    })?
}

impl Lab {
    fn new(place: &'static Place, room: Room) -> Result<Self> {
        let mut object = Object::load(room)?;
        for port in Port::ALL {
            if port != Port::Unlisted {
                let index = place.index(port);
                object.set(names::EGRESS, index % EGRESS_SLOTS, index)?;
            }
        }
        Ok(Self {
            object,
            room,
            place,
        })
    }

    /// A service whose ghost, at `ghost`, has its traffic; the primary has the
    /// service address itself.
    pub(crate) fn serve(&mut self, family: Family, slot: u32, ghost: IpAddr) -> Result<()> {
        self.set_switch(slot, rows::switch(Position::Ghost, 0))?;
        let service = Key::whole(service(family, slot));
        let sides = [Target::Native, Target::Translate(Key::whole(ghost))];
        self.route(family, slot, service, sides)?;
        self.reverse(family, slot, Key::whole(ghost), service, Side::Ghost)
    }

    /// A service whose ghost, behind the next hop to `hop`, has the service
    /// address too.
    pub(crate) fn serve_via(&mut self, family: Family, slot: u32, hop: IpAddr) -> Result<()> {
        self.set_switch(slot, rows::switch(Position::Ghost, 0))?;
        let sides = [Target::Native, Target::Via(hop)];
        self.route(family, slot, Key::whole(service(family, slot)), sides)
    }

    pub(crate) fn set_switch(&mut self, slot: u32, switch: Switch) -> Result<()> {
        self.object.set(names::SWITCHES, slot, switch)
    }

    /// `sides`: primary, ghost.
    pub(crate) fn route(
        &mut self,
        family: Family,
        slot: u32,
        service: Key,
        sides: [Target; 2],
    ) -> Result<()> {
        rows::put_route(&mut self.object, slots(family, slot), service, sides)
    }

    pub(crate) fn reverse(
        &mut self,
        family: Family,
        slot: u32,
        copy: Key,
        service: Key,
        side: Side,
    ) -> Result<()> {
        rows::put_reverse(&mut self.object, slots(family, slot), copy, service, side)
    }

    /// All counters, over all CPUs.
    fn counters(&self) -> Result<Vec<RouteCounters>> {
        (0..2 * self.room.routes)
            .map(|index| {
                let cpus = self.object.per_cpu(names::COUNTERS, index)?;
                Ok(cpus.into_iter().fold(RouteCounters::default(), add))
            })
            .collect()
    }

    /// Runs one program once, and says what became of the frame and the counters.
    pub(crate) fn run(&self, program: &str, ingress: Port, frame: &[u8]) -> Result<Got> {
        self.run_linear(program, ingress, frame, frame.len())
    }

    /// As [`Self::run`]; only the first `linear` bytes are where programs see them.
    pub(crate) fn run_linear(
        &self,
        program: &str,
        ingress: Port,
        frame: &[u8],
        linear: usize,
    ) -> Result<Got> {
        let before = self.counters()?;
        let index = self.place.index(ingress);
        let Outcome { action, frame } = self.object.run_linear(program, frame, linear, index)?;
        let after = self.counters()?;
        let counted = (0..)
            .zip(after.into_iter().zip(before))
            .filter_map(|(i, (a, b))| {
                let by = subtract(a, b);
                (by != RouteCounters::default()).then_some((i, by))
            });
        Ok(Got {
            action,
            frame,
            counted: counted.collect(),
        })
    }

    /// As [`Self::expect_of`], of both programs.
    #[track_caller]
    pub(crate) fn expect(&self, what: &str, ingress: Port, frame: &[u8], want: &Got) {
        for program in BOTH_PROGRAMS {
            self.expect_of(program, what, ingress, frame, want);
        }
    }

    /// Sends `frame` in by `ingress`.
    #[track_caller]
    pub(crate) fn expect_of(
        &self,
        program: &str,
        what: &str,
        ingress: Port,
        frame: &[u8],
        want: &Got,
    ) {
        let got = self
            .run(program, ingress, frame)
            .unwrap_or_else(|error| panic!("{program}, {what}: {error:?}"));
        assert!(
            got == *want,
            "{program}, {what}:\n  sent {}\n  want {want}\n  got  {got}",
            hex(frame)
        );
    }
}

pub(crate) fn service(family: Family, slot: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 51, 100, 10 + slot as u8).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0x10 + slot as u16).into(),
    }
}

pub(crate) fn client(family: Family) -> IpAddr {
    at(family, Port::Uplink, 2)
}

/// The first ghost, behind a port with room for everything.
pub(crate) fn ghost(family: Family) -> IpAddr {
    at(family, Port::Wide, 2)
}

/// From the client to the service.
pub(crate) fn request(family: Family, slot: u32) -> Ends {
    Ends {
        source: client(family),
        target: service(family, slot),
        source_port: 40_000,
        target_port: 443,
    }
}

pub(crate) fn counter(family: Family, slot: u32) -> u32 {
    slot * 2 + u32::from(family == Family::V6)
}

fn slots(family: Family, slot: u32) -> Slots {
    Slots {
        switch: slot,
        counter: counter(family, slot),
    }
}

/// A packet as it comes in by `port`.
pub(crate) fn arriving(port: Port, ends: Ends, body: Body) -> Packet {
    Packet::new(ends, body).with(|p| {
        p.to = port.mac();
        p.from = port.far_mac();
    })
}

/// The same packet as it leaves by `port`.
pub(crate) fn departing(packet: Packet, port: Port) -> Packet {
    packet.with(|p| {
        p.to = port.far_mac();
        p.from = port.mac();
        p.ttl -= 1;
    })
}

/// What became of a frame, and by how much counters grew.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) action: u32,
    pub(crate) frame: Vec<u8>,
    pub(crate) counted: Vec<(u32, RouteCounters)>,
}

/// One thing that is counted; bytes for traffic.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tally {
    ToPrimary(u64),
    ToGhost(u64),
    Reverse(u64),
    GaveUp(Reason),
}

impl Got {
    pub(crate) fn new(action: u32, frame: Vec<u8>) -> Self {
        Self {
            action,
            frame,
            counted: Vec::new(),
        }
    }

    /// Left alone: up the stack, untouched.
    pub(crate) fn untouched(frame: &[u8]) -> Self {
        Self::new(XDP_PASS, frame.to_vec())
    }

    /// Up the stack, translated whole.
    pub(crate) fn handed_up(packet: &Packet) -> Self {
        Self::new(XDP_PASS, packet.bytes())
    }

    pub(crate) fn redirected(packet: &Packet) -> Self {
        Self::new(XDP_REDIRECT, packet.bytes())
    }

    pub(crate) fn dropped(frame: &[u8]) -> Self {
        Self::new(XDP_DROP, frame.to_vec())
    }

    /// Counters that grew, all of one route.
    pub(crate) fn counting(mut self, counter: u32, tallies: &[Tally]) -> Self {
        let mut by = RouteCounters::default();
        for tally in tallies {
            match *tally {
                Tally::ToPrimary(bytes) => {
                    by.primary_packets += 1;
                    by.primary_bytes += bytes;
                }
                Tally::ToGhost(bytes) => {
                    by.ghost_packets += 1;
                    by.ghost_bytes += bytes;
                }
                Tally::Reverse(bytes) => {
                    by.reverse_packets += 1;
                    by.reverse_bytes += bytes;
                }
                Tally::GaveUp(reason) => by.reasons[reason as usize] += 1,
            }
        }
        self.counted.push((counter, by));
        self.counted.sort_by_key(|(counter, _)| *counter);
        self
    }
}

impl std::fmt::Display for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let action = match self.action {
            XDP_DROP => "drop",
            XDP_PASS => "pass",
            XDP_TX => "tx",
            XDP_REDIRECT => "redirect",
            _ => "?",
        };
        write!(
            f,
            "{action} {} counting {:?}",
            hex(&self.frame),
            self.counted
        )
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn add(a: RouteCounters, b: RouteCounters) -> RouteCounters {
    zip(a, b, u64::wrapping_add)
}

fn subtract(a: RouteCounters, b: RouteCounters) -> RouteCounters {
    zip(a, b, u64::wrapping_sub)
}

fn zip(a: RouteCounters, b: RouteCounters, of: impl Fn(u64, u64) -> u64) -> RouteCounters {
    RouteCounters {
        primary_packets: of(a.primary_packets, b.primary_packets),
        primary_bytes: of(a.primary_bytes, b.primary_bytes),
        ghost_packets: of(a.ghost_packets, b.ghost_packets),
        ghost_bytes: of(a.ghost_bytes, b.ghost_bytes),
        reverse_packets: of(a.reverse_packets, b.reverse_packets),
        reverse_bytes: of(a.reverse_bytes, b.reverse_bytes),
        reasons: std::array::from_fn(|i| of(a.reasons[i], b.reasons[i])),
        pad: std::array::from_fn(|i| of(a.pad[i], b.pad[i])),
    }
}
