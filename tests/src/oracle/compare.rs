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
/// - link padding: what follows the IP packet's own length;
/// - the IPv4 identification of an error the host made itself, which is a
///   random number, with the header checksum that covers it;
/// - the identification in an IPv6 fragment header: conntrack puts datagrams
///   together, and the kernel picks a new number when it takes them apart.
fn canonical(frame: &[u8], errors_sent: bool) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes.iter_mut().take(12).for_each(|byte| *byte = 0);
    let Some(version) = bytes.get(14).map(|byte| byte >> 4) else {
        return bytes;
    };
    if version == 4 && bytes.len() >= 34 {
        let length = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        bytes.truncate(14 + length.max(20));
        if is_error(frame) && !errors_sent {
            bytes[18..20].fill(0);
            bytes[24..26].fill(0);
        }
    } else if version == 6 && bytes.len() >= 54 {
        let length = usize::from(u16::from_be_bytes([bytes[18], bytes[19]]));
        bytes.truncate(54 + length);
        if bytes[20] == FRAGMENT && bytes.len() >= 62 {
            bytes[58..62].fill(0);
        }
    }
    bytes
}

/// An ICMP or ICMPv6 error without extension headers.
pub(super) fn is_error(frame: &[u8]) -> bool {
    let kind_at = |at: usize| frame.get(at).copied();
    match frame.get(12..14) {
        Some([8, 0]) => {
            let head = usize::from(frame.get(14).copied().unwrap_or(0) & 0x0f) * 4;
            kind_at(23) == Some(ICMP) && matches!(kind_at(14 + head), Some(3 | 4 | 5 | 11 | 12))
        }
        Some([0x86, 0xdd]) => kind_at(20) == Some(ICMP_V6) && matches!(kind_at(54), Some(1..=4)),
        _ => false,
    }
}
