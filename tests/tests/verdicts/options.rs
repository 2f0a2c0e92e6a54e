//! IPv4 options, IPv6 extension headers, checksums with a twist, and sources
//! that no router forwards.

use std::net::IpAddr;

use agent_common::abi::Reason;
use anyhow::{Context, Result};
use ghostd_tests::{
    oracle::build::{DESTINATION, HOP_BY_HOP, ROUTING},
    topology::Family,
};

use crate::{
    lab::{Got, Tally::*, arriving, counter, departing, ghost, lab, request},
    packet::{Body, Packet, payload},
    place::Port,
};

const AUTHENTICATION: u8 = 51;

fn udp(family: Family) -> Packet {
    arriving(Port::Uplink, request(family, 0), Body::Udp(payload(30)))
}

/// Eight bytes of padding, but for the next header.
fn padding() -> Vec<u8> {
    vec![0, 1, 4, 0, 0, 0, 0]
}

#[test]
fn options_for_routers_are_left_to_the_stack() -> Result<()> {
    lab(|lab| {
        let mut all = Vec::new();
        for words in 1..=10 {
            all.push(udp(Family::V4).with(|p| p.options = vec![1; 4 * words]));
        }
        for extensions in [
            vec![(HOP_BY_HOP, padding())],
            vec![(HOP_BY_HOP, padding()), (DESTINATION, padding())],
        ] {
            all.push(udp(Family::V6).with(|p| p.extensions = extensions));
        }
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
        }
        for sent in all {
            let family = family_of(&sent);
            let counted = [ToGhost(sent.counted()), GaveUp(Reason::HandedUp)];
            let up = sent.clone().with(|p| p.ends.target = ghost(family));
            let want = Got::handed_up(&up).counting(counter(family, 0), &counted);
            lab.expect("options", Port::Uplink, &sent.bytes(), &want);
        }
        Ok(())
    })
}

fn family_of(packet: &Packet) -> Family {
    match packet.ends.source {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

#[test]
fn extension_headers_for_the_target_go_along() -> Result<()> {
    lab(|lab| {
        lab.serve(Family::V6, 0, ghost(Family::V6))?;
        let mut long = vec![1, 1, 12];
        long.resize(15, 0);
        let mut authentication = vec![4];
        authentication.resize(23, 7);
        for extensions in [
            vec![(DESTINATION, padding())],
            vec![(DESTINATION, long)],
            vec![(ROUTING, vec![0, 253, 0, 0, 0, 0, 0])],
            vec![(AUTHENTICATION, authentication)],
            vec![(DESTINATION, padding()); 6],
        ] {
            let sent = udp(Family::V6).with(|p| p.extensions = extensions);
            let to_ghost = sent.clone().with(|p| p.ends.target = ghost(Family::V6));
            let want = Got::redirected(&departing(to_ghost, Port::Wide))
                .counting(counter(Family::V6, 0), &[ToGhost(sent.counted())]);
            lab.expect("extensions", Port::Uplink, &sent.bytes(), &want);
        }
        Ok(())
    })
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_ones() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let to_ghost = |word: u16| {
                udp(family).with(|p| {
                    p.body = Body::Udp(word.to_be_bytes().into());
                    p.ends.target = ghost(family);
                })
            };
            let word = (0..=u16::MAX)
                .find(|&word| to_ghost(word).segment()[6..8] == [0xff; 2])
                .context("one of all words does it")?;
            let sent = udp(family).with(|p| p.body = Body::Udp(word.to_be_bytes().into()));
            let want = Got::redirected(&departing(to_ghost(word), Port::Wide))
                .counting(counter(family, 0), &[ToGhost(sent.counted())]);
            lab.expect("zero", Port::Uplink, &sent.bytes(), &want);
        }
        Ok(())
    })
}

#[test]
fn a_source_that_no_router_forwards_passes_untouched() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
        }
        for source in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
        ] {
            let source: IpAddr = source.parse()?;
            let family = if source.is_ipv4() {
                Family::V4
            } else {
                Family::V6
            };
            let sent = udp(family).with(|p| p.ends.source = source).bytes();
            lab.expect("source", Port::Uplink, &sent, &Got::untouched(&sent));
        }
        Ok(())
    })
}

#[test]
fn what_never_crosses_a_router_passes_untouched() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
        }
        for kind in (130..=137).chain([143, 153]) {
            let sent = udp(Family::V6)
                .with(|p| p.body = Body::Icmp([kind, 0], [0; 4], payload(16)))
                .bytes();
            lab.expect("discovery", Port::Uplink, &sent, &Got::untouched(&sent));
        }
        let mut arp = udp(Family::V4).bytes();
        arp[12..14].copy_from_slice(&[8, 6]);
        lab.expect("arp", Port::Uplink, &arp, &Got::untouched(&arp));
        Ok(())
    })
}

#[test]
fn what_no_route_names_passes_untouched() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            let before = udp(family).bytes();
            lab.expect("no routes", Port::Uplink, &before, &Got::untouched(&before));
            lab.serve(family, 0, ghost(family))?;
            for body in [
                Body::Udp(payload(3)),
                Body::Tcp(2, Vec::new()),
                Body::Echo(payload(4)),
            ] {
                let sent = arriving(Port::Uplink, request(family, 1), body).bytes();
                lab.expect("another", Port::Uplink, &sent, &Got::untouched(&sent));
            }
        }
        Ok(())
    })
}
