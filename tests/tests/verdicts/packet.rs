//! Frames as data: what is sent and what is expected are built from the same
//! description, each from nothing, with every checksum computed in full.

use std::net::IpAddr;

use ghostd_tests::oracle::build::{self, Ends, FRAGMENT, ICMP, ICMP_V6, TCP, Tcp, UDP};

/// VLAN tags: their type, and what they say.
pub(crate) const ONE_TAG: &[[u16; 2]] = &[[0x8100, 0x2065]];
pub(crate) const TWO_TAGS: &[[u16; 2]] = &[[0x88a8, 0x0007], [0x8100, 0x2065]];
pub(crate) const THREE_TAGS: &[[u16; 2]] = &[[0x88a8, 1], [0x8100, 2], [0x8100, 3]];

/// What is above the network header.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Udp(Vec<u8>),
    /// Without a checksum.
    BareUdp(Vec<u8>),
    /// Flags and payload.
    Tcp(u8, Vec<u8>),
    /// The source port is the identifier.
    Echo(Vec<u8>),
    /// Type, code, four bytes, and the rest: what an error quotes, say.
    Icmp([u8; 2], [u8; 4], Vec<u8>),
    /// A protocol and its bytes.
    Other(u8, Vec<u8>),
}

/// A part of a datagram: where it starts, its length, and whether more follows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    pub(crate) more: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
    pub(crate) tags: &'static [[u16; 2]],
    pub(crate) ends: Ends,
    pub(crate) ttl: u8,
    /// Type of service, or traffic class.
    pub(crate) tos: u8,
    /// Of a datagram, for IPv4; of a fragmented one, for IPv6.
    pub(crate) identification: u16,
    /// IPv4 only.
    pub(crate) dont_fragment: bool,
    /// IPv6 only.
    pub(crate) flow_label: u32,
    /// IPv4 options.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) part: Option<Part>,
    pub(crate) body: Body,
    /// Bytes after the packet.
    pub(crate) padding: usize,
}

impl Packet {
    /// A plain packet. What is not said here is changed by the caller.
    pub(crate) fn new(ends: Ends, body: Body) -> Self {
        Self {
            to: [0; 6],
            from: [0; 6],
            tags: &[],
            ends,
            ttl: 64,
            tos: 0,
            identification: 0x1234,
            dont_fragment: true,
            flow_label: 0x5_4321,
            options: Vec::new(),
            extensions: Vec::new(),
            part: None,
            body,
            padding: 0,
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Bytes from the Ethernet header to the end of the packet.
    pub(crate) fn counted(&self) -> u64 {
        (self.bytes().len() - self.padding) as u64
    }

    /// Where the network header starts.
    pub(crate) fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Where the headers end: as much as has to be there to tell what it is.
    pub(crate) fn headers(&self) -> usize {
        let part = self.part.map_or(self.segment().len(), |part| part.bytes);
        let least = match self.body {
            _ if self.part.is_some_and(|part| part.offset > 0) => 0,
            Body::Tcp(..) => 20,
            Body::Other(..) => 0,
            _ => 8,
        };
        self.l3() + self.ip().len() - part + least
    }

    /// The whole frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut frame = build::ethernet(self.to, self.from, &self.ip());
        let tags: Vec<u8> = self
            .tags
            .iter()
            .flatten()
            .flat_map(|w| w.to_be_bytes())
            .collect();
        frame.splice(12..12, tags);
        frame.extend((0..self.padding).map(|i| i as u8 ^ 0xa5));
        frame
    }

    /// From the network header on.
    pub(crate) fn ip(&self) -> Vec<u8> {
        let segment = self.segment();
        let part = self.part.unwrap_or(Part {
            offset: 0,
            bytes: segment.len(),
            more: false,
        });
        let payload = &segment[part.offset..part.offset + part.bytes];
        match (self.ends.source, self.ends.target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let header = build::V4 {
                    tos: self.tos,
                    id: self.identification,
                    dont_fragment: self.dont_fragment,
                    more_fragments: part.more,
                    offset: part.offset as u16,
                    ttl: self.ttl,
                    options: self.options.clone(),
                };
                build::ipv4(source, target, &header, self.protocol(), payload)
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let mut extensions = self.extensions.clone();
                if self.part.is_some() {
                    let offset = part.offset as u16 | u16::from(part.more);
                    let mut body = vec![0];
                    body.extend(offset.to_be_bytes());
                    body.extend(u32::from(self.identification).to_be_bytes());
                    extensions.push((FRAGMENT, body));
                }
                let header = build::V6 {
                    traffic_class: self.tos,
                    flow_label: self.flow_label,
                    hop_limit: self.ttl,
                    extensions,
                };
                build::ipv6(source, target, &header, self.protocol(), payload)
            }
            (source, target) => panic!("{source} and {target} do not go together"),
        }
    }

    pub(crate) fn protocol(&self) -> u8 {
        match self.body {
            Body::Udp(_) | Body::BareUdp(_) => UDP,
            Body::Tcp(..) => TCP,
            Body::Echo(_) | Body::Icmp(..) if self.ends.source.is_ipv4() => ICMP,
            Body::Echo(_) | Body::Icmp(..) => ICMP_V6,
            Body::Other(protocol, _) => protocol,
        }
    }

    /// The whole of it, also where only a part is sent.
    pub(crate) fn segment(&self) -> Vec<u8> {
        let ends = self.ends;
        match &self.body {
            Body::Udp(payload) => build::udp(ends, payload, false),
            Body::BareUdp(payload) => build::udp(ends, payload, true),
            Body::Tcp(flags, payload) => {
                let header = Tcp {
                    sequence: 0x0102_0304,
                    acknowledged: 0x0506_0708,
                    flags: *flags,
                    options: Vec::new(),
                };
                build::tcp(ends, &header, payload)
            }
            Body::Echo(payload) => {
                let kind = if ends.source.is_ipv4() { 8 } else { 128 };
                let [hi, lo] = ends.source_port.to_be_bytes();
                build::icmp(ends, kind, 0, [hi, lo, 0, 1], payload)
            }
            Body::Icmp([kind, code], word, rest) => build::icmp(ends, *kind, *code, *word, rest),
            Body::Other(_, bytes) => bytes.clone(),
        }
    }
}

/// Bytes that differ from their neighbours.
pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 + i / 256) as u8).collect()
}

/// As flows and fragments are keyed: IPv4 addresses are IPv4-mapped.
pub(crate) fn mapped(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}
