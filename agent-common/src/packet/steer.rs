//! From a frame to an action.

use super::{
    Action, Addr, Frame, Kernel, Link, Reverse, Rewrite, Route, Traffic,
    leave::{exit, stack_only},
    lookup::{self, FlowOf},
    parse::{Header, Packet, Ports, Transport},
    translate::translate,
    verdict::speaks,
};
use crate::abi::{Reason, Side};

/// A packet on its way through the steps.
///
/// The caller lends the memory: a BPF program has 512 bytes of stack, which
/// IPv6 would burst, so its steps work in a map. What it held before does not
/// matter.
#[derive(Clone, Copy)]
pub struct Work<A> {
    pub(super) packet: Packet<A>,
    /// What the packet is to say.
    pub(super) new: Rewrite<A>,
}

impl<A: Addr> Work<A> {
    pub const BLANK: Self = Self {
        packet: Packet::BLANK,
        new: Rewrite::BLANK,
    };
}

/// Steers one frame of the family `A`.
///
/// Unknown, malformed and unmatched packets pass untouched.
#[inline(always)]
pub fn steer<A: Header, K: Kernel<A>, F: Frame>(
    kernel: &K,
    frame: &mut F,
    link: Link,
    work: &mut Work<A>,
) -> Action {
    let Some((src, dst, protocol)) = A::peek(frame, link.l3) else {
        return Action::PASS;
    };
    let to_service = kernel.may_match(dst.filter());
    let from_copy = kernel.may_match(src.filter());
    // An error's addresses need not be ours: what it quotes may be.
    if !to_service && !from_copy && !A::may_be_icmp(protocol) {
        return Action::PASS;
    }
    let packet = &mut work.packet;
    if !A::read_packet(frame, link.l3, packet) {
        if to_service {
            malformed(kernel, frame, link);
        }
        return Action::PASS;
    }
    if !packet.ip.src.may_be_source() {
        return Action::PASS;
    }
    match packet.transport {
        Transport::IcmpError => Action::ERROR,
        Transport::LinkLocal => Action::PASS,
        _ if to_service || from_copy => {
            steer_packet(kernel, frame, link, work, to_service, from_copy)
        }
        _ => Action::PASS,
    }
}

/// Charges a malformed packet to its address's route.
#[inline(always)]
fn malformed<A: Header, K: Kernel<A>, F: Frame>(kernel: &K, frame: &F, link: Link) {
    if let Some(dst) = A::load(frame, link.l3 + A::DST)
        && let Some(route) = lookup::route(kernel, &dst, 0, 0)
    {
        kernel.give_up(route.counter(), Reason::Malformed);
    }
}

/// Who is charged for a packet.
#[derive(Clone, Copy)]
struct Account {
    counter: u32,
    traffic: Traffic,
}

#[inline(always)]
fn steer_packet<A: Header, K: Kernel<A>, F: Frame>(
    kernel: &K,
    frame: &mut F,
    link: Link,
    work: &mut Work<A>,
    to_service: bool,
    from_copy: bool,
) -> Action {
    let Work { packet, new } = work;
    let ip = &packet.ip;
    let ports = lookup::ports(kernel, packet);
    new.keep(ip, packet.ports);
    let mut account = None;
    if from_copy {
        account = reply(kernel, packet, ports, new);
    }
    if to_service {
        account = request(kernel, packet, ports, new).or(account);
    }
    let Some(Account { counter, traffic }) = account else {
        return Action::PASS;
    };
    let bytes = (link.l3 + usize::from(ip.total_len)) as u64;
    if new.keeps_addresses(ip) && !new.via {
        kernel.count(counter, traffic, bytes);
        return Action::PASS;
    }
    let way = exit(kernel, stack_only(frame, link, ip), packet, new, counter);
    if !way.translate {
        return way.action;
    }
    kernel.count(counter, traffic, bytes);
    match translate(frame, packet, new, &way) {
        Some(()) => way.action,
        None => Action::DROP,
    }
}

/// A packet for a service address: to the side that owns it.
#[inline(always)]
fn request<A: Header, K: Kernel<A>>(
    kernel: &K,
    packet: &Packet<A>,
    ports: Ports,
    new: &mut Rewrite<A>,
) -> Option<Account> {
    let ip = &packet.ip;
    let route = lookup::route(kernel, &ip.dst, ports.dst_raw, ip.protocol)?;
    let state = kernel.switch(route.switch())?;
    let flow = || FlowOf {
        client: ip.src,
        service: ip.dst,
        client_port_raw: ports.src_raw,
        service_port_raw: ports.dst_raw,
        protocol: ip.protocol,
    };
    let side = lookup::side(kernel, route, &state, packet, flow)?;
    new.aim(route, side);
    let traffic = match side {
        Side::Primary => Traffic::ToPrimary,
        Side::Ghost => Traffic::ToGhost,
    };
    Some(Account {
        counter: route.counter(),
        traffic,
    })
}

/// A packet from a copy: from the service address, if the copy owns it.
#[inline(always)]
fn reply<A: Header, K: Kernel<A>>(
    kernel: &K,
    packet: &Packet<A>,
    ports: Ports,
    new: &mut Rewrite<A>,
) -> Option<Account> {
    let ip = &packet.ip;
    let entry = lookup::reverse(kernel, &ip.src, ports.src_raw, ip.protocol)?;
    let state = kernel.switch(entry.switch())?;
    if !speaks(lookup::position(kernel, &state)?, entry.side()) {
        kernel.give_up(entry.counter(), Reason::NotOwner);
        return None;
    }
    new.src = entry.service();
    if entry.port_raw() != 0 {
        new.ports.src_raw = entry.port_raw();
    }
    if entry.side() == Side::Ghost {
        lookup::reply_ends(kernel, packet.tcp_flags, || FlowOf {
            client: ip.dst,
            service: entry.service(),
            client_port_raw: ports.dst_raw,
            service_port_raw: if entry.port_raw() != 0 {
                entry.port_raw()
            } else {
                ports.src_raw
            },
            protocol: ip.protocol,
        });
    }
    Some(Account {
        counter: entry.counter(),
        traffic: Traffic::Reverse,
    })
}
