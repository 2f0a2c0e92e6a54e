//! Ports: the interfaces behind which instances' copies sit.

/// Which copy of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Side {
    Primary = 1,
    Ghost = 2,
}

impl Side {
    #[inline(always)]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Primary),
            2 => Some(Self::Ghost),
            _ => None,
        }
    }
}

/// What a copy that may not speak is still allowed to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FenceMode {
    /// Everything: no fence.
    Off = 1,
    /// ARP and neighbour discovery only, so that neighbours stay resolved.
    /// For copies with an address of their own.
    Quiet = 2,
    /// Nothing. For copies that share MAC and IP address.
    Silent = 3,
}

impl FenceMode {
    #[inline(always)]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Off),
            2 => Some(Self::Quiet),
            3 => Some(Self::Silent),
            _ => None,
        }
    }
}

/// Value of `gd_ports`, keyed by interface index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Port {
    /// Slot in `gd_switches`.
    pub switch: u32,
    /// A [`Side`] tag.
    pub side: u8,
    /// A [`FenceMode`] tag.
    pub fence: u8,
    pub pad: [u8; 2],
    /// CLOCK_MONOTONIC deadline in ns up to which the copy may speak; 0 is "no lease".
    pub lease_ns: u64,
    /// Frames the fence let pass and dropped. Plain adds by one interface's
    /// queues: an undercount under contention is accepted.
    pub fenced_packets: u64,
    /// Term under which the copy runs; 0 is "not under terms".
    pub term: u32,
    pub pad1: u32,
}
