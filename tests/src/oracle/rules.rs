//! Named rules: where the kernel's NAT does something else for a reason of its
//! own, and ghostd is not to follow it.
//!
//! A rule looks at what was sent, never only at what came out: a translation
//! that is wrong must not excuse itself.

use super::{
    Difference, Leaf, Step,
    build::{ICMP, ICMP_V6, TCP, tcp_flags::SYN},
    compare::{is_error, network},
    tuple::{Tuple, quoted_tuple, tuple},
};

/// Why a difference is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The TTL is over at the host. ghostd leaves the packet alone, and the
    /// host's stack says so from its own address; conntrack would make the
    /// error come from the service. All else is the same.
    TtlAnswer,
    /// What the ghost sent belongs to no flow that a client began. conntrack
    /// knows flows and leaves it alone. ghostd keeps no flows: whatever the
    /// owner of a service sends comes from the service.
    NoRequest,
    /// The middle or the end of a TCP connection whose beginning nobody saw.
    /// conntrack takes some of these for strays and leaves them alone; ghostd
    /// sends all of them to the owner, which answers with a reset.
    NoConnection,
    /// ICMP that conntrack does not follow: replies nobody asked for, and
    /// types it does not know. ghostd sends them to the owner.
    UnfollowedIcmp,
    /// An error quotes a packet of no flow that was ever seen: as above.
    NoQuotedFlow,
}

/// The rule that explains a difference after `before`, if one does.
pub fn excuse(before: &[Step], step: &Step, difference: &Difference) -> Option<Rule> {
    if ttl_answer(step, difference) {
        return Some(Rule::TtlAnswer);
    }
    let frame = step.frames.first()?;
    if let Some(quoted) = quoted_tuple(frame) {
        let known = known(before, quoted) || known(before, quoted.reversed());
        return (!known).then_some(Rule::NoQuotedFlow);
    }
    let sent = tuple(frame)?;
    match (step.from, sent.protocol) {
        (Leaf::Ghost, _) if !known(before, sent.reversed()) => Some(Rule::NoRequest),
        (Leaf::Client, TCP) if !known(before, sent) && tcp_flags_of(frame)? != SYN => {
            Some(Rule::NoConnection)
        }
        (Leaf::Client, ICMP | ICMP_V6) if !begins_echo_or_query(frame)? => {
            Some(Rule::UnfollowedIcmp)
        }
        _ => None,
    }
}

/// Flags of an untagged or tagged TCP segment without IPv6 extension headers.
fn tcp_flags_of(frame: &[u8]) -> Option<u8> {
    frame.get(l4(frame)? + 13).copied()
}

/// ICMP that may begin a flow (net/netfilter/nf_conntrack_proto_icmp.c and
/// nf_conntrack_proto_icmpv6.c, `valid_new`).
fn begins_echo_or_query(frame: &[u8]) -> Option<bool> {
    let kind = *frame.get(l4(frame)?)?;
    Some(match network(frame)?.0 {
        0x0800 => matches!(kind, 8 | 13 | 15 | 17),
        _ => matches!(kind, 128 | 139),
    })
}

/// Where the transport header begins; IPv6 without extension headers only.
fn l4(frame: &[u8]) -> Option<usize> {
    let (kind, ip) = network(frame)?;
    match kind {
        0x0800 => Some(ip + usize::from(frame.get(ip)? & 0x0f) * 4),
        _ => Some(ip + 40),
    }
}

/// Whether a client sent a packet of this flow before, as the ghost saw it or
/// as the client did.
fn known(before: &[Step], flow: Tuple) -> bool {
    before
        .iter()
        .filter(|step| step.from == Leaf::Client)
        .flat_map(|step| &step.frames)
        .filter_map(|frame| tuple(frame))
        .any(|seen| seen == flow || seen.at_ghost() == flow)
}

/// Something was sent whose TTL is over, and both worlds answered with an
/// error that is the same but for who says it.
fn ttl_answer(step: &Step, difference: &Difference) -> bool {
    let over = |frame: &Vec<u8>| {
        let ttl = match network(frame) {
            Some((0x0800, ip)) => frame.get(ip + 8),
            Some((0x86dd, ip)) => frame.get(ip + 7),
            _ => None,
        };
        ttl.is_some_and(|&ttl| ttl <= 1)
    };
    let (Some(reference), Some(subject)) = (&difference.reference, &difference.subject) else {
        return false;
    };
    difference.at == step.from
        && step.frames.iter().any(over)
        && is_error(reference)
        && is_error(subject)
        && without_source(reference) == without_source(subject)
}

/// The frame without its source address, and what ICMPv6's checksum makes of it.
fn without_source(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let blank: Vec<std::ops::Range<usize>> = match network(frame) {
        Some((0x0800, ip)) => std::iter::once(ip + 12..ip + 16).collect(),
        Some((0x86dd, ip)) => vec![ip + 8..ip + 24, ip + 42..ip + 44],
        _ => Vec::new(),
    };
    for range in blank {
        if let Some(place) = bytes.get_mut(range) {
            place.fill(0);
        }
    }
    bytes
}
