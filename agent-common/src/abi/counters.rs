//! Counters of a route: per CPU, plain adds.

/// Why a packet that a route names was not steered, or not by the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// IP or L4 header is cut short, inconsistent, or its checksum is wrong: passed.
    Malformed = 0,
    /// TTL or hop limit would reach zero: passed, the stack answers.
    TtlExceeded = 1,
    /// Does not fit the path and may not be fragmented: answered by ICMP.
    TooBig = 2,
    /// As above, but the ICMP budget was spent: dropped.
    TooBigUnanswered = 3,
    /// A later fragment whose first was never seen, while its switch drains:
    /// taken for a new flow.
    FragmentUnknown = 4,
    /// Neighbour not resolved: translated and handed up the stack.
    NeighbourUnresolved = 5,
    /// The way out cannot be taken in XDP: translated and handed up the stack.
    HandedUp = 6,
    /// The routing table refuses the target (unreachable, prohibit, blackhole): passed.
    Unreachable = 7,
    /// Forwarding is off on the interface: translated and handed up the stack.
    ForwardingOff = 8,
    /// A copy that does not own the service spoke as it: passed untranslated.
    NotOwner = 9,
}

/// Number of [`Reason`]s.
pub const ROUTE_REASONS: usize = 10;

impl Reason {
    pub const ALL: [Self; ROUTE_REASONS] = [
        Self::Malformed,
        Self::TtlExceeded,
        Self::TooBig,
        Self::TooBigUnanswered,
        Self::FragmentUnknown,
        Self::NeighbourUnresolved,
        Self::HandedUp,
        Self::Unreachable,
        Self::ForwardingOff,
        Self::NotOwner,
    ];

    /// Name for tables, metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TtlExceeded => "ttl_exceeded",
            Self::TooBig => "too_big",
            Self::TooBigUnanswered => "too_big_unanswered",
            Self::FragmentUnknown => "fragment_unknown",
            Self::NeighbourUnresolved => "neighbour_unresolved",
            Self::HandedUp => "handed_up",
            Self::Unreachable => "unreachable",
            Self::ForwardingOff => "forwarding_off",
            Self::NotOwner => "not_owner",
        }
    }
}

/// Value of `gd_counters`. Bytes count whole frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct RouteCounters {
    pub primary_packets: u64,
    pub primary_bytes: u64,
    pub ghost_packets: u64,
    pub ghost_bytes: u64,
    /// Replies whose source was rewritten, from either side.
    pub reverse_packets: u64,
    pub reverse_bytes: u64,
    /// Indexed by [`Reason`].
    pub reasons: [u64; ROUTE_REASONS],
    pub pad: [u64; 8],
}
