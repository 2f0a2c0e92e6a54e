//! Which flow a frame belongs to, read as plainly as can be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    build::{DESTINATION, FRAGMENT, HOP_BY_HOP, ICMP, ICMP_V6, ROUTING, TCP, UDP},
    compare::{is_error, network},
};
use crate::topology::Family;

/// Addresses, protocol and ports; for echoes the identifier is the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuple {
    source: IpAddr,
    target: IpAddr,
    pub(super) protocol: u8,
    ports: (u16, u16),
}

impl Tuple {
    pub(super) fn reversed(self) -> Self {
        Self {
            source: self.target,
            target: self.source,
            protocol: self.protocol,
            ports: (self.ports.1, self.ports.0),
        }
    }

    /// The same flow with the service's address translated.
    pub(super) fn at_ghost(self) -> Self {
        let moved = |address: IpAddr| {
            Family::BOTH
                .into_iter()
                .find(|family| family.service() == address)
                .map_or(address, Family::ghost)
        };
        Self {
            target: moved(self.target),
            ..self
        }
    }
}

/// The flow of a frame's own packet.
pub(super) fn tuple(frame: &[u8]) -> Option<Tuple> {
    let (_, ip) = network(frame)?;
    of_packet(frame.get(ip..)?)
}

/// The flow of the packet that an ICMP error quotes.
pub(super) fn quoted_tuple(frame: &[u8]) -> Option<Tuple> {
    if !is_error(frame) {
        return None;
    }
    let (kind, ip) = network(frame)?;
    let head = match kind {
        0x0800 => usize::from(frame.get(ip)? & 0x0f) * 4,
        _ => 40,
    };
    of_packet(frame.get(ip + head + 8..)?)
}

fn of_packet(packet: &[u8]) -> Option<Tuple> {
    let address_v4 = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes).into())
    };
    let address_v6 = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes).into())
    };
    let (source, target, protocol, l4) = match packet.first()? >> 4 {
        4 => {
            let head = usize::from(packet[0] & 0x0f) * 4;
            (address_v4(12)?, address_v4(16)?, *packet.get(9)?, head)
        }
        6 => {
            let (mut protocol, mut at) = (*packet.get(6)?, 40);
            while matches!(protocol, HOP_BY_HOP | DESTINATION | ROUTING | FRAGMENT) {
                let length = match protocol {
                    FRAGMENT => 8,
                    _ => (usize::from(*packet.get(at + 1)?) + 1) * 8,
                };
                protocol = *packet.get(at)?;
                at += length;
            }
            (address_v6(8)?, address_v6(24)?, protocol, at)
        }
        _ => return None,
    };
    let word = |at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?))
    };
    let ports = match protocol {
        TCP | UDP => (word(l4)?, word(l4 + 2)?),
        ICMP | ICMP_V6 => (word(l4 + 4)?, word(l4 + 4)?),
        _ => (0, 0),
    };
    Some(Tuple {
        source,
        target,
        protocol,
        ports,
    })
}
