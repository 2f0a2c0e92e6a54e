//! Events: what the kernel side tells the daemon, through a ring buffer.

/// Bytes of a task's command name, NUL-padded.
pub const COMM_BYTES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// `reboot(2)` in the host's PID namespace: the host switch was thrown.
    HostReboot = 1,
    /// `reboot(2)` in an instance's own PID namespace: its switch was thrown.
    InstanceReboot = 2,
    /// As [`Self::InstanceReboot`], but the switch was not armed.
    InstanceRebootUnarmed = 3,
    /// The reboot call came back with an error: nothing restarts.
    RebootFailed = 4,
    /// The primary's guest reset itself or fell over: its switch was thrown.
    GuestReset = 5,
    /// As [`Self::GuestReset`], but the switch was not armed. At most once in
    /// [`UNARMED_GAP_NS`] for each instance: a guest may do it in a loop.
    GuestResetUnarmed = 6,
}

/// Between two reports of a guest whose switch is not armed, in ns.
pub const UNARMED_GAP_NS: u64 = 1_000_000_000;

impl EventKind {
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::HostReboot),
            2 => Some(Self::InstanceReboot),
            3 => Some(Self::InstanceRebootUnarmed),
            4 => Some(Self::RebootFailed),
            5 => Some(Self::GuestReset),
            6 => Some(Self::GuestResetUnarmed),
            _ => None,
        }
    }
}

/// What a guest did that ends it, as KVM saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestSignal {
    /// A write to a port; the lowest byte of it.
    Port { port: u16, value: u8 },
    /// A reason for which KVM handed the vCPU back (include/uapi/linux/kvm.h).
    Exit { reason: u16 },
}

impl GuestSignal {
    const EXIT: u32 = 1 << 31;

    /// For [`Event::command`].
    #[inline(always)]
    pub const fn to_word(self) -> u32 {
        match self {
            Self::Port { port, value } => (value as u32) << 16 | port as u32,
            Self::Exit { reason } => Self::EXIT | reason as u32,
        }
    }

    pub const fn from_word(word: u32) -> Self {
        let low = (word & 0xffff) as u16;
        if word & Self::EXIT != 0 {
            return Self::Exit { reason: low };
        }
        Self::Port {
            port: low,
            value: (word >> 16 & 0xff) as u8,
        }
    }
}

/// A record of `gd_events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Event {
    /// An [`EventKind`] tag.
    pub kind: u8,
    pub pad: [u8; 3],
    /// Slot in `gd_switches`; `u32::MAX` for the host.
    pub switch: u32,
    /// The caller as the initial PID namespace sees it: thread group and thread.
    pub pid: u32,
    pub tid: u32,
    pub uid: u32,
    pub gid: u32,
    /// The `cmd` argument of `reboot(2)` (include/uapi/linux/reboot.h); of a
    /// guest, a [`GuestSignal`].
    pub command: u32,
    /// [`EventKind::RebootFailed`]: the negative errno; else 0.
    pub result: i32,
    pub cgroup_id: u64,
    /// CLOCK_MONOTONIC on entry to the program, in ns.
    pub entered_ns: u64,
    /// CLOCK_MONOTONIC right after the switch was stored, in ns; 0 where none was.
    pub thrown_ns: u64,
    /// Generation of the host switch after the call.
    pub host_generation: u64,
    pub comm: [u8; COMM_BYTES],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_come_back_from_their_words() {
        for port in [0, 0x64, 0xcf9, 0xffff] {
            for value in 0..=u8::MAX {
                let signal = GuestSignal::Port { port, value };
                assert_eq!(GuestSignal::from_word(signal.to_word()), signal);
            }
        }
        for reason in [0, 8, 24, u16::MAX] {
            let signal = GuestSignal::Exit { reason };
            assert_eq!(GuestSignal::from_word(signal.to_word()), signal);
        }
    }
}
