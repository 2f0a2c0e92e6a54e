//! The frames that are measured: small, and as most traffic is.

use std::net::IpAddr;

use crate::{
    oracle::build::{self, Ends, Tcp, V4, V6, tcp_flags},
    topology::{CLIENT_MAC, UPLINK_MAC},
};

/// Hop limit of every frame: the most there is, as each translation takes one.
pub(super) const TTL: u8 = 255;

const PAYLOAD: [u8; 22] = *b"benchmark of the daemo";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum L4 {
    Tcp,
    Udp,
}

/// A frame as it comes in by the uplink.
pub(super) fn frame(l4: L4, from: (IpAddr, u16), to: (IpAddr, u16)) -> Vec<u8> {
    let ends = Ends {
        source: from.0,
        target: to.0,
        source_port: from.1,
        target_port: to.1,
    };
    let (protocol, segment) = match l4 {
        L4::Udp => (build::UDP, build::udp(ends, &PAYLOAD, false)),
        L4::Tcp => {
            let header = Tcp {
                sequence: 1,
                acknowledged: 1,
                flags: tcp_flags::ACK,
                options: Vec::new(),
            };
            (build::TCP, build::tcp(ends, &header, &PAYLOAD))
        }
    };
    let packet = match (from.0, to.0) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let header = V4 {
                tos: 0,
                id: 1,
                dont_fragment: true,
                more_fragments: false,
                offset: 0,
                ttl: TTL,
                options: Vec::new(),
            };
            build::ipv4(source, target, &header, protocol, &segment)
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let header = V6 {
                traffic_class: 0,
                flow_label: 0,
                hop_limit: TTL,
                extensions: Vec::new(),
            };
            build::ipv6(source, target, &header, protocol, &segment)
        }
        _ => unreachable!("both ends of a packet are of one family"),
    };
    build::ethernet(UPLINK_MAC, CLIENT_MAC, &packet)
}

/// Where the hop limit is.
pub(super) fn ttl_of(frame: &[u8]) -> Option<u8> {
    let v6 = frame.get(14)? >> 4 == 6;
    frame.get(if v6 { 21 } else { 22 }).copied()
}
