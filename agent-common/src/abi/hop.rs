//! Next hops: a per-CPU cache of routing decisions, and what bounds it.

/// Slots of `gd_hops`, per CPU; direct-mapped by [`Hop::slot`].
pub const HOP_SLOTS: u32 = 1024;

/// Slots of `gd_egress`. Slot `ifindex % EGRESS_SLOTS` holds the index of a
/// device that takes XDP redirects. Two devices that share a slot: the loser's
/// packets go up the stack, which is slower and still right.
pub const EGRESS_SLOTS: u32 = 4096;

/// Bit of an element of `gd_egress`: what goes back by the interface that it
/// came in by has to be redirected to it, too. A veth keeps what its own
/// program sends back until its peer carries an XDP program
/// (drivers/net/veth.c `veth_xdp_flush`); redirects need only a peer that polls.
pub const EGRESS_REFLECT: u32 = 1 << 31;

/// Value of `gd_hops`: how `bpf_fib_lookup` answered for a destination, and for
/// a source where that is a service: a host with more than one uplink routes
/// replies by it (`ip rule add from ...`).
///
/// Used until `valid_until_ns`, which is milliseconds ahead: a route or a
/// neighbour that changes is seen that soon, without any invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Hop {
    /// The destination as it lies in a header; an IPv4 address in the first word.
    pub dst: [u32; 4],
    /// CLOCK_MONOTONIC (coarse) in ns; zero in an unused slot.
    pub valid_until_ns: u64,
    /// Interface the packet came in by.
    pub ingress: u32,
    /// Interface it leaves by.
    pub egress: u32,
    /// Path MTU in bytes.
    pub mtu: u32,
    /// Destination, then source MAC address: the first 12 bytes of the frame.
    pub macs: [u32; 3],
    /// The source, like `dst`; zero if it is a client's.
    pub src: [u32; 4],
}

impl Hop {
    /// Where the answer for two addresses is kept, given the words of their
    /// [`super::Filter`]s. An odd factor, so that neither address alone leaves
    /// slots unused.
    #[inline(always)]
    pub const fn slot(src_word: u32, dst_word: u32) -> u32 {
        (src_word.wrapping_mul(0x9e37_79b1) ^ dst_word) % HOP_SLOTS
    }
}

/// Value of `gd_icmp_budget`, per CPU: a token bucket for the ICMP errors that
/// XDP sends itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct IcmpBudget {
    /// CLOCK_MONOTONIC (coarse) of the last refill in ns.
    pub refilled_ns: u64,
    pub tokens: u64,
}
