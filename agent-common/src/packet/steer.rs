//! From a frame to an action.

use super::{
    Action, Frame, Kernel, Link, Reverse, Rewrite, Route, Traffic,
    leave::exit,
    lookup::{self, FlowOf},
    parse::{self, Header, Packet, Ports, Quoted, Transport},
    translate::translate,
    verdict::speaks,
};
use crate::abi::{Reason, Side, TargetKind};

/// Steers one frame of the family `A`.
///
/// Unknown, malformed and unmatched packets pass untouched.
#[inline(always)]
pub fn steer<A: Header, K: Kernel<A>, F: Frame>(kernel: &K, frame: &mut F, link: Link) -> Action {
    let Some((src, dst, protocol)) = A::peek(frame, link.l3) else { return Action::PASS };
    let to_service = kernel.may_match(dst.filter());
    let from_copy = kernel.may_match(src.filter());
    // An error's addresses need not be ours: what it quotes may be.
    if !to_service && !from_copy && !A::may_be_icmp(protocol) {
        return Action::PASS;
    }
    let packet = match A::parse(frame, link.l3, Quoted::No).and_then(|ip| parse::transport(frame, ip)) {
        Ok(packet) => packet,
        Err(parse::Malformed) => {
            if to_service {
                if let Some(route) = lookup::route(kernel, dst, 0, 0) {
                    kernel.give_up(route.counter(), Reason::Malformed);
                }
            }
            return Action::PASS;
        }
    };
    if !src.may_be_source() {
        return Action::PASS;
    }
    match packet.transport {
        Transport::IcmpError => Action::ERROR,
        Transport::LinkLocal => Action::PASS,
        _ if to_service || from_copy => steer_packet(kernel, frame, link, &packet, to_service, from_copy),
        _ => Action::PASS,
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
    packet: &Packet<A>,
    to_service: bool,
    from_copy: bool,
) -> Action {
    let ip = &packet.ip;
    let ports = lookup::ports(kernel, packet);
    let mut new = Rewrite { src: ip.src, dst: ip.dst, ports: packet.ports };
    let mut account = None;
    if from_copy {
        account = reply(kernel, packet, ports, &mut new);
    }
    if to_service {
        account = request(kernel, packet, ports, &mut new).or(account);
    }
    let Some(Account { counter, traffic }) = account else { return Action::PASS };
    let bytes = (link.l3 + usize::from(ip.total_len)) as u64;
    if new.dst == ip.dst && new.src == ip.src {
        kernel.count(counter, traffic, bytes);
        return Action::PASS;
    }
    let way = exit(kernel, link, packet, &new, counter);
    if !way.translate {
        return way.action;
    }
    kernel.count(counter, traffic, bytes);
    match translate(frame, packet, &new, &way) {
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
    let route = lookup::route(kernel, ip.dst, ports.dst_raw, ip.protocol)?;
    let state = kernel.switch(route.switch())?;
    let flow = || FlowOf {
        client: ip.src,
        service: ip.dst,
        client_port_raw: ports.src_raw,
        service_port_raw: ports.dst_raw,
        protocol: ip.protocol,
    };
    let side = lookup::side(kernel, route, &state, packet, flow)?;
    let target = route.target(side);
    if target.kind == TargetKind::Translate {
        new.dst = target.addr;
        if target.port_raw != 0 {
            new.ports.dst_raw = target.port_raw;
        }
    }
    let traffic = match side {
        Side::Primary => Traffic::ToPrimary,
        Side::Ghost => Traffic::ToGhost,
    };
    Some(Account { counter: route.counter(), traffic })
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
    let entry = lookup::reverse(kernel, ip.src, ports.src_raw, ip.protocol)?;
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
            service_port_raw: if entry.port_raw() != 0 { entry.port_raw() } else { ports.src_raw },
            protocol: ip.protocol,
        });
    }
    Some(Account { counter: entry.counter(), traffic: Traffic::Reverse })
}
