//! Flows and fragments: the only per-connection state there is, both bounded LRU.

/// Key of `gd_flows`: a flow as the client sees it.
///
/// IPv4 addresses are IPv4-mapped (`::ffff:a.b.c.d`). For ICMP echo both
/// ports hold the identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct FlowKey {
    pub client_be: [u8; 16],
    pub service_be: [u8; 16],
    pub client_port_be: [u8; 2],
    pub service_port_be: [u8; 2],
    pub protocol: u8,
    pub pad: [u8; 3],
}

/// Value of `gd_flows`: a flow that the ghost owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Flow {
    /// CLOCK_MONOTONIC time of the last packet in ns.
    pub last_ns: u64,
    /// Slot in `gd_switches`.
    pub switch: u32,
    /// Bits: 1 the client sent FIN, 2 the service sent FIN, 4 reset.
    pub ended: u8,
    pub pad: [u8; 3],
}

impl Flow {
    pub const FIN_CLIENT: u8 = 1;
    pub const FIN_SERVICE: u8 = 2;
    pub const RESET: u8 = 4;

    /// Both sides have said FIN, or one RST.
    #[inline(always)]
    pub const fn closed(&self) -> bool {
        self.ended & Self::RESET != 0
            || self.ended & (Self::FIN_CLIENT | Self::FIN_SERVICE)
                == Self::FIN_CLIENT | Self::FIN_SERVICE
    }
}

/// Slots of `gd_recent`, per CPU; direct-mapped by flow.
pub const RECENT_SLOTS: u32 = 1024;

/// Value of `gd_recent`: a flow that this CPU has looked up a moment ago, and
/// need not look up again before `until_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Recent {
    pub key: FlowKey,
    /// CLOCK_MONOTONIC (coarse) in ns; zero in an unused slot.
    pub until_ns: u64,
    pub pad: [u64; 2],
}

impl Recent {
    /// Where a flow's slot is.
    #[inline(always)]
    pub const fn slot(words: &[u64; 5]) -> u32 {
        let [c0, c1, s0, s1, ports] = *words;
        let mixed = c0 ^ c1 ^ (s0 ^ s1).rotate_left(13) ^ ports.rotate_left(29);
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 % RECENT_SLOTS
    }
}

impl FlowKey {
    /// The key as it is compared.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub const fn words(&self) -> &[u64; 5] {
        // SAFETY: same size and alignment, and no padding that is not explicit.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }
}

/// Key of `gd_fragments`: one fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct FragKey {
    /// IPv4 addresses are IPv4-mapped.
    pub src_be: [u8; 16],
    pub dst_be: [u8; 16],
    /// IPv4: zero-extended.
    pub id_be: [u8; 4],
    pub protocol: u8,
    pub pad: [u8; 3],
}

/// Value of `gd_fragments`: what only the first fragment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Fragment {
    /// CLOCK_MONOTONIC time of the first fragment in ns.
    pub seen_ns: u64,
    pub src_port_be: [u8; 2],
    pub dst_port_be: [u8; 2],
    pub pad: [u8; 4],
}
