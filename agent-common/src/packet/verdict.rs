//! Who owns an instance's traffic: the pure heart of the verdict.

use super::SwitchState;
use crate::abi::{Flow, Position, Side, flags};

/// Where a switch points at `now`. `None` for an unused slot.
///
/// A lapsed lease moves a switch that allows it from primary to ghost, at
/// the arrival of a packet: no timer is involved.
#[inline(always)]
pub fn owner(state: &SwitchState, host_generation: u16, now_ns: u64) -> Option<Position> {
    let position = state.control.effective(host_generation)?;
    if matches!(position, Position::Primary) && lapsed(state, now_ns) {
        return Some(Position::Ghost);
    }
    Some(position)
}

/// Whether the primary's lease is over and the switch may steer on that.
#[inline(always)]
pub const fn lapsed(state: &SwitchState, now_ns: u64) -> bool {
    state.control.flags & flags::LAPSE != 0 && state.lease_ns != 0 && now_ns > state.lease_ns
}

/// Whether [`owner`] needs the time.
#[inline(always)]
pub(super) const fn needs_clock(state: &SwitchState) -> bool {
    state.control.flags & flags::LAPSE != 0 && state.lease_ns != 0
}

/// Whether a copy's packets are the service's.
#[inline(always)]
pub const fn speaks(position: Position, side: Side) -> bool {
    matches!(
        (position, side),
        (Position::Primary, Side::Primary)
            | (Position::Ghost, Side::Ghost)
            | (Position::Draining, _)
    )
}

/// Whether a packet opens a new connection between the ends of an old one: a
/// SYN after a FIN or a reset of either side. One is enough: ends that two CPUs
/// note at the same moment may overwrite each other.
#[inline(always)]
pub(super) const fn reopens(flow: &Flow, syn: bool) -> bool {
    syn && flow.ended != 0
}

/// Which side a packet goes to while its switch drains: new connections go to
/// the primary.
#[inline(always)]
pub(super) fn drains_to(flow: Option<&Flow>, idle_ns: u64, now_ns: u64, syn: bool) -> Side {
    match flow {
        Some(flow) if now_ns.saturating_sub(flow.last_ns) <= idle_ns && !reopens(flow, syn) => {
            Side::Ghost
        }
        _ => Side::Primary,
    }
}
