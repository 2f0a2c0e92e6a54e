//! Finding what a packet belongs to: route, reverse entry, side, fragment.

use super::{
    Addr, Kernel, Route, SwitchState,
    parse::{Fragmentation, Ip, Packet, Ports},
    verdict::{drains_to, needs_clock, owner, reopens},
};
use crate::abi::{Flow, FlowKey, FragKey, Fragment, Position, Reason, Side, flags};

/// Fragments of a datagram arrive within this time of its first (Linux
/// reassembles for 30 s, net.ipv4.ipfrag_time).
const FRAGMENT_NS_MAX: u64 = 30_000_000_000;
/// A flow's time stamp is renewed when it is older than this part of the idle
/// time, so that busy flows do not write to a shared cache line with each
/// packet, and none that has packets ever looks idle.
const FLOW_RENEW_PART: u64 = 8;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// The route of a service address: the port route before the address route.
#[inline(always)]
pub(super) fn route<'k, A: Addr, K: Kernel<A>>(
    kernel: &'k K,
    addr: &A,
    port_raw: u16,
    protocol: u8,
) -> Option<&'k A::RouteRow> {
    if port_raw != 0
        && kernel.may_match(addr.port_filter(port_raw, protocol))
        && let Some(route) = kernel.route(addr, port_raw, protocol)
    {
        return Some(route);
    }
    kernel.route(addr, 0, 0)
}

/// The reverse entry of a copy's address, found like [`route`].
#[inline(always)]
pub(super) fn reverse<'k, A: Addr, K: Kernel<A>>(
    kernel: &'k K,
    addr: &A,
    port_raw: u16,
    protocol: u8,
) -> Option<&'k A::ReverseRow> {
    if port_raw != 0
        && kernel.may_match(addr.port_filter(port_raw, protocol))
        && let Some(entry) = kernel.reverse(addr, port_raw, protocol)
    {
        return Some(entry);
    }
    kernel.reverse(addr, 0, 0)
}

/// Where a switch points now; reads the clock only where it matters.
#[inline(always)]
pub(super) fn position<A: Addr, K: Kernel<A>>(kernel: &K, state: &SwitchState) -> Option<Position> {
    let now_ns = if needs_clock(state) {
        kernel.now_ns()
    } else {
        0
    };
    owner(state, kernel.host_generation(), now_ns)
}

/// The ports of a packet. The first fragment leaves its ports behind for the
/// later ones; a later one whose first was not seen has none.
#[inline(always)]
pub(super) fn ports<A: Addr, K: Kernel<A>>(kernel: &K, packet: &Packet<A>) -> Ports {
    match packet.ip.fragment {
        Fragmentation::Whole => packet.ports,
        Fragmentation::First | Fragmentation::Later => fragment_ports(kernel, packet),
    }
}

/// A function of its own, like the others below that are rarely called: a BPF
/// program has 512 bytes of stack.
#[inline(never)]
fn fragment_ports<A: Addr, K: Kernel<A>>(kernel: &K, packet: &Packet<A>) -> Ports {
    match packet.ip.fragment {
        Fragmentation::Whole => packet.ports,
        Fragmentation::First => {
            let Ports { src_raw, dst_raw } = packet.ports;
            let fragment = Fragment {
                seen_ns: kernel.now_ns(),
                src_port_be: src_raw.to_ne_bytes(),
                dst_port_be: dst_raw.to_ne_bytes(),
                pad: [0; 4],
            };
            kernel.put_fragment(&fragment_key(&packet.ip), &fragment);
            packet.ports
        }
        Fragmentation::Later => match kernel.fragment(&fragment_key(&packet.ip)) {
            Some(f) if kernel.now_ns().saturating_sub(f.seen_ns) <= FRAGMENT_NS_MAX => Ports {
                src_raw: u16::from_ne_bytes(f.src_port_be),
                dst_raw: u16::from_ne_bytes(f.dst_port_be),
            },
            _ => Ports::default(),
        },
    }
}

#[inline(always)]
fn fragment_key<A: Addr>(ip: &Ip<A>) -> FragKey {
    FragKey {
        src_be: ip.src.mapped(),
        dst_be: ip.dst.mapped(),
        id_be: ip.id_raw.to_ne_bytes(),
        protocol: ip.protocol,
        pad: [0; 3],
    }
}

/// A flow as the client sees it.
#[derive(Clone, Copy)]
pub(super) struct FlowOf<A> {
    pub(super) client: A,
    pub(super) service: A,
    pub(super) client_port_raw: u16,
    pub(super) service_port_raw: u16,
    pub(super) protocol: u8,
}

impl<A: Addr> FlowOf<A> {
    #[inline(always)]
    fn key(&self) -> FlowKey {
        FlowKey {
            client_be: self.client.mapped(),
            service_be: self.service.mapped(),
            client_port_be: self.client_port_raw.to_ne_bytes(),
            service_port_be: self.service_port_raw.to_ne_bytes(),
            protocol: self.protocol,
            pad: [0; 3],
        }
    }
}

/// The side a client's packet goes to. Records flows to the ghost where the
/// switch tracks them, so that it can drain later.
#[inline(always)]
pub(super) fn side<A: Addr, K: Kernel<A>>(
    kernel: &K,
    route: &A::RouteRow,
    state: &SwitchState,
    packet: &Packet<A>,
    flow: impl Fn() -> FlowOf<A>,
) -> Option<Side> {
    let tracked = Tracked {
        switch: route.switch(),
        idle_ns: state.drain_idle_ns,
        tcp_flags: packet.tcp_flags,
    };
    match position(kernel, state)? {
        Position::Primary => Some(Side::Primary),
        Position::Ghost => {
            if state.control.flags & flags::TRACK != 0 {
                record(kernel, &tracked, flow);
            }
            Some(Side::Ghost)
        }
        Position::Draining => {
            if packet.ip.fragment == Fragmentation::Later && flow().service_port_raw == 0 {
                kernel.give_up(route.counter(), Reason::FragmentUnknown);
            }
            Some(draining(kernel, &tracked, flow))
        }
    }
}

/// What tracking a packet's flow takes, beside the flow.
struct Tracked {
    switch: u32,
    idle_ns: u64,
    tcp_flags: u8,
}

impl Tracked {
    /// Writes a packet down to its flow, if that says anything new.
    #[inline(always)]
    fn renew<A: Addr, K: Kernel<A>>(&self, kernel: &K, key: &FlowKey, mut flow: Flow, now_ns: u64) {
        let (_, ends) = client_flags(self.tcp_flags);
        let stale = now_ns.saturating_sub(flow.last_ns) > self.idle_ns / FLOW_RENEW_PART;
        if stale || flow.ended | ends != flow.ended {
            flow.last_ns = now_ns;
            flow.ended |= ends;
            kernel.put_flow(key, &flow);
        }
    }
}

/// Notes a packet of a flow that the ghost owns.
#[inline(never)]
fn record<A: Addr, K: Kernel<A>>(kernel: &K, tracked: &Tracked, flow: impl Fn() -> FlowOf<A>) {
    let key = &flow().key();
    let (syn, _) = client_flags(tracked.tcp_flags);
    let now_ns = kernel.now_ns();
    // Most packets say nothing new, and looking their flows up costs more than
    // the translation does.
    if tracked.tcp_flags & (FIN | SYN | RST) == 0 && kernel.asked_lately(key, now_ns) {
        return;
    }
    match kernel.flow(key) {
        Some(flow) if !reopens(&flow, syn) && flow.switch == tracked.switch => {
            tracked.renew(kernel, key, flow, now_ns);
        }
        _ => {
            let flow = Flow {
                last_ns: now_ns,
                switch: tracked.switch,
                ended: client_flags(tracked.tcp_flags).1,
                pad: [0; 3],
            };
            kernel.put_flow(key, &flow);
        }
    }
}

/// The side of a flow while its switch drains; renews the ghost's.
#[inline(never)]
fn draining<A: Addr, K: Kernel<A>>(
    kernel: &K,
    tracked: &Tracked,
    flow: impl Fn() -> FlowOf<A>,
) -> Side {
    let key = &flow().key();
    let now_ns = kernel.now_ns();
    let (syn, _) = client_flags(tracked.tcp_flags);
    let found = kernel.flow(key);
    let side = drains_to(found.as_ref(), tracked.idle_ns, now_ns, syn);
    match (side, found) {
        (Side::Ghost, Some(flow)) => tracked.renew(kernel, key, flow, now_ns),
        // What follows the SYN has to go where it went.
        (Side::Primary, Some(flow)) if reopens(&flow, syn) => kernel.forget_flow(key),
        _ => {}
    }
    side
}

/// Notes the end of a flow as the ghost's replies show it.
#[inline(always)]
pub(super) fn reply_ends<A: Addr, K: Kernel<A>>(
    kernel: &K,
    tcp_flags: u8,
    flow: impl Fn() -> FlowOf<A>,
) {
    let ends = (if tcp_flags & FIN != 0 {
        Flow::FIN_SERVICE
    } else {
        0
    }) | (if tcp_flags & RST != 0 { Flow::RESET } else { 0 });
    if ends != 0 {
        note_end(kernel, flow, ends);
    }
}

#[inline(never)]
fn note_end<A: Addr, K: Kernel<A>>(kernel: &K, flow: impl Fn() -> FlowOf<A>, ends: u8) {
    let key = flow().key();
    if let Some(mut known) = kernel.flow(&key) {
        known.ended |= ends;
        kernel.put_flow(&key, &known);
    }
}

/// Whether a client's packet opens a connection, and what it ends.
#[inline(always)]
fn client_flags(tcp_flags: u8) -> (bool, u8) {
    let ends = (if tcp_flags & FIN != 0 {
        Flow::FIN_CLIENT
    } else {
        0
    }) | (if tcp_flags & RST != 0 { Flow::RESET } else { 0 });
    (tcp_flags & (SYN | ACK) == SYN, ends)
}
