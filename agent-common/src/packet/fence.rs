//! The fence: what a copy may send.

use super::{Addr, ETHERTYPE_ARP, ETHERTYPE_IPV6, Frame, Link, V6, verdict::speaks};
use crate::abi::{FenceMode, Position, Side};

/// A port, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRule {
    pub switch: u32,
    pub side: Side,
    pub fence: FenceMode,
    /// 0 is "no lease".
    pub lease_ns: u64,
    /// 0 is "not under terms".
    pub term: u32,
}

/// Whether the copy behind a port may speak freely.
///
/// It must hold the position, its term must not be older than the switch's,
/// and its lease, if it has one, must not be over. An unused slot fences
/// nobody.
#[inline(always)]
pub const fn may_speak(rule: &PortRule, position: Option<Position>, term: u32, now_ns: u64) -> bool {
    if matches!(rule.fence, FenceMode::Off) {
        return true;
    }
    let Some(position) = position else { return true };
    let stale = rule.term != 0 && rule.term < term;
    let over = rule.lease_ns != 0 && now_ns > rule.lease_ns;
    speaks(position, rule.side) && !stale && !over
}

/// Whether a copy that may not speak may still send this frame.
#[inline(always)]
pub fn muted_may_pass<F: Frame>(frame: &F, fence: FenceMode) -> bool {
    match fence {
        FenceMode::Off => true,
        FenceMode::Silent => false,
        FenceMode::Quiet => resolves_neighbours(frame),
    }
}

/// ARP, neighbour solicitation and advertisement.
#[inline(always)]
fn resolves_neighbours<F: Frame>(frame: &F) -> bool {
    let Some(link) = Link::parse(frame) else { return false };
    if link.ethertype_raw == ETHERTYPE_ARP.to_be() {
        return true;
    }
    link.ethertype_raw == ETHERTYPE_IPV6.to_be()
        && frame.get::<u8>(link.l3 + 6) == Some(V6::ICMP)
        && matches!(frame.get::<u8>(link.l3 + 40), Some(135 | 136))
}
