//! IPv6 extension headers (RFC 8200, section 4).

use super::{Fragmentation, Frame};

/// IPv6 extension headers walked at most; more than any real packet has.
const EXTENSION_HEADERS_MAX: usize = 6;

pub(super) const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const NO_NEXT: u8 = 59;

/// Headers that may stand between an IPv6 header and its payload, and the one
/// that says that there is none (RFC 8200, 4; RFC 4302 for 51).
#[inline(always)]
pub(super) const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | 43 | FRAGMENT | 51 | NO_NEXT | 60)
}

/// Where a walk over extension headers ended. Packed into one word on its way
/// (see [`Frame::walk_extensions`]); zero is "malformed".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    pub(super) l4: usize,
    pub(super) protocol: u8,
    pub(super) fragment: Fragmentation,
    pub(super) id_raw: u32,
}

impl Walk {
    #[inline(always)]
    fn pack(self) -> u64 {
        let fragment = match self.fragment {
            Fragmentation::Whole => 0,
            Fragmentation::First => 1,
            Fragmentation::Later => 2,
        };
        (self.l4 as u64 & 0xfff)
            | u64::from(self.protocol) << 12
            | fragment << 20
            | u64::from(self.id_raw) << 32
    }

    #[inline(always)]
    pub(super) fn unpack(word: u64) -> Option<Self> {
        let fragment = match word >> 20 & 3 {
            0 => Fragmentation::Whole,
            1 => Fragmentation::First,
            _ => Fragmentation::Later,
        };
        let l4 = (word & 0xfff) as usize;
        (l4 != 0).then_some(Self {
            l4,
            protocol: (word >> 12) as u8,
            fragment,
            id_raw: (word >> 32) as u32,
        })
    }
}

/// The walk itself; see [`Frame::walk_extensions`].
#[inline(always)]
pub fn walk_extensions<F: Frame>(frame: &F, l3: usize, next: u8) -> u64 {
    walk(frame, l3, next).map_or(0, Walk::pack)
}

#[inline(always)]
fn walk<F: Frame>(frame: &F, l3: usize, mut next: u8) -> Option<Walk> {
    let mut l4 = l3 + 40;
    let mut fragment = Fragmentation::Whole;
    let mut id_raw = 0;
    for _ in 0..EXTENSION_HEADERS_MAX {
        let length = match next {
            FRAGMENT => {
                let [_, _, hi, lo] = frame.get::<u32>(l4)?.to_ne_bytes();
                let offset = u16::from_be_bytes([hi, lo]);
                id_raw = frame.get::<u32>(l4 + 4)?;
                if offset & 0xfff8 != 0 {
                    let protocol = frame.get(l4)?;
                    return Some(Walk {
                        l4: l4 + 8,
                        protocol,
                        fragment: Fragmentation::Later,
                        id_raw,
                    });
                }
                if offset & 1 != 0 {
                    fragment = Fragmentation::First;
                }
                8
            }
            51 => (usize::from(frame.get::<u8>(l4 + 1)?) + 2) * 4,
            NO_NEXT => return None,
            _ => (usize::from(frame.get::<u8>(l4 + 1)?) + 1) * 8,
        };
        next = frame.get(l4)?;
        l4 += length;
        if !is_extension(next) {
            return (l4 < 0x1000).then_some(Walk {
                l4,
                protocol: next,
                fragment,
                id_raw,
            });
        }
    }
    None
}
