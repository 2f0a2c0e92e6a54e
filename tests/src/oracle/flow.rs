//! One client talking to the service, and the frames either end would send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Leaf, Rng,
    build::{self, Ends, V4, V6},
    lane::Lane,
};
use crate::topology::{
    CLIENT_MAC, Family, GHOST_MAC, GHOST_PORT_MAC, PRIMARY_MAC, PRIMARY_PORT_MAC, UPLINK_MAC,
};

/// Network layer, chosen at random once per packet.
#[derive(Debug, Clone)]
pub(super) struct L3 {
    pub v4: V4,
    pub v6: V6,
}

impl L3 {
    pub(super) fn random(rng: &mut Rng) -> Self {
        let ttl = *rng.pick(&[2, 3, 64, 64, 64, 128, 255]);
        Self {
            v4: V4 {
                tos: *rng.pick(&[0, 0, 0x10, 0xb8, 0xff]),
                id: rng.u16(),
                dont_fragment: rng.one_in(2),
                more_fragments: false,
                offset: 0,
                ttl,
                options: Vec::new(),
            },
            v6: V6 {
                traffic_class: *rng.pick(&[0, 0, 0xb8]),
                flow_label: rng.u32() & 0xf_ffff,
                hop_limit: ttl,
                extensions: Vec::new(),
            },
        }
    }

    pub(super) fn with_ttl(mut self, ttl: u8) -> Self {
        self.v4.ttl = ttl;
        self.v6.hop_limit = ttl;
        self
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub family: Family,
    pub lane: Lane,
    /// Client to service, as on the client's cable.
    pub request: Ends,
}

impl Flow {
    /// The `n`th flow: no two share a client's address and port.
    pub(super) fn nth(n: u64, family: Family, lane: Lane, rng: &mut Rng) -> Self {
        let source = host_of(family, lane, 1 + (n % 250) as u8);
        let target_port = match rng.below(4) {
            0 => 53,
            1 => 443,
            _ => 1 + rng.u16() % 65_000,
        };
        Self {
            family,
            lane,
            request: Ends {
                source,
                target: family.service(),
                source_port: (1_024 + n / 250 % 64_000) as u16,
                target_port,
            },
        }
    }

    /// The same request as on the ghost's cable.
    pub(super) fn at_ghost(self) -> Ends {
        Ends {
            target: self.family.ghost(),
            ..self.request
        }
    }

    /// A router on the client's side, from which errors may come.
    pub(super) fn router(self) -> IpAddr {
        host_of(self.family, self.lane, 254)
    }

    /// Identifier and sequence number of an echo.
    pub(super) fn echo_word(self, sequence: [u8; 2]) -> [u8; 4] {
        let [high, low] = self.request.source_port.to_be_bytes();
        [high, low, sequence[0], sequence[1]]
    }

    pub(super) fn icmp_protocol(self) -> u8 {
        match self.family {
            Family::V4 => build::ICMP,
            Family::V6 => build::ICMP_V6,
        }
    }
}

/// A host in the network of a lane's clients.
fn host_of(family: Family, lane: Lane, last: u8) -> IpAddr {
    let (third, group) = lane.subnet();
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, third, last).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, group, 0, 0, 0, 0, last.into()).into(),
    }
}

/// An IP packet between two addresses of one family.
pub(super) fn packet(ends: Ends, l3: &L3, protocol: u8, segment: &[u8]) -> Vec<u8> {
    match (ends.source, ends.target) {
        (IpAddr::V4(s), IpAddr::V4(t)) => build::ipv4(s, t, &l3.v4, protocol, segment),
        (IpAddr::V6(s), IpAddr::V6(t)) => build::ipv6(s, t, &l3.v6, protocol, segment),
        _ => unreachable!("a flow has one family"),
    }
}

/// The untagged frame around a packet that leaves `from`.
pub(super) fn frame(from: Leaf, packet: &[u8]) -> Vec<u8> {
    let (to, own) = match from {
        Leaf::Client => (UPLINK_MAC, CLIENT_MAC),
        Leaf::Primary => (PRIMARY_PORT_MAC, PRIMARY_MAC),
        Leaf::Ghost => (GHOST_PORT_MAC, GHOST_MAC),
    };
    build::ethernet(to, own, packet)
}
