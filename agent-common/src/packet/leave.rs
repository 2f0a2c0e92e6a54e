//! How a translated packet leaves: decided in full before a byte is touched.

use super::{
    Action, ActionKind, Frame, Kernel, Link, Rewrite, Way,
    parse::{Fragmentation, Header, Ip, Packet, Transport},
};
use crate::abi::Reason;

/// The way out of a packet that is to be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    /// Translate? If not, `action` is all there is to do.
    pub(super) translate: bool,
    /// What to do with the translated (or untouched) packet.
    pub(super) action: Action,
    /// With [`ActionKind::Send`]: new MAC addresses; the TTL counts down.
    pub(super) macs: [u32; 3],
}

impl Exit {
    pub(super) const BLANK: Self = Self::stop(Action::PASS);

    /// Translate, and leave the rest to the stack.
    const STACK: Self = Self {
        translate: true,
        action: Action::PASS,
        macs: [0; 3],
    };

    #[inline(always)]
    const fn stop(action: Action) -> Self {
        Self {
            translate: false,
            action,
            macs: [0; 3],
        }
    }

    #[inline(always)]
    pub(super) fn departs(&self) -> bool {
        self.action.kind == ActionKind::Send
    }
}

/// Decides the way out of `packet` once it says `new`. `stack_only`: the frame
/// around it is none that XDP can send (see [`stack_only`]).
#[inline(always)]
pub(super) fn exit<A: Header, K: Kernel<A>>(
    kernel: &K,
    stack_only: bool,
    packet: &Packet<A>,
    new: &Rewrite<A>,
    counter: u32,
) -> Exit {
    let ip = &packet.ip;
    let stop = |reason| {
        kernel.give_up(counter, reason);
        Exit::stop(Action::PASS)
    };
    // The stack knows the way of a translated packet, but not the one around
    // its own routes: that packet stays what it was.
    let up = |reason| {
        if ip.ttl <= 1 {
            return stop(Reason::TtlExceeded);
        }
        if new.via {
            return stop(reason);
        }
        kernel.give_up(counter, reason);
        Exit::STACK
    };
    let hop = kernel.next_hop(ip, new);
    match hop.way {
        Way::Direct => {
            if u32::from(ip.total_len) > hop.mtu {
                return too_big(kernel, packet, new, hop.mtu, counter);
            }
            // Options are for the stack to act on.
            if ip.router_options || stack_only {
                return up(Reason::HandedUp);
            }
            if ip.ttl <= 1 {
                return stop(Reason::TtlExceeded);
            }
            Exit {
                translate: true,
                action: Action::send(hop.egress),
                macs: hop.macs,
            }
        }
        Way::TooBig => too_big(kernel, packet, new, hop.mtu, counter),
        Way::Unresolved => up(Reason::NeighbourUnresolved),
        Way::Up => up(Reason::HandedUp),
        Way::ForwardingOff => up(Reason::ForwardingOff),
        Way::Unreachable => stop(Reason::Unreachable),
        // A next hop that is this host itself is none.
        Way::Local if new.via => stop(Reason::Unreachable),
        // Ends here: the TTL does not matter.
        Way::Local => Exit::STACK,
    }
}

/// Longest padding that a link adds to a packet: Ethernet's least frame is 60
/// bytes. What has more behind its packet might not fit the way out, and the
/// stack cuts it off.
const PADDING_MAX: usize = 46;

/// Whether only the stack can send what is in this frame. A tagged one leaves
/// by a VLAN device that XDP does not know.
#[inline(always)]
pub(super) fn stack_only<A: Header, F: Frame>(frame: &F, link: Link, ip: &Ip<A>) -> bool {
    link.tagged() || frame.has(ip.l3 + usize::from(ip.total_len) + PADDING_MAX + 1)
}

/// A packet larger than its path: the stack fragments it, or its sender is told.
#[inline(always)]
fn too_big<A: Header, K: Kernel<A>>(
    kernel: &K,
    packet: &Packet<A>,
    new: &Rewrite<A>,
    mtu: u32,
    counter: u32,
) -> Exit {
    let ip = &packet.ip;
    if ip.ttl <= 1 {
        kernel.give_up(counter, Reason::TtlExceeded);
        return Exit::stop(Action::PASS);
    }
    if !ip.dont_fragment {
        kernel.give_up(counter, Reason::HandedUp);
        return if new.via {
            Exit::stop(Action::PASS)
        } else {
            Exit::STACK
        };
    }
    // No error about an error, and none about a later fragment (RFC 1812, 4.3.2.7).
    let answerable =
        packet.transport != Transport::IcmpError && ip.fragment != Fragmentation::Later;
    if !answerable || !kernel.icmp_token() {
        kernel.give_up(counter, Reason::TooBigUnanswered);
        return Exit::stop(Action::DROP);
    }
    kernel.give_up(counter, Reason::TooBig);
    Exit::stop(Action::too_big(mtu))
}
