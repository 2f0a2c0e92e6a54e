//! Named rules: where the kernel's NAT does something else for a reason of its
//! own, and ghostd is not to follow it.
//!
//! A rule looks at what was sent, never only at what came out: a translation
//! that is wrong must not excuse itself.

use super::{
    Difference, Leaf, Step,
    build::{
        DESTINATION, FRAGMENT, HOP_BY_HOP, ICMP, ICMP_V6, ROUTING, TCP, UDP, checksum,
        tcp_flags::SYN,
    },
    compare::{is_error, network},
    tuple::{Tuple, quoted_tuple, tuple},
};

/// RFC 4302.
const AUTHENTICATION: u8 = 51;

/// MTU of the link behind which the ghost is.
const GHOST_LINK_MTU: u16 = 1500;

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
    /// A transport checksum that is wrong. conntrack judges what it reads all
    /// the same, and the kernel's NAT drops errors (net/netfilter/nf_nat_proto.c).
    /// ghostd translates the packet, still wrong; no stack will take it.
    WrongSum,
    /// IPv6 extension headers that reach beyond the packet. The kernel's NAT
    /// changes the addresses all the same; ghostd leaves it alone.
    TornExtensions,
    /// Options that the host's stack refuses. ghostd hands such packets up
    /// translated, so the stack's error speaks of the ghost's address; the
    /// client takes it for somebody else's.
    RefusedOptions,
}

/// The rule that explains a difference after `before`, if one does.
pub fn excuse(before: &[Step], step: &Step, difference: &Difference) -> Option<Rule> {
    if ttl_answer(step, difference) {
        return Some(Rule::TtlAnswer);
    }
    let frame = step.frames.first()?;
    if step
        .frames
        .iter()
        .any(|frame| wrong_sum(frame) == Some(true))
    {
        return Some(Rule::WrongSum);
    }
    if torn_extensions(frame) == Some(true) {
        return Some(Rule::TornExtensions);
    }
    if router_options(frame)? && refusal(difference) {
        return Some(Rule::RefusedOptions);
    }
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
        .filter(|frame| leaves(frame))
        .filter_map(|frame| tuple(frame))
        .any(|seen| seen == flow || seen.at_ghost() == flow)
}

/// Whether a client's packet gets through to the ghost's link. conntrack does
/// not remember those that did not.
fn leaves(frame: &[u8]) -> bool {
    let Some((kind, ip)) = network(frame) else {
        return false;
    };
    let word = |at: usize| {
        let bytes = frame.get(ip + at..ip + at + 2);
        bytes.map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
    };
    match kind {
        0x0800 => word(2) <= GHOST_LINK_MTU || word(6) & 0x4000 == 0,
        _ => word(4) + 40 <= GHOST_LINK_MTU,
    }
}

/// Whether a whole packet's transport checksum is wrong; IPv6 without
/// extension headers only.
fn wrong_sum(frame: &[u8]) -> Option<bool> {
    let (kind, ip) = network(frame)?;
    let segment = l4(frame)?;
    let byte = |at: usize| frame.get(at).copied();
    let word = |at: usize| Some(u16::from_be_bytes([byte(at)?, byte(at + 1)?]));
    let (protocol, end, addresses) = match kind {
        0x0800 => {
            if word(ip + 6)? & 0x3fff != 0 {
                return None;
            }
            (
                byte(ip + 9)?,
                ip + usize::from(word(ip + 2)?),
                ip + 12..ip + 20,
            )
        }
        _ => (
            byte(ip + 6)?,
            ip + 40 + usize::from(word(ip + 4)?),
            ip + 8..ip + 40,
        ),
    };
    let covered = frame.get(segment..end)?;
    let mut all = Vec::new();
    match protocol {
        ICMP => {}
        UDP if word(segment + 6)? == 0 => return None,
        TCP | UDP | ICMP_V6 => {
            all.extend(frame.get(addresses)?);
            all.extend(u32::try_from(covered.len()).ok()?.to_be_bytes());
            all.extend([0, 0, 0, protocol]);
        }
        _ => return None,
    }
    all.extend(covered);
    Some(checksum(&all) != 0)
}

/// Walks IPv6 extension headers (RFC 8200, 4) to the end of the packet.
fn torn_extensions(frame: &[u8]) -> Option<bool> {
    let (0x86dd, ip) = network(frame)? else {
        return Some(false);
    };
    let byte = |at: usize| frame.get(at).copied();
    let payload = u16::from_be_bytes([byte(ip + 4)?, byte(ip + 5)?]);
    let end = ip + 40 + usize::from(payload);
    let (mut next, mut at) = (byte(ip + 6)?, ip + 40);
    while matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION | AUTHENTICATION
    ) {
        let Some(length) = byte(at + 1) else {
            return Some(true);
        };
        let length = usize::from(length);
        let bytes = match next {
            FRAGMENT => 8,
            AUTHENTICATION => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        (next, at) = (byte(at)?, at + bytes);
        if at > end {
            return Some(true);
        }
    }
    Some(false)
}

/// IPv4 options or IPv6 hop-by-hop options.
fn router_options(frame: &[u8]) -> Option<bool> {
    let (kind, ip) = network(frame)?;
    Some(match kind {
        0x0800 => frame.get(ip)? & 0x0f > 5,
        _ => *frame.get(ip + 6)? == HOP_BY_HOP,
    })
}

/// The host answers with an error in one of the worlds at least.
fn refusal(difference: &Difference) -> bool {
    [&difference.reference, &difference.subject]
        .into_iter()
        .flatten()
        .any(|frame| is_error(frame))
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
