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
}

impl EventKind {
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::HostReboot),
            2 => Some(Self::InstanceReboot),
            3 => Some(Self::InstanceRebootUnarmed),
            4 => Some(Self::RebootFailed),
            _ => None,
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
    /// The `cmd` argument of `reboot(2)` (include/uapi/linux/reboot.h).
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
