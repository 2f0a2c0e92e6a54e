//! The translation: addresses, ports, TTL, MAC addresses and every checksum.
//!
//! All offsets were checked by the parser. A store that fails all the same
//! leaves a frame half written, so callers drop it.

use super::{
    Frame, Rewrite,
    checksum::Delta,
    leave::Exit,
    parse::{Header, Packet, Transport},
};

/// Rewrites a packet that is no ICMP error: ports only together with an
/// address, as a route is of an address. If it departs from here it gets new
/// MAC addresses and its TTL counts down.
#[inline(always)]
pub(super) fn translate<A: Header, F: Frame>(
    frame: &mut F,
    packet: &Packet<A>,
    new: &Rewrite<A>,
    exit: &Exit,
) -> Option<()> {
    let ip = &packet.ip;
    let addresses = ip.src.delta(new.src).and(ip.dst.delta(new.dst));
    network(frame, packet, new, exit, addresses)?;
    // A sum over nothing new would still turn 0xffff into 0x0000.
    if new.keeps_addresses(ip) {
        return Some(());
    }
    let Some(offset) = packet.checksum_offset() else {
        return Some(());
    };
    let old: u16 = frame.get(offset)?;
    let is_udp = packet.transport == Transport::Udp;
    let has_ports = is_udp || packet.transport == Transport::Tcp;
    let mut delta = addresses;
    if has_ports && new.ports != packet.ports {
        delta = delta
            .u16(packet.ports.src_raw, new.ports.src_raw)
            .u16(packet.ports.dst_raw, new.ports.dst_raw);
        frame.set(ip.l4, new.ports.src_raw)?;
        frame.set(ip.l4 + 2, new.ports.dst_raw)?;
    }
    // A UDP checksum of zero means "none" and stays; a computed zero is
    // sent as all ones (RFC 768).
    if is_udp && old == 0 {
        return Some(());
    }
    frame.set(offset, finish(delta, old, is_udp))
}

/// Rewrites link and network header, given what the addresses add up to.
#[inline(always)]
pub(super) fn network<A: Header, F: Frame>(
    frame: &mut F,
    packet: &Packet<A>,
    new: &Rewrite<A>,
    exit: &Exit,
    addresses: Delta,
) -> Option<()> {
    let ip = &packet.ip;
    let mut ttl = ip.ttl;
    if exit.departs() {
        frame.set_words(0, exit.macs)?;
        ttl = ttl.saturating_sub(1);
    }
    A::rewrite(frame, ip, new, ttl, addresses)
}

/// A checksum field after a change.
#[inline(always)]
pub(super) fn finish(delta: Delta, old: u16, is_udp: bool) -> u16 {
    match delta.apply(old) {
        0 if is_udp => 0xffff,
        check => check,
    }
}
