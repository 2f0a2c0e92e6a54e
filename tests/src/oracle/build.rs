//! Builds frames from their parts, every checksum computed in full.
//!
//! Written to be obviously right, and on purpose without any code of ghostd's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP_V6: u8 = 58;

/// Extension headers.
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const DESTINATION: u8 = 60;

/// The Internet checksum (RFC 1071) of bytes.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)))
        .fold(0, u32::wrapping_add);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// The same over a pseudo header and an L4 segment (RFC 768, RFC 8200 8.1).
pub fn l4_checksum(source: IpAddr, target: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(segment.len() + 40);
    for address in [source, target] {
        match address {
            IpAddr::V4(a) => bytes.extend(a.octets()),
            IpAddr::V6(a) => bytes.extend(a.octets()),
        }
    }
    bytes.extend((segment.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes.extend(segment);
    checksum(&bytes)
}

/// Who talks to whom, seen at the place where the frame is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub source: IpAddr,
    pub target: IpAddr,
    pub source_port: u16,
    pub target_port: u16,
}

impl Ends {
    /// The way back.
    pub fn reversed(self) -> Self {
        Self {
            source: self.target,
            target: self.source,
            source_port: self.target_port,
            target_port: self.source_port,
        }
    }
}

/// A UDP segment; `zero` leaves the checksum out.
pub fn udp(ends: Ends, payload: &[u8], zero: bool) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(ends.source_port.to_be_bytes());
    segment.extend(ends.target_port.to_be_bytes());
    segment.extend((8 + payload.len() as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    if !zero {
        let sum = match l4_checksum(ends.source, ends.target, UDP, &segment) {
            0 => 0xffff,
            sum => sum,
        };
        segment[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    segment
}

/// Bits of a TCP header.
pub mod tcp_flags {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
}

/// What a TCP header says besides its ports.
#[derive(Debug, Clone, Default)]
pub struct Tcp {
    pub sequence: u32,
    pub acknowledged: u32,
    pub flags: u8,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
}

pub fn tcp(ends: Ends, header: &Tcp, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(ends.source_port.to_be_bytes());
    segment.extend(ends.target_port.to_be_bytes());
    segment.extend(header.sequence.to_be_bytes());
    segment.extend(header.acknowledged.to_be_bytes());
    segment.push(((5 + header.options.len() / 4) as u8) << 4);
    segment.push(header.flags);
    segment.extend(64_000_u16.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(&header.options);
    segment.extend(payload);
    let sum = l4_checksum(ends.source, ends.target, TCP, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// An ICMP or ICMPv6 message: type, code, the four bytes after the checksum, the rest.
pub fn icmp(ends: Ends, kind: u8, code: u8, word: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(word);
    message.extend(rest);
    let sum = match ends.source {
        IpAddr::V4(_) => checksum(&message),
        IpAddr::V6(_) => l4_checksum(ends.source, ends.target, ICMP_V6, &message),
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// What an IPv4 header says besides addresses and lengths.
#[derive(Debug, Clone)]
pub struct V4 {
    pub tos: u8,
    pub id: u16,
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// In bytes; a multiple of eight.
    pub offset: u16,
    pub ttl: u8,
    /// A multiple of four bytes, at most forty.
    pub options: Vec<u8>,
}

pub fn ipv4(source: Ipv4Addr, target: Ipv4Addr, header: &V4, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let head = 20 + header.options.len();
    let flags = u16::from(header.dont_fragment) << 14 | u16::from(header.more_fragments) << 13;
    let mut packet = vec![0x40 | (head / 4) as u8, header.tos];
    packet.extend(((head + rest.len()) as u16).to_be_bytes());
    packet.extend(header.id.to_be_bytes());
    packet.extend((flags | (header.offset / 8)).to_be_bytes());
    packet.extend([header.ttl, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(&header.options);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(rest);
    packet
}

/// What an IPv6 header says besides addresses and lengths.
#[derive(Debug, Clone)]
pub struct V6 {
    pub traffic_class: u8,
    pub flow_label: u32,
    pub hop_limit: u8,
    /// Extension headers in order: number, and body without the next-header byte.
    pub extensions: Vec<(u8, Vec<u8>)>,
}

pub fn ipv6(source: Ipv6Addr, target: Ipv6Addr, header: &V6, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let mut chain = Vec::new();
    for (place, (_, body)) in header.extensions.iter().enumerate() {
        let next = header.extensions.get(place + 1).map_or(protocol, |e| e.0);
        chain.push(next);
        chain.extend(body);
    }
    let first = header.extensions.first().map_or(protocol, |e| e.0);
    let word = 6 << 28 | u32::from(header.traffic_class) << 20 | header.flow_label & 0xf_ffff;
    let mut packet = word.to_be_bytes().to_vec();
    packet.extend(((chain.len() + rest.len()) as u16).to_be_bytes());
    packet.extend([first, header.hop_limit]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(chain);
    packet.extend(rest);
    packet
}

/// An untagged Ethernet frame around an IP packet.
pub fn ethernet(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend(from);
    let version = packet.first().map_or(4, |b| b >> 4);
    let kind: u16 = if version == 6 { 0x86dd } else { 0x0800 };
    frame.extend(kind.to_be_bytes());
    frame.extend(packet);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_over_its_own_packet_is_zero() {
        let ends = Ends {
            source: "192.0.2.2".parse().unwrap(),
            target: "198.51.100.10".parse().unwrap(),
            source_port: 1,
            target_port: 2,
        };
        for length in 0..40 {
            let payload: Vec<u8> = (0..length).collect();
            let segment = udp(ends, &payload, false);
            assert_eq!(l4_checksum(ends.source, ends.target, UDP, &segment), 0);
            let segment = tcp(ends, &Tcp::default(), &payload);
            assert_eq!(l4_checksum(ends.source, ends.target, TCP, &segment), 0);
            assert_eq!(checksum(&icmp(ends, 8, 0, [1, 2, 3, 4], &payload)), 0);
        }
    }

    #[test]
    fn the_example_of_rfc_1071_holds() {
        // Section 3: the sum is 0xddf2, the checksum its complement.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&bytes), !0xddf2);
    }
}
