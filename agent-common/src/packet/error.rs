//! ICMP errors: the packet they quote is translated like the packet it was.
//!
//! An error about a packet that a copy sent comes in for the service address
//! and quotes it as source; an error about a packet that went to a copy quotes
//! the copy's address as destination. Both may be true of one error.

use super::{
    Action, Addr, Frame, Kernel, Link, Reverse, Rewrite, Route,
    checksum::Delta,
    leave::{Exit, exit, stack_only},
    lookup::{self, FlowOf},
    parse::{self, Fragmentation, Header, Ip, Packet, Ports, Quoted, TCP, Transport, UDP},
    translate::{finish, network},
    verdict::speaks,
};
use crate::abi::{Reason, TargetKind};

/// The packet that an error is about.
struct Quote<A> {
    ip: Ip<A>,
    ports: Ports,
    /// Offset of its transport checksum, if that much was quoted and it has
    /// one; else zero.
    checksum: usize,
}

/// An error on its way through the steps below, each a function of its own.
/// The memory is the caller's, as with [`super::Work`].
pub struct Errand<A> {
    packet: Packet<A>,
    quote: Quote<A>,
    /// What the error and the packet it quotes are to say.
    outer: Rewrite<A>,
    inner: Rewrite<A>,
    exit: Exit,
    /// See [`stack_only`].
    stack_only: bool,
}

impl<A: Addr> Errand<A> {
    pub const BLANK: Self = Self {
        packet: Packet::BLANK,
        quote: Quote {
            ip: Ip::BLANK,
            ports: Ports {
                src_raw: 0,
                dst_raw: 0,
            },
            checksum: 0,
        },
        outer: Rewrite::BLANK,
        inner: Rewrite::BLANK,
        exit: Exit::BLANK,
        stack_only: false,
    };
}

/// Steers a frame for which [`super::steer`] said [`super::ActionKind::Error`].
#[inline(always)]
pub fn steer_error<A: Header, K: Kernel<A>, F: Frame>(
    kernel: &K,
    frame: &mut F,
    link: Link,
    errand: &mut Errand<A>,
) -> Action {
    if !read(frame, link.l3, errand) {
        return Action::PASS;
    }
    errand.stack_only = stack_only(frame, link, &errand.packet.ip);
    let mut counter = None;
    if kernel.may_match(errand.quote.ip.src.filter()) {
        counter = find_sender(kernel, errand);
    }
    if kernel.may_match(errand.quote.ip.dst.filter()) {
        counter = find_addressee(kernel, errand).or(counter);
    }
    let Some(counter) = counter else {
        return Action::PASS;
    };
    if errand.inner.keeps_addresses(&errand.quote.ip) && !errand.outer.via {
        return Action::PASS;
    }
    if !leave(kernel, errand, counter) {
        return errand.exit.action;
    }
    match write(frame, errand) {
        Some(()) => errand.exit.action,
        None => Action::DROP,
    }
}

/// Parses the error again: they are rare, and that keeps the fast path small.
#[inline(never)]
fn read<A: Header, F: Frame>(frame: &F, l3: usize, errand: &mut Errand<A>) -> bool {
    if !A::read_packet(frame, l3, &mut errand.packet) {
        return false;
    }
    let ip = &errand.packet.ip;
    if errand.packet.transport != Transport::IcmpError {
        return false;
    }
    let end = ip.l3 + usize::from(ip.total_len);
    if quote(frame, ip.l4 + 8, end, &mut errand.quote).is_none() {
        return false;
    }
    errand.outer.keep(ip, Ports::default());
    let quoted = &errand.quote;
    errand.inner.keep(&quoted.ip, quoted.ports);
    // An error goes to the sender of what it is about (net/netfilter/nf_conntrack_proto_icmp.c).
    ip.dst == quoted.ip.src
}

/// If the service sent the quoted packet: to the copy that spoke for it. Gives
/// the counter to charge.
#[inline(never)]
fn find_sender<A: Header, K: Kernel<A>>(kernel: &K, errand: &mut Errand<A>) -> Option<u32> {
    let Quote { ip: q, ports, .. } = &errand.quote;
    let route = lookup::route(kernel, &q.src, ports.src_raw, q.protocol)?;
    let state = kernel.switch(route.switch())?;
    let flow = || FlowOf {
        client: q.dst,
        service: q.src,
        client_port_raw: ports.dst_raw,
        service_port_raw: ports.src_raw,
        protocol: q.protocol,
    };
    let side = lookup::side(kernel, route, &state, &errand.packet, flow)?;
    let target = route.target(side);
    match target.kind {
        TargetKind::Native => {}
        TargetKind::Translate => {
            errand.outer.dst = target.addr;
            errand.outer.toward = target.addr;
            errand.inner.src = target.addr;
            if target.port_raw != 0 {
                errand.inner.ports.src_raw = target.port_raw;
            }
        }
        TargetKind::Via => errand.outer.go_via(target.addr),
    }
    Some(route.counter())
}

/// If the quoted packet went to a copy: it went to the service.
#[inline(never)]
fn find_addressee<A: Header, K: Kernel<A>>(kernel: &K, errand: &mut Errand<A>) -> Option<u32> {
    let Quote { ip: q, ports, .. } = &errand.quote;
    let entry = lookup::reverse(kernel, &q.dst, ports.dst_raw, q.protocol)?;
    let state = kernel.switch(entry.switch())?;
    if !speaks(lookup::position(kernel, &state)?, entry.side()) {
        kernel.give_up(entry.counter(), Reason::NotOwner);
        return None;
    }
    errand.outer.src = entry.service();
    errand.inner.dst = entry.service();
    if entry.port_raw() != 0 {
        errand.inner.ports.dst_raw = entry.port_raw();
    }
    Some(entry.counter())
}

/// Decides the way out. Says whether to translate.
#[inline(never)]
fn leave<A: Header, K: Kernel<A>>(kernel: &K, errand: &mut Errand<A>, counter: u32) -> bool {
    errand.exit = exit(
        kernel,
        errand.stack_only,
        &errand.packet,
        &errand.outer,
        counter,
    );
    errand.exit.translate
}

/// Reads the quoted packet: its header and at least eight bytes of what is
/// above. `end` is where the error ends.
#[inline(always)]
fn quote<A: Header, F: Frame>(
    frame: &F,
    l3: usize,
    end: usize,
    quote: &mut Quote<A>,
) -> Option<()> {
    quote.ip = A::parse(frame, l3, Quoted::Yes).ok()?;
    let ip = &quote.ip;
    if ip.fragment == Fragmentation::Later || ip.l4 + 8 > end || !frame.has(ip.l4 + 8) {
        return None;
    }
    let (ports, checksum) = match ip.protocol {
        // The kernel's NAT touches a quoted TCP checksum only if the whole
        // header is there (net/netfilter/nf_nat_proto.c).
        TCP => {
            let whole = ip.l4 + 20 <= end && frame.has(ip.l4 + 20);
            (
                parse::ports(frame, ip.l4).ok()?,
                if whole { ip.l4 + 16 } else { 0 },
            )
        }
        UDP => (parse::ports(frame, ip.l4).ok()?, ip.l4 + 6),
        p if p == A::ICMP => {
            let id = match A::icmp_kind(frame.get(ip.l4)?) {
                Transport::Echo => frame.get(ip.l4 + 4)?,
                Transport::IcmpError | Transport::LinkLocal => return None,
                _ => 0,
            };
            // An IPv4 ICMP checksum does not cover addresses.
            let checksum = if A::CHECKSUM.is_none() { ip.l4 + 2 } else { 0 };
            (
                Ports {
                    src_raw: id,
                    dst_raw: id,
                },
                checksum,
            )
        }
        _ => (Ports::default(), 0),
    };
    quote.ports = ports;
    quote.checksum = checksum;
    Some(())
}

/// Rewrites the quoted packet and the error around it.
#[inline(never)]
fn write<A: Header, F: Frame>(frame: &mut F, errand: &Errand<A>) -> Option<()> {
    let Errand {
        packet,
        quote,
        outer,
        inner,
        exit,
        stack_only: _,
    } = errand;
    let q = &quote.ip;
    if inner.keeps_addresses(q) {
        return network(frame, packet, outer, exit, Delta::NONE);
    }
    let addresses = q.src.delta(inner.src).and(q.dst.delta(inner.dst));
    // Every word that changes below the error's own checksum.
    let mut changed = addresses;
    inner.src.store(frame, q.l3 + A::SRC)?;
    inner.dst.store(frame, q.l3 + A::DST)?;
    if let Some(offset) = A::CHECKSUM {
        let old: u16 = frame.get(q.l3 + offset)?;
        let new = addresses.apply(old);
        frame.set(q.l3 + offset, new)?;
        changed = changed.u16(old, new);
    }
    let mut covered = addresses;
    if inner.ports != quote.ports {
        let ports = Delta::NONE
            .u16(quote.ports.src_raw, inner.ports.src_raw)
            .u16(quote.ports.dst_raw, inner.ports.dst_raw);
        frame.set(q.l4, inner.ports.src_raw)?;
        frame.set(q.l4 + 2, inner.ports.dst_raw)?;
        covered = covered.and(ports);
        changed = changed.and(ports);
    }
    if quote.checksum != 0 {
        let offset = quote.checksum;
        let is_udp = q.protocol == UDP;
        let old: u16 = frame.get(offset)?;
        if !(is_udp && old == 0) {
            let new = finish(covered, old, is_udp);
            frame.set(offset, new)?;
            changed = changed.u16(old, new);
        }
    }
    let outer_addresses = packet
        .ip
        .src
        .delta(outer.src)
        .and(packet.ip.dst.delta(outer.dst));
    network(frame, packet, outer, exit, outer_addresses)?;
    // ICMPv6 covers the outer addresses too (RFC 4443, 2.3).
    if A::CHECKSUM.is_none() {
        changed = changed.and(outer_addresses);
    }
    let offset = packet.ip.l4 + 2;
    let old: u16 = frame.get(offset)?;
    frame.set(offset, changed.apply(old))
}
