//! Ethernet and 802.1Q: where the network header starts.

use super::Frame;

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
/// 802.1ad, the outer of two tags.
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// The link layer of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Offset of the network header: 14, 18 or 22.
    pub l3: usize,
    /// Raw, of what follows the tags.
    pub ethertype_raw: u16,
}

impl Link {
    /// Reads the link layer. More than two tags, or a frame too short, leave
    /// a type that no caller knows.
    #[inline(always)]
    pub fn parse<F: Frame>(frame: &F) -> Option<Self> {
        let ethertype_raw = frame.get::<u16>(12)?;
        if !is_vlan(ethertype_raw) {
            return Some(Self { l3: 14, ethertype_raw });
        }
        let ethertype_raw = frame.get::<u16>(16)?;
        if !is_vlan(ethertype_raw) {
            return Some(Self { l3: 18, ethertype_raw });
        }
        Some(Self { l3: 22, ethertype_raw: frame.get::<u16>(20)? })
    }

    #[inline(always)]
    pub const fn tagged(self) -> bool {
        self.l3 != 14
    }
}

#[inline(always)]
const fn is_vlan(ethertype_raw: u16) -> bool {
    ethertype_raw == ETHERTYPE_VLAN.to_be() || ethertype_raw == ETHERTYPE_QINQ.to_be()
}
