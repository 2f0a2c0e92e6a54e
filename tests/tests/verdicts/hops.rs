//! Next hops that are kept for milliseconds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_common::abi::{Filter, Hop, names};
use anyhow::{Context, Result};
use ghostd_tests::{clock::now_ns, topology::Family};

use crate::{
    lab::{
        Got, Lab, TICK, Tally::*, arriving, client, counter, departing, ghost, lab, request,
        service,
    },
    packet::{Body, Packet, payload},
    place::Port,
};

/// Where the answer for packets from `src` to `dst` is kept.
fn slot(src: IpAddr, dst: IpAddr) -> u32 {
    let [src, dst] = [src, dst].map(|addr| match addr {
        IpAddr::V4(addr) => Filter::v4(addr.octets()).word,
        IpAddr::V6(addr) => Filter::v6(addr.octets()).word,
    });
    Hop::slot(src, dst)
}

/// In place of a client, for which no answer of its own is kept.
fn anybody(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// As it lies in a header.
fn words(addr: IpAddr) -> [u32; 4] {
    let mut bytes = [0; 16];
    match addr {
        IpAddr::V4(addr) => bytes[..4].copy_from_slice(&addr.octets()),
        IpAddr::V6(addr) => bytes = addr.octets(),
    }
    std::array::from_fn(|i| u32::from_ne_bytes(std::array::from_fn(|j| bytes[i * 4 + j])))
}

fn macs(to: [u8; 6], from: [u8; 6]) -> [u32; 3] {
    let bytes = [to, from].concat();
    std::array::from_fn(|i| u32::from_ne_bytes(std::array::from_fn(|j| bytes[i * 4 + j])))
}

fn udp(family: Family) -> Packet {
    arriving(Port::Uplink, request(family, 0), Body::Udp(payload(30)))
}

fn expect_by(lab: &Lab, what: &str, family: Family, to: [u8; 6], from: [u8; 6]) {
    let sent = udp(family);
    let out = departing(
        sent.clone().with(|p| p.ends.target = ghost(family)),
        Port::Wide,
    )
    .with(|p| (p.to, p.from) = (to, from));
    let want = Got::redirected(&out).counting(counter(family, 0), &[ToGhost(sent.counted())]);
    lab.expect(what, Port::Uplink, &sent.bytes(), &want);
}

#[test]
fn the_answer_of_the_routing_table_is_kept_for_milliseconds() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            expect_by(lab, "asked", family, Port::Wide.far_mac(), Port::Wide.mac());
            let cpus: Vec<Hop> = lab
                .object
                .per_cpu(names::HOPS, slot(anybody(family), ghost(family)))?;
            let kept = cpus.iter().find(|hop| hop.valid_until_ns != 0);
            let kept = kept.context("no answer was kept")?;
            let want = Hop {
                dst: words(ghost(family)),
                valid_until_ns: kept.valid_until_ns,
                ingress: lab.place.index(Port::Uplink),
                egress: lab.place.index(Port::Wide),
                mtu: Port::Wide.mtu(),
                macs: macs(Port::Wide.far_mac(), Port::Wide.mac()),
                src: words(anybody(family)),
            };
            assert_eq!(*kept, want);
            assert!(kept.valid_until_ns < now_ns() + TICK);
        }
        Ok(())
    })
}

#[test]
fn only_a_fresh_answer_to_the_same_question_is_used() -> Result<()> {
    const TO: [u8; 6] = [2, 1, 2, 3, 4, 5];
    const FROM: [u8; 6] = [2, 6, 7, 8, 9, 10];
    let true_macs = (Port::Wide.far_mac(), Port::Wide.mac());
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let planted = Hop {
                dst: words(ghost(family)),
                valid_until_ns: u64::MAX,
                ingress: lab.place.index(Port::Uplink),
                egress: lab.place.index(Port::Narrow),
                mtu: 1400,
                macs: macs(TO, FROM),
                src: words(anybody(family)),
            };
            let mut other_dst = planted;
            let last = if family == Family::V4 { 0 } else { 3 };
            other_dst.dst[last] ^= 1;
            let mut other_src = planted;
            other_src.src[last] ^= 1;
            for (what, hop, (to, from)) in [
                ("fresh", planted, (TO, FROM)),
                ("another target", other_dst, true_macs),
                ("another source", other_src, true_macs),
                (
                    "another way in",
                    Hop {
                        ingress: 1,
                        ..planted
                    },
                    true_macs,
                ),
                (
                    "stale",
                    Hop {
                        valid_until_ns: 1,
                        ..planted
                    },
                    true_macs,
                ),
            ] {
                lab.object
                    .set_per_cpu(names::HOPS, slot(anybody(family), ghost(family)), hop)?;
                expect_by(lab, what, family, to, from);
            }
        }
        Ok(())
    })
}

/// Hosts with more than one uplink choose it by the service's address.
#[test]
fn a_replys_answer_is_kept_for_its_service() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let (from, to) = (service(family, 0), client(family));
            let ends = request(family, 0).reversed();
            let sent = arriving(Port::Wide, ends, Body::Udp(payload(30)))
                .with(|p| p.ends.source = ghost(family));
            let out = departing(sent.clone().with(|p| p.ends.source = from), Port::Uplink);
            let want =
                Got::redirected(&out).counting(counter(family, 0), &[Reverse(sent.counted())]);
            lab.expect("from the ghost", Port::Wide, &sent.bytes(), &want);
            let cpus: Vec<Hop> = lab.object.per_cpu(names::HOPS, slot(from, to))?;
            let kept = cpus.iter().find(|hop| hop.valid_until_ns != 0);
            let kept = kept.context("no answer was kept")?;
            assert_eq!((kept.src, kept.dst), (words(from), words(to)));
        }
        Ok(())
    })
}
