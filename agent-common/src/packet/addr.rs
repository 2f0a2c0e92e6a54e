//! The two address families, raw as they lie in a header.

use super::{Frame, Reverse, Route, Target, checksum::Delta};
use crate::abi::{
    Filter, ReverseV4, ReverseV6, RouteV4, RouteV6, Side, TargetKind, TargetV4, TargetV6,
};

/// An address as it lies in a header.
pub trait Addr: Copy + PartialEq + 'static {
    type RouteRow: Route<Self>;
    type ReverseRow: Reverse<Self>;
    const ZERO: Self;
    /// The Ethernet type of its packets, raw.
    const ETHERTYPE_RAW: u16;
    /// The ICMP protocol number of its family.
    const ICMP: u8;
    fn load<F: Frame>(frame: &F, offset: usize) -> Option<Self>;
    fn store<F: Frame>(self, frame: &mut F, offset: usize) -> Option<()>;
    /// What changing `self` to `new` does to a checksum.
    fn delta(self, new: Self) -> Delta;
    /// IPv4 addresses are IPv4-mapped.
    fn mapped(self) -> [u8; 16];
    fn filter(self) -> Filter;
    /// The second filter bit of a port route.
    fn port_filter(self, port_raw: u16, protocol: u8) -> Filter;
    /// Whether a router may forward a packet from this address
    /// (net/ipv4/route.c `ip_route_input_slow`, net/ipv6/ip6_output.c `ip6_forward`).
    fn may_be_source(self) -> bool;
}

/// An IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct V4(pub [u8; 4]);

/// An IPv6 address, in words because that is how it is compared and summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct V6(pub [u32; 4]);

impl V4 {
    #[inline(always)]
    const fn word(self) -> u32 {
        u32::from_ne_bytes(self.0)
    }
}

// Transmutes, because the compiler for BPF makes a byte by byte affair, and a
// large stack frame, of anything else.
#[allow(unsafe_code)]
impl V6 {
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        // SAFETY: same size, all bit patterns are valid.
        Self(unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(bytes) })
    }

    #[inline(always)]
    pub const fn bytes(self) -> [u8; 16] {
        // SAFETY: as above.
        unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(self.0) }
    }
}

impl Addr for V4 {
    type RouteRow = RouteV4;
    type ReverseRow = ReverseV4;
    const ZERO: Self = Self([0; 4]);
    const ETHERTYPE_RAW: u16 = super::ETHERTYPE_IPV4.to_be();
    const ICMP: u8 = 1;

    #[inline(always)]
    fn load<F: Frame>(frame: &F, offset: usize) -> Option<Self> {
        Some(Self(frame.get::<u32>(offset)?.to_ne_bytes()))
    }

    #[inline(always)]
    fn store<F: Frame>(self, frame: &mut F, offset: usize) -> Option<()> {
        frame.set(offset, self.word())
    }

    #[inline(always)]
    fn delta(self, new: Self) -> Delta {
        Delta::NONE.u32(self.word(), new.word())
    }

    #[inline(always)]
    fn mapped(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
    }

    #[inline(always)]
    fn filter(self) -> Filter {
        Filter::v4(self.0)
    }

    #[inline(always)]
    fn port_filter(self, port_raw: u16, protocol: u8) -> Filter {
        Filter::with_port(self.word(), port_raw.to_ne_bytes(), protocol)
    }

    #[inline(always)]
    fn may_be_source(self) -> bool {
        let first = self.0[0];
        first != 0 && first != 127 && first < 224
    }
}

impl Addr for V6 {
    type RouteRow = RouteV6;
    type ReverseRow = ReverseV6;
    const ZERO: Self = Self([0; 4]);
    const ETHERTYPE_RAW: u16 = super::ETHERTYPE_IPV6.to_be();
    const ICMP: u8 = 58;

    #[inline(always)]
    fn load<F: Frame>(frame: &F, offset: usize) -> Option<Self> {
        frame.words(offset).map(Self)
    }

    #[inline(always)]
    fn store<F: Frame>(self, frame: &mut F, offset: usize) -> Option<()> {
        frame.set_words(offset, self.0)
    }

    #[inline(always)]
    fn delta(self, new: Self) -> Delta {
        Delta::NONE
            .u32(self.0[0], new.0[0])
            .u32(self.0[1], new.0[1])
            .u32(self.0[2], new.0[2])
            .u32(self.0[3], new.0[3])
    }

    #[inline(always)]
    fn mapped(self) -> [u8; 16] {
        self.bytes()
    }

    #[inline(always)]
    fn filter(self) -> Filter {
        Filter::v6w(self.0)
    }

    #[inline(always)]
    fn port_filter(self, port_raw: u16, protocol: u8) -> Filter {
        Filter::with_port(self.0[3], port_raw.to_ne_bytes(), protocol)
    }

    #[inline(always)]
    fn may_be_source(self) -> bool {
        let first = self.0[0].to_ne_bytes();
        let multicast = first[0] == 0xff;
        let link_local = first[0] == 0xfe && first[1] & 0xc0 == 0x80;
        // ::/127: unspecified and loopback.
        let low = self.0[0] | self.0[1] | self.0[2] == 0 && u32::from_be(self.0[3]) <= 1;
        !(multicast || link_local || low)
    }
}

macro_rules! rows {
    ($addr:ident, $route:ident, $reverse:ident, $target:ident, $new:expr) => {
        impl Route<$addr> for $route {
            #[inline(always)]
            fn switch(&self) -> u32 {
                self.switch
            }
            #[inline(always)]
            fn counter(&self) -> u32 {
                self.counter
            }
            #[inline(always)]
            fn target(&self, side: Side) -> Target<$addr> {
                let target: &$target = match side {
                    Side::Primary => &self.primary,
                    Side::Ghost => &self.ghost,
                };
                Target {
                    kind: TargetKind::from_tag(target.kind).unwrap_or(TargetKind::Native),
                    addr: $new(target.addr_be),
                    port_raw: u16::from_ne_bytes(target.port_be),
                }
            }
        }

        impl Reverse<$addr> for $reverse {
            #[inline(always)]
            fn switch(&self) -> u32 {
                self.switch
            }
            #[inline(always)]
            fn counter(&self) -> u32 {
                self.counter
            }
            #[inline(always)]
            fn service(&self) -> $addr {
                $new(self.service_be)
            }
            #[inline(always)]
            fn port_raw(&self) -> u16 {
                u16::from_ne_bytes(self.port_be)
            }
            #[inline(always)]
            fn side(&self) -> Side {
                if self.side == Side::Ghost as u8 {
                    Side::Ghost
                } else {
                    Side::Primary
                }
            }
        }
    };
}

rows!(V4, RouteV4, ReverseV4, TargetV4, V4);
rows!(V6, RouteV6, ReverseV6, TargetV6, V6::from_bytes);
