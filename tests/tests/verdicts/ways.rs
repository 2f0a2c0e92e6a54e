//! Every way out of the router, and every reason not to take it.

use agent_common::abi::{EGRESS_SLOTS, Reason, names};
use anyhow::Result;
use ghostd_tests::{bpf::XDP_TX, topology::Family};

use crate::{
    lab::{Got, Tally::*, arriving, client, counter, departing, ghost, lab, request, service},
    packet::{Body, ONE_TAG, Packet, THREE_TAGS, TWO_TAGS, payload},
    place::{Port, REFUSALS, STRANGER, at, refused},
};

/// What the client sends to the service in `slot`, of every kind.
fn requests(family: Family, slot: u32) -> Vec<Packet> {
    [
        Body::Udp(payload(33)),
        Body::BareUdp(payload(8)),
        Body::Tcp(0x18, payload(100)),
        Body::Tcp(0x02, Vec::new()),
        Body::Echo(payload(56)),
        // ICMP of another kind: an experiment (RFC 4727), and 41 as well.
        Body::Icmp([200, 3], [1, 2, 3, 4], payload(12)),
        // UDP-Lite has its checksum where UDP has it.
        Body::Other(136, udp_lite(family, slot)),
        // A protocol without anything that we know.
        Body::Other(132, payload(21)),
        Body::Other(47, Vec::new()),
    ]
    .map(|body| arriving(Port::Uplink, request(family, slot), body))
    .into()
}

fn udp_lite(family: Family, slot: u32) -> Vec<u8> {
    Packet::new(request(family, slot), Body::Udp(payload(5))).segment()
}

/// The packet when it says `target`. UDP-Lite's checksum is made with UDP's
/// protocol number before and after, so its difference is right.
fn for_target(packet: &Packet, target: std::net::IpAddr) -> Packet {
    packet.clone().with(|p| {
        p.ends.target = target;
        if let Body::Other(136, bytes) = &mut p.body {
            *bytes = Packet::new(p.ends, Body::Udp(payload(5))).segment();
        }
    })
}

#[test]
fn a_request_is_sent_to_the_ghost() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for sent in requests(family, 0) {
                let out = departing(for_target(&sent, ghost(family)), Port::Wide);
                let want =
                    Got::redirected(&out).counting(counter(family, 0), &[ToGhost(sent.counted())]);
                lab.expect("to the ghost", Port::Uplink, &sent.bytes(), &want);
            }
        }
        Ok(())
    })
}
