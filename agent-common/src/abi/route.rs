//! Routes: service addresses and where their packets may go.

/// Key of `gd_routes_v4` and `gd_reverse_v4`.
///
/// An address route has protocol and port zero; a port route has both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct RouteKeyV4 {
    pub addr_be: [u8; 4],
    pub port_be: [u8; 2],
    pub protocol: u8,
    pub pad: u8,
}

/// Key of `gd_routes_v6` and `gd_reverse_v6`; see [`RouteKeyV4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct RouteKeyV6 {
    pub addr_be: [u8; 16],
    pub port_be: [u8; 2],
    pub protocol: u8,
    pub pad: u8,
}

/// What happens to a packet for one side of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TargetKind {
    /// The side owns the service address itself: the packet goes on untouched.
    Native = 1,
    /// The destination is rewritten.
    Translate = 2,
    /// The side owns the service address too, behind another next hop: the
    /// packet stays as it is, and goes the way to this address. What holds a
    /// copy of the same machine cannot have an address of its own.
    Via = 3,
}

impl TargetKind {
    /// Anything else leaves a packet untouched.
    #[inline(always)]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Native),
            2 => Some(Self::Translate),
            3 => Some(Self::Via),
            _ => None,
        }
    }
}

/// One side of a [`RouteV4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct TargetV4 {
    pub addr_be: [u8; 4],
    /// Zero for an address route, and for [`TargetKind::Via`].
    pub port_be: [u8; 2],
    /// A [`TargetKind`] tag.
    pub kind: u8,
    pub pad: u8,
}

/// One side of a [`RouteV6`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct TargetV6 {
    pub addr_be: [u8; 16],
    /// Zero for an address route, and for [`TargetKind::Via`].
    pub port_be: [u8; 2],
    /// A [`TargetKind`] tag.
    pub kind: u8,
    pub pad: u8,
}

/// Value of `gd_routes_v4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct RouteV4 {
    /// Slot in `gd_switches`.
    pub switch: u32,
    /// Slot in `gd_counters`.
    pub counter: u32,
    pub primary: TargetV4,
    pub ghost: TargetV4,
}

/// Value of `gd_routes_v6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct RouteV6 {
    /// Slot in `gd_switches`.
    pub switch: u32,
    /// Slot in `gd_counters`.
    pub counter: u32,
    pub primary: TargetV6,
    pub ghost: TargetV6,
}

/// Value of `gd_reverse_v4`: keyed by the address (and port) of a side, gives
/// the service address its packets are to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct ReverseV4 {
    pub switch: u32,
    pub counter: u32,
    pub service_be: [u8; 4],
    /// Zero for an address route.
    pub port_be: [u8; 2],
    /// A [`super::Side`] tag: whose packets these are.
    pub side: u8,
    pub pad: u8,
}

/// Value of `gd_reverse_v6`; see [`ReverseV4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct ReverseV6 {
    pub switch: u32,
    pub counter: u32,
    pub service_be: [u8; 16],
    /// Zero for an address route.
    pub port_be: [u8; 2],
    /// A [`super::Side`] tag: whose packets these are.
    pub side: u8,
    pub pad: [u8; 5],
}

/// 64-bit words in `gd_filter`: one million bits, so that 100,000 routes
/// leave nine of ten foreign packets without a hash look-up.
pub const FILTER_WORDS: u32 = 1 << 14;

/// A position in `gd_filter`, the bitmap that tells most foreign packets
/// apart before any hash look-up. A clear bit means "no route"; a set bit
/// means "look".
///
/// Each key of a route table or a reverse table has its bits set ([`Self::of_v4`],
/// [`Self::of_v6`]) before it is inserted; bits are cleared only by storing a whole new word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    pub word: u32,
    pub mask: u64,
}

impl Filter {
    #[inline(always)]
    pub const fn v4(addr_be: [u8; 4]) -> Self {
        Self::at(u32::from_ne_bytes(addr_be))
    }

    #[inline(always)]
    pub const fn v6(addr_be: [u8; 16]) -> Self {
        let a = addr_be;
        let w0 = u32::from_ne_bytes([a[0], a[1], a[2], a[3]]);
        let w1 = u32::from_ne_bytes([a[4], a[5], a[6], a[7]]);
        let w2 = u32::from_ne_bytes([a[8], a[9], a[10], a[11]]);
        let w3 = u32::from_ne_bytes([a[12], a[13], a[14], a[15]]);
        Self::v6w([w0, w1, w2, w3])
    }

    /// As [`Self::v6`], over the address's raw words.
    #[inline(always)]
    pub const fn v6w(w: [u32; 4]) -> Self {
        // Rotations keep simple patterns of prefixes and interface ids from
        // cancelling each other out.
        Self::at(w[0] ^ w[1].rotate_left(7) ^ w[2].rotate_left(15) ^ w[3].rotate_left(23))
    }

    /// The second bit that a port route sets, beside its address's.
    #[inline(always)]
    #[must_use]
    pub const fn with_port(addr_word: u32, port_be: [u8; 2], protocol: u8) -> Self {
        let l4 = (u16::from_ne_bytes(port_be) as u32) << 8 | protocol as u32;
        Self::at(addr_word.wrapping_mul(0x85eb_ca6b) ^ l4.wrapping_mul(0xc2b2_ae35))
    }

    /// All bits of an IPv4 key.
    pub const fn of_v4(key: &RouteKeyV4) -> [Self; 2] {
        let addr = Self::v4(key.addr_be);
        if key.protocol == 0 {
            return [addr, addr];
        }
        [
            addr,
            Self::with_port(u32::from_ne_bytes(key.addr_be), key.port_be, key.protocol),
        ]
    }

    /// All bits of an IPv6 key.
    pub const fn of_v6(key: &RouteKeyV6) -> [Self; 2] {
        let addr = Self::v6(key.addr_be);
        if key.protocol == 0 {
            return [addr, addr];
        }
        let a = key.addr_be;
        let last = u32::from_ne_bytes([a[12], a[13], a[14], a[15]]);
        [addr, Self::with_port(last, key.port_be, key.protocol)]
    }

    /// Fibonacci hashing (Knuth, TAOCP 6.4): the top bits of a product.
    #[inline(always)]
    const fn at(x: u32) -> Self {
        let bits = FILTER_WORDS.trailing_zeros() + 6;
        let index = x.wrapping_mul(0x9e37_79b1) >> (32 - bits);
        Self {
            word: index >> 6,
            mask: 1 << (index & 63),
        }
    }
}
