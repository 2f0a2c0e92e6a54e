//! What a frame costs from its arrival to its end, when the kernel carries out
//! what the program says: sending, redirecting, or the way through the stack.
//!
//! Frames are injected in batches as a driver would ("live frames"). Their
//! pages come back as they were left, so that routes go in pairs here as well,
//! and so do the rules of nftables.

use std::net::IpAddr;

use agent_common::abi::{EGRESS_SLOTS, Position, names};
use anyhow::{Context, Result, ensure};

use super::{
    frames::{L4, frame},
    packets::{Bench, macs_back},
    rig::{Behind, DROP, EMPTY, FLOOR, Rig, SEND_BACK},
    tables::{self, Point},
};
use crate::bench::{
    report::{Section, Target},
    sample::{in_turns, net, ratio},
};
use crate::{
    bpf::Room,
    host::nft,
    netns::NetNs,
    topology::{CLIENT_V4, CLIENT_V6},
};

/// As many as a driver takes at a time (NAPI_POLL_WEIGHT).
const BATCH: u32 = 64;
/// Each page goes through 150 translations, with 255 hops to live.
const FRAMES: u32 = BATCH * 150;
const CALLS: u32 = 5;
const ROUNDS: usize = 15;

/// Where frames end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// In the program.
    Here,
    /// Behind the cable they came by.
    Near,
    /// Behind the other cable.
    Far,
}

struct Case {
    name: &'static str,
    program: &'static str,
    frame: Vec<u8>,
    end: End,
}

const DROPPED: &str = "dropped at once";
const STEER_BACK: [&str; 2] = ["gd_steer, sent back, UDP v4", "gd_steer, sent back, UDP v6"];
const FLOOR_BACK: [&str; 2] = ["floor, sent back, UDP v4", "floor, sent back, UDP v6"];
const STEER_ON: [&str; 2] = [
    "gd_steer, redirected, UDP v4",
    "gd_steer, redirected, UDP v6",
];
const NFT_ON: [&str; 2] = [
    "nftables DNAT, forwarded, UDP v4",
    "nftables DNAT, forwarded, UDP v6",
];

/// Indices of addresses: pairs that gd_steer and the floor translate, and
/// pairs that nftables does.
const STEERED: u32 = 0x1010;
const BY_NFT: u32 = 0x1020;

pub(super) fn measure() -> Result<Section> {
    let mut bench = Bench::new(Room {
        routes: 16,
        instances: 1,
    })?;
    fill(&mut bench)?;
    load_rules(&bench.rig.host)?;
    let cases = cases();
    let values = bench.rig.run(|| {
        for case in &cases {
            check(&bench, case).with_context(|| case.name)?;
        }
        in_turns(&cases, ROUNDS, |case| time(&bench, case))
    })?;
    check_rules(&bench.rig.host)?;
    Ok(section(&cases, &values))
}

fn section(cases: &[Case], values: &[Vec<f64>]) -> Section {
    let mut section = Section::new("Cost of a frame, injection to end (live frames)");
    for (case, values) in cases.iter().zip(values) {
        section.row(case.name, values.clone(), "ns", Target::None);
    }
    let of = |name: &str| {
        let place = cases.iter().position(|case| case.name == name);
        place.map_or(&[][..], |place| &values[place])
    };
    let dropped = of(DROPPED);
    let less = |name| net(of(name), dropped);
    for (i, family) in ["v4", "v6"].iter().enumerate() {
        let name = format!("gd_steer as a multiple of the floor, {family}");
        let limit = Target::AtMost(1.5);
        let whole = ratio(of(STEER_BACK[i]), of(FLOOR_BACK[i]));
        section.row(name, whole, "x", limit);
        let name = format!("nftables as a multiple of gd_steer, {family}");
        let limit = Target::AtLeast(5.0);
        let whole = ratio(of(NFT_ON[i]), of(STEER_ON[i]));
        section.row(name, whole, "x", limit);
        let name = format!("  both less what injection costs, {family}");
        let rest = ratio(&less(NFT_ON[i]), &less(STEER_ON[i]));
        section.row(name, rest, "x", limit);
    }
    section.note(format!(
        "nothing subtracted: wall clock of the injecting call over its {FRAMES} frames, with \
         what the far end does to swallow them (XDP_DROP on a veth); {ROUNDS} rounds of {CALLS} \
         calls in turns"
    ));
    section.note(
        "gd_steer, redirected against nftables: the same frames come in by the same interface \
         and end behind the same other one. nftables has one dnat rule for each address and one \
         established UDP flow, checksums not verified; its frames take the way of XDP_PASS: skb, \
         conntrack, DNAT, forwarding, transmission",
    );
    section
}

fn fill(bench: &mut Bench) -> Result<()> {
    let Bench { rig, steer } = bench;
    tables::switch(steer, 0, Position::Ghost, 0)?;
    steer.set(names::EGRESS, rig.port % EGRESS_SLOTS, rig.port)?;
    let mut counter = 0;
    for behind in [Behind::Uplink, Behind::Port] {
        for [a, b] in pairs(behind, STEERED) {
            for (from, to) in [(a, b), (b, a)] {
                tables::route(steer, Point::of(from), Point::of(to), 0, counter)?;
                counter += 1;
                tables::floor(&mut rig.floor, from, to, macs_back())?;
            }
        }
    }
    Ok(())
}

/// Two addresses of each family.
fn pairs(behind: Behind, first: u32) -> [[IpAddr; 2]; 2] {
    [
        [first, first + 1].map(|index| behind.v4(index)),
        [first, first + 1].map(|index| behind.v6(index)),
    ]
}

fn load_rules(host: &NetNs) -> Result<()> {
    let [[a4, b4], [a6, b6]] = pairs(Behind::Port, BY_NFT);
    // A nat chain sees the first packet of a flow only: counting costs nothing.
    nft::load(
        host,
        &format!(
            "table ip steer {{
               chain pre {{
                 type nat hook prerouting priority dstnat
                 ip daddr {a4} counter dnat to {b4}
                 ip daddr {b4} counter dnat to {a4}
               }}
             }}
             table ip6 steer {{
               chain pre {{
                 type nat hook prerouting priority dstnat
                 ip6 daddr {a6} counter dnat to {b6}
                 ip6 daddr {b6} counter dnat to {a6}
               }}
             }}\n"
        ),
    )?;
    nft::be_liberal(host)
}

/// Each of the four flows must have been translated.
fn check_rules(host: &NetNs) -> Result<()> {
    let shown = host.command(std::process::Command::new("nft").args(["list", "ruleset"]))?;
    let rules = shown.matches("counter packets").count();
    let idle = shown.matches("counter packets 0 ").count();
    ensure!(rules == 4 && idle == 0, "not all rules were used:\n{shown}");
    Ok(())
}

fn cases() -> Vec<Case> {
    let to = |addr: IpAddr| {
        let client: IpAddr = match addr {
            IpAddr::V4(_) => CLIENT_V4.into(),
            IpAddr::V6(_) => CLIENT_V6.into(),
        };
        frame(L4::Udp, (client, 9_000), (addr, 53))
    };
    let case = |name, program, frame, end| Case {
        name,
        program,
        frame,
        end,
    };
    let back = pairs(Behind::Uplink, STEERED).map(|[a, _]| to(a));
    let on = pairs(Behind::Port, STEERED).map(|[a, _]| to(a));
    let by_nft = pairs(Behind::Port, BY_NFT).map(|[a, _]| to(a));
    let mut cases = vec![
        case(DROPPED, DROP, back[0].clone(), End::Here),
        case("sent back as it is", SEND_BACK, back[0].clone(), End::Near),
    ];
    for family in 0..2 {
        let (back, on) = (&back[family], &on[family]);
        cases.extend([
            case(FLOOR_BACK[family], FLOOR, back.clone(), End::Near),
            case(STEER_BACK[family], names::STEER, back.clone(), End::Near),
            case(STEER_ON[family], names::STEER, on.clone(), End::Far),
            case(NFT_ON[family], EMPTY, by_nft[family].clone(), End::Far),
        ]);
    }
    cases
}

/// Whether all frames end where they should.
fn check(bench: &Bench, case: &Case) -> Result<()> {
    let Rig { near, far, .. } = &bench.rig;
    let count = |end| match end {
        End::Here => Ok(0),
        End::Near => Rig::swallowed(near),
        End::Far => Rig::swallowed(far),
    };
    let before = count(case.end)?;
    inject(bench, case)?;
    let arrived = count(case.end)? - before;
    let expected = if case.end == End::Here { 0 } else { FRAMES };
    ensure!(
        arrived >= u64::from(expected),
        "{arrived} of {expected} frames arrived"
    );
    Ok(())
}

/// Nanoseconds of a frame.
fn time(bench: &Bench, case: &Case) -> Result<f64> {
    let mut total_ns = 0;
    for _ in 0..CALLS {
        total_ns += inject(bench, case)?;
    }
    Ok(total_ns as f64 / f64::from(CALLS * FRAMES))
}

fn inject(bench: &Bench, case: &Case) -> Result<u128> {
    let object = bench.object(case.program);
    let took = object.live(case.program, &case.frame, bench.rig.uplink, FRAMES, BATCH)?;
    Ok(took.as_nanos())
}
