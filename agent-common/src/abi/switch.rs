//! Switches: where all routes of an instance point now.

/// Where a switch points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Position {
    Primary = 1,
    Ghost = 2,
    /// Flows the ghost owns stay with it, everything else goes to the primary.
    Draining = 3,
}

impl Position {
    #[inline(always)]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Primary),
            2 => Some(Self::Ghost),
            3 => Some(Self::Draining),
            _ => None,
        }
    }
}

/// Why a switch moved last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// The daemon or an operator stored it.
    Commanded = 1,
    /// `reboot(2)` in the instance's own PID namespace.
    InstanceReboot = 2,
    /// `reboot(2)` in the host's PID namespace.
    HostReboot = 3,
    /// The primary's guest reset itself or fell over, seen by KVM.
    GuestReset = 4,
}

impl Cause {
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Commanded),
            2 => Some(Self::InstanceReboot),
            3 => Some(Self::HostReboot),
            4 => Some(Self::GuestReset),
            _ => None,
        }
    }
}

/// Bits of [`Control::flags`].
pub mod flags {
    /// The kernel may throw this switch by itself, and it follows the host switch.
    pub const ARMED: u8 = 1;
    /// Flows to the ghost are recorded, so that the switch can drain.
    pub const TRACK: u8 = 2;
    /// A lapsed lease steers to the ghost.
    pub const LAPSE: u8 = 4;
}

/// The first eight bytes of a [`Switch`], read and stored as one aligned word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Control {
    /// A [`Position`] tag; zero marks an unused slot.
    pub position: u8,
    /// Bits from [`flags`].
    pub flags: u8,
    /// The [`HostSwitch::generation`] this slot has already answered to.
    pub host_generation_seen: u16,
    /// Fencing token of the present owner.
    pub term: u32,
}

impl Control {
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let b = word.to_ne_bytes();
        Self {
            position: b[0],
            flags: b[1],
            host_generation_seen: u16::from_ne_bytes([b[2], b[3]]),
            term: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        }
    }

    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let g = self.host_generation_seen.to_ne_bytes();
        let t = self.term.to_ne_bytes();
        u64::from_ne_bytes([
            self.position,
            self.flags,
            g[0],
            g[1],
            t[0],
            t[1],
            t[2],
            t[3],
        ])
    }

    /// Where the slot points, given the host switch. `None` for an unused slot.
    ///
    /// An armed slot that has not yet answered to the host switch's present
    /// generation points at the ghost: that is how one store to the host
    /// switch moves every instance.
    #[inline(always)]
    pub const fn effective(self, host_generation: u16) -> Option<Position> {
        if self.position == 0 {
            return None;
        }
        if self.flags & flags::ARMED != 0 && self.host_generation_seen != host_generation {
            return Some(Position::Ghost);
        }
        Position::from_tag(self.position)
    }

    /// The same slot with other flags, pointing where it points now.
    ///
    /// Arming must not let an old throw of the host switch move the slot, and
    /// disarming must not undo one, so a change of [`flags::ARMED`] answers
    /// to the host switch in the same word.
    #[inline]
    pub const fn reflagged(self, set: u8, clear: u8, host_generation: u16) -> Self {
        let new_flags = (self.flags & !clear) | set;
        let Some(position) = self.effective(host_generation) else {
            return self;
        };
        if (new_flags ^ self.flags) & flags::ARMED == 0 {
            return Self {
                flags: new_flags,
                ..self
            };
        }
        Self {
            position: position as u8,
            flags: new_flags,
            host_generation_seen: host_generation,
            term: self.term,
        }
    }
}

/// One slot of `gd_switches`, a cache line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Switch {
    pub control: Control,
    /// CLOCK_MONOTONIC deadline in ns up to which the primary may act; 0 is "no lease".
    pub lease_ns: u64,
    /// A flow without a packet for this long has ended; ns.
    pub drain_idle_ns: u64,
    /// CLOCK_MONOTONIC time of the last move in ns; 0 is "never moved".
    pub moved_ns: u64,
    /// A [`Cause`] tag, or 0 before the first move.
    pub cause: u8,
    pub pad0: [u8; 3],
    /// Process that caused the last move, as the host sees it; 0 is unknown.
    pub cause_pid: u32,
    /// CLOCK_MONOTONIC of the last report of a guest's reset while the slot was
    /// not armed, in ns.
    pub unarmed_seen_ns: u64,
    pub pad1: [u64; 2],
}

impl Switch {
    /// A slot that is not used: all zeros.
    pub const UNUSED: Self = Self {
        control: Control::from_word(0),
        lease_ns: 0,
        drain_idle_ns: 0,
        moved_ns: 0,
        cause: 0,
        pad0: [0; 3],
        cause_pid: 0,
        unarmed_seen_ns: 0,
        pad1: [0; 2],
    };
}

/// The one slot of `gd_host_switch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct HostSwitch {
    /// Grows by one with each throw, wraps; read and stored as one aligned word.
    pub generation: u64,
    /// CLOCK_MONOTONIC time of the last throw in ns; 0 is "never thrown".
    pub thrown_ns: u64,
    pub cause_pid: u32,
    pub pad0: u32,
    pub pad1: [u64; 5],
}

impl HostSwitch {
    /// The generation as slots keep it.
    #[inline(always)]
    pub const fn short(generation: u64) -> u16 {
        (generation & 0xffff) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_flags_never_move_a_slot() {
        for (position, flags, set, clear) in (0..4u8)
            .flat_map(|p| (0..8u8).map(move |f| (p, f)))
            .flat_map(|(p, f)| (0..64u8).map(move |c| (p, f, c & 7, c >> 3)))
        {
            let slot = Control {
                position,
                flags,
                host_generation_seen: 1,
                term: 9,
            };
            for generation in [1, 2] {
                let after = slot.reflagged(set, clear, generation);
                assert_eq!(after.effective(generation), slot.effective(generation));
                assert_eq!(after.term, slot.term);
                if position != 0 {
                    assert_eq!(after.flags, (flags & !clear) | set);
                }
            }
        }
    }
}
