//! Packets that are not what they say: they pass untouched, and the address's
//! route is charged.

use agent_common::abi::Reason;
use anyhow::Result;
use ghostd_tests::{
    oracle::build::{DESTINATION, checksum},
    topology::Family,
};

use crate::{
    lab::{Got, Lab, Tally::*, arriving, counter, ghost, lab, request},
    packet::{Body, Packet, TWO_TAGS, payload},
    place::Port,
};

fn sent(family: Family, body: Body) -> Packet {
    arriving(Port::Uplink, request(family, 0), body)
}

/// The frame after `change` of its network header and what follows.
fn broken(packet: &Packet, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut frame = packet.bytes();
    change(&mut frame[packet.l3()..]);
    frame
}

/// As [`broken`], with the checksum of an IPv4 header made right again.
fn mended(packet: &Packet, change: impl Fn(&mut [u8])) -> Vec<u8> {
    broken(packet, |ip| {
        change(ip);
        if ip[0] >> 4 == 4 {
            let head = (usize::from(ip[0] & 15) * 4).clamp(20, ip.len());
            ip[10..12].fill(0);
            let sum = checksum(&ip[..head]).to_be_bytes();
            ip[10..12].copy_from_slice(&sum);
        }
    })
}

fn expect_malformed(lab: &Lab, family: Family, what: &str, frame: &[u8]) {
    let want = Got::untouched(frame).counting(counter(family, 0), &[GaveUp(Reason::Malformed)]);
    lab.expect(what, Port::Uplink, frame, &want);
}

#[test]
fn ipv4_headers() -> Result<()> {
    lab(|lab| {
        let v4 = Family::V4;
        lab.serve(v4, 0, ghost(v4))?;
        for tags in [&[][..], TWO_TAGS] {
            let udp = sent(v4, Body::Udp(payload(40))).with(|p| p.tags = tags);
            let length = udp.ip().len() as u16;
            for version in [0, 5, 6, 15] {
                let frame = mended(&udp, |ip| ip[0] = version << 4 | 5);
                // The checksum of what is no IPv4 header is not mended.
                expect_malformed(lab, v4, "version", &frame);
            }
            for words in 0..5 {
                expect_malformed(lab, v4, "short", &mended(&udp, |ip| ip[0] = 0x40 | words));
            }
            for total in (0..20).chain([length + 1, 1500, 0xffff]) {
                let change = |ip: &mut [u8]| ip[2..4].copy_from_slice(&total.to_be_bytes());
                expect_malformed(lab, v4, "total length", &mended(&udp, change));
            }
            for byte in 0..20 {
                let frame = broken(&udp, |ip| ip[byte] ^= 1);
                // A changed address is another service, and charges nobody.
                if byte < 16 {
                    expect_malformed(lab, v4, "checksum", &frame);
                } else {
                    lab.expect("address", Port::Uplink, &frame, &Got::untouched(&frame));
                }
            }
            let long = udp.clone().with(|p| p.body = Body::Udp(Vec::new()));
            let change = |ip: &mut [u8]| ip[0] = 0x4f;
            expect_malformed(lab, v4, "options past the end", &mended(&long, change));
        }
        Ok(())
    })
}

#[test]
fn ipv6_headers() -> Result<()> {
    lab(|lab| {
        let v6 = Family::V6;
        lab.serve(v6, 0, ghost(v6))?;
        for tags in [&[][..], TWO_TAGS] {
            let udp = sent(v6, Body::Udp(payload(40))).with(|p| p.tags = tags);
            for version in [0, 4, 7, 15] {
                expect_malformed(lab, v6, "version", &broken(&udp, |ip| ip[0] = version << 4));
            }
            for length in [49, 1000, 0xffd7, 0xffd8, 0xffff_u16] {
                let change = |ip: &mut [u8]| ip[4..6].copy_from_slice(&length.to_be_bytes());
                expect_malformed(lab, v6, "payload length", &broken(&udp, change));
            }
            expect_malformed(lab, v6, "no next header", &broken(&udp, |ip| ip[6] = 59));
            let pad = |count| vec![(DESTINATION, vec![0, 1, 4, 0, 0, 0, 0]); count];
            let chain = udp.clone().with(|p| p.extensions = pad(7));
            expect_malformed(lab, v6, "seven extension headers", &chain.bytes());
            let last = udp.clone().with(|p| p.extensions = pad(2));
            for units in [6, 7, 200, 255] {
                let frame = broken(&last, |ip| ip[49] = units);
                expect_malformed(lab, v6, "extension past the end", &frame);
            }
            let frame = broken(&last, |ip| ip[48] = 59);
            expect_malformed(lab, v6, "nothing follows", &frame);
        }
        Ok(())
    })
}

/// A transport header that does not fit its packet, which itself is in order.
#[test]
fn transport_headers_cut_at_each_length() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for (body, least) in [
                (Body::Tcp(0x10, Vec::new()), 20),
                (Body::Udp(Vec::new()), 8),
                (Body::Echo(Vec::new()), 8),
                (Body::Icmp([200, 0], [0; 4], Vec::new()), 8),
            ] {
                let whole = sent(family, body);
                let segment = whole.segment();
                assert_eq!(segment.len(), least);
                for bytes in 0..least {
                    let cut = segment[..bytes].to_vec();
                    let packet = sent(family, Body::Other(whole.protocol(), cut));
                    expect_malformed(lab, family, "cut", &packet.bytes());
                }
            }
        }
        Ok(())
    })
}

#[test]
fn transport_lengths() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let tcp = sent(family, Body::Tcp(0x10, payload(8)));
            let head = tcp.ip().len() - tcp.segment().len();
            // 20 bytes of header, 8 of payload.
            for words in (0..5).chain(8..16_u8) {
                let frame = broken(&tcp, |ip| ip[head + 12] = words << 4);
                expect_malformed(lab, family, "TCP header length", &frame);
            }
            let udp = sent(family, Body::Udp(payload(8)));
            for length in (0..8).chain(17..40).chain([0xffff_u16]) {
                let change =
                    |ip: &mut [u8]| ip[head + 4..head + 6].copy_from_slice(&length.to_be_bytes());
                expect_malformed(lab, family, "UDP length", &broken(&udp, change));
            }
        }
        Ok(())
    })
}

/// Only the address's own route can be charged: of a packet cut short nobody
/// knows the port.
#[test]
fn a_malformed_packet_for_no_route_of_the_address_charges_nobody() -> Result<()> {
    use crate::{
        lab::service,
        rows::{Key, Target},
    };
    lab(|lab| {
        for family in Family::BOTH {
            let key = Key::port(service(family, 0), 17, 443);
            let to = Key::port(ghost(family), 17, 8443);
            lab.route(family, 0, key, [Target::Native, Target::Translate(to)])?;
            let mut frame = sent(family, Body::Udp(payload(8))).bytes();
            frame.pop();
            lab.expect("port route", Port::Uplink, &frame, &Got::untouched(&frame));
        }
        Ok(())
    })
}
