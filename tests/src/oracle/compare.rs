//! Whether two worlds gave the same.

use std::fmt;

use super::{
    Leaf, Out, Step,
    build::{FRAGMENT, ICMP, ICMP_V6},
    case::hex,
};

/// Where two worlds differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub at: Leaf,
    /// What the kernel's NAT gave; `None` for nothing more.
    pub reference: Option<Vec<u8>>,
    /// What ghostd gave.
    pub subject: Option<Vec<u8>>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or("nothing".to_owned(), hex);
        writeln!(f, "at the {}:", self.at.name())?;
        writeln!(f, "  nftables {}", text(&self.reference))?;
        write!(f, "  ghostd   {}", text(&self.subject))?;
        if let (Some(a), Some(b)) = (&self.reference, &self.subject) {
            let first = a.iter().zip(b).position(|(x, y)| x != y);
            let first = first.unwrap_or(a.len().min(b.len()));
            write!(
                f,
                "\n  first at byte {first}, {} and {} long",
                a.len(),
                b.len()
            )?;
        }
        Ok(())
    }
}

/// The first difference, leaf by leaf, in order of arrival.
pub fn compare(step: &Step, reference: &[Out], subject: &[Out]) -> Option<Difference> {
    let errors_sent = step.frames.iter().any(|frame| is_error(frame));
    Leaf::ALL.into_iter().find_map(|at| {
        let of = |outs: &[Out]| -> Vec<Vec<u8>> {
            outs.iter()
                .filter(|out| out.at == at)
                .map(|out| canonical(&out.bytes, errors_sent))
                .collect()
        };
        let (reference, subject) = (of(reference), of(subject));
        let length = reference.len().max(subject.len());
        (0..length)
            .map(|place| (reference.get(place), subject.get(place)))
            .find(|(a, b)| a != b)
            .map(|(a, b)| Difference {
                at,
                reference: a.cloned(),
                subject: b.cloned(),
            })
    })
}

/// What must be equal of a frame. Left out are:
/// - MAC addresses;
/// - VLAN tags of an error the host made itself: these worlds have no VLAN
///   devices, so the kernel's answer has none, and ghostd's goes back the way
///   the packet came;
/// - link padding: what follows the IP packet's own length;
/// - the IPv4 identification of an error the host made itself, which is a
///   random number, with the header checksum that covers it;
/// - the identification in an IPv6 fragment header: conntrack puts datagrams
///   together, and the kernel picks a new number when it takes them apart.
fn canonical(frame: &[u8], errors_sent: bool) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes.iter_mut().take(12).for_each(|byte| *byte = 0);
    let Some((kind, mut ip)) = network(frame) else {
        return bytes;
    };
    if is_error(frame) && !errors_sent {
        bytes.drain(12..ip - 2);
        ip = 14;
    }
    let word =
        |bytes: &[u8], at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    if kind == 0x0800 && bytes.len() >= ip + 20 {
        bytes.truncate(ip + word(&bytes, ip + 2).max(20));
        if is_error(frame) && !errors_sent {
            bytes[ip + 4..ip + 6].fill(0);
            bytes[ip + 10..ip + 12].fill(0);
        }
    } else if kind == 0x86dd && bytes.len() >= ip + 40 {
        bytes.truncate(ip + 40 + word(&bytes, ip + 4));
        if bytes[ip + 6] == FRAGMENT && bytes.len() >= ip + 48 {
            bytes[ip + 44..ip + 48].fill(0);
        }
    }
    bytes
}

/// Ethernet type, and where what it names begins, behind up to two VLAN tags.
pub(super) fn network(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = 12;
    for _ in 0..3 {
        let kind = u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?);
        at += 2;
        if !matches!(kind, 0x8100 | 0x88a8) {
            return Some((kind, at));
        }
        at += 2;
    }
    None
}

/// An ICMP or ICMPv6 error without extension headers.
pub(super) fn is_error(frame: &[u8]) -> bool {
    let byte = |at: usize| frame.get(at).copied();
    match network(frame) {
        Some((0x0800, ip)) => {
            let head = usize::from(byte(ip).unwrap_or(0) & 0x0f) * 4;
            byte(ip + 9) == Some(ICMP) && matches!(byte(ip + head), Some(3 | 4 | 5 | 11 | 12))
        }
        Some((0x86dd, ip)) => byte(ip + 6) == Some(ICMP_V6) && matches!(byte(ip + 40), Some(1..=4)),
        _ => false,
    }
}
