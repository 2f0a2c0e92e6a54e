//! Events, as lines of the stream.

use agent_common::abi;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{PositionDto, SideDto};
use crate::{
    model::EventView,
    orchestrate::{
        command::Caller,
        event::{DrainEnd, Event, EventKind},
    },
};

/// One line of `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "line", rename_all = "snake_case", deny_unknown_fields)]
pub enum EventLine {
    Event {
        /// Counts up from 1 within one run of the daemon.
        sequence: u64,
        /// RFC 3339, UTC, microseconds.
        #[schema(format = DateTime)]
        at: String,
        what: WhatDto,
    },
    /// This reader missed so many events: they are no longer kept, or it read too slowly.
    Lost { events: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum WhatDto {
    Started {
        version: String,
        /// Pinned state of an earlier run was taken over.
        adopted: bool,
    },
    Stopping {},
    ConfigReloaded {
        instances: usize,
        routes: usize,
    },
    ConfigRefused {
        diagnostic: String,
    },
    Reboot {
        /// Null for the host.
        instance: Option<String>,
        seen: RebootDto,
    },
    SwitchMoved {
        /// Null for the host switch.
        instance: Option<String>,
        to: PositionDto,
        by: CallerDto,
    },
    Drained {
        instance: String,
        flows_left: u64,
        reason: DrainEndDto,
    },
    Attached {
        interface: String,
        mode: String,
    },
    InterfaceGone {
        interface: String,
    },
    /// A copy of an instance that this host runs is something else now.
    CopyChanged {
        instance: String,
        side: SideDto,
        state: String,
        epoch: Option<u64>,
        reason: Option<String>,
    },
    /// A ghost was tried out.
    Drilled {
        instance: String,
        is_healthy: bool,
        what: String,
    },
    Degraded {
        what: String,
    },
    /// Kernel events that came faster than the daemon read them.
    KernelEventsLost {
        count: u64,
    },
}

/// What the kernel noticed, and whether it threw a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerDto {
    /// `reboot(2)` on the host: the host switch was thrown.
    HostReboot,
    /// `reboot(2)` in the instance: its switch was thrown.
    InstanceReboot,
    /// As above, but the switch was not armed.
    InstanceRebootUnarmed,
    /// The reboot call came back with an error: nothing restarts.
    RebootFailed,
    /// The primary's guest reset itself or fell over: its switch was thrown.
    GuestReset,
    /// As above, but the switch was not armed.
    GuestResetUnarmed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RebootDto {
    pub trigger: TriggerDto,
    /// Index in `gd_switches`; null for the host.
    pub slot: Option<u32>,
    /// The caller, as the initial PID namespace sees it.
    pub pid: u32,
    pub tid: u32,
    pub uid: u32,
    pub gid: u32,
    pub comm: String,
    /// Raw `cmd` argument of `reboot(2)`; of a guest, what it did, in one word.
    pub command: u32,
    /// Its name in `linux/reboot.h` without the prefix, such as `RESTART`; of a
    /// guest, such as `port 0x64 value 0xfe` or `KVM_EXIT_SHUTDOWN`.
    pub command_name: Option<String>,
    /// Set when the call failed.
    pub errno: Option<i32>,
    pub cgroup_id: u64,
    /// CLOCK_MONOTONIC at the entry of the call.
    pub entered_ns: u64,
    /// From the entry of the call until the switch was stored; null if none was.
    pub throw_took_ns: Option<u64>,
    pub host_generation: u64,
}

/// The process that gave a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CallerDto {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrainEndDto {
    /// No flow of the ghost was left.
    Empty,
    /// The limit was reached with flows left.
    TimedOut,
}

/// Names of include/uapi/linux/reboot.h.
fn command_name(command: u32) -> Option<&'static str> {
    Some(match command {
        0x0123_4567 => "RESTART",
        0xcdef_0123 => "HALT",
        0x89ab_cdef => "CAD_ON",
        0x0000_0000 => "CAD_OFF",
        0x4321_fedc => "POWER_OFF",
        0xa1b2_c3d4 => "RESTART2",
        0xd000_fce2 => "SW_SUSPEND",
        0x4558_4543 => "KEXEC",
        _ => return None,
    })
}

/// What a guest did; exits by their names in include/uapi/linux/kvm.h.
fn signal_name(word: u32) -> String {
    match abi::GuestSignal::from_word(word) {
        abi::GuestSignal::Port { port, value } => format!("port {port:#x} value {value:#x}"),
        abi::GuestSignal::Exit { reason: 8 } => "KVM_EXIT_SHUTDOWN".to_owned(),
        abi::GuestSignal::Exit { reason: 24 } => "KVM_EXIT_SYSTEM_EVENT".to_owned(),
        abi::GuestSignal::Exit { reason } => format!("KVM exit {reason}"),
    }
}

fn whole_ns(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl From<&Event> for EventLine {
    fn from(event: &Event) -> Self {
        let Event { sequence, at, kind } = event;
        // A clock outside the years -9999 to 9999 is shown as the epoch.
        let at = jiff::Timestamp::try_from(*at).unwrap_or_default();
        Self::Event {
            sequence: *sequence,
            at: format!("{at:.6}"),
            what: kind.into(),
        }
    }
}

impl From<&EventKind> for WhatDto {
    fn from(kind: &EventKind) -> Self {
        match kind.clone() {
            EventKind::Started { version, adopted } => Self::Started { version, adopted },
            EventKind::Stopping => Self::Stopping {},
            EventKind::ConfigReloaded { instances, routes } => {
                Self::ConfigReloaded { instances, routes }
            }
            EventKind::ConfigRefused { diagnostic } => Self::ConfigRefused { diagnostic },
            EventKind::Reboot { instance, seen } => Self::Reboot {
                instance,
                seen: seen.into(),
            },
            EventKind::SwitchMoved { instance, to, by } => Self::SwitchMoved {
                instance,
                to: to.into(),
                by: by.into(),
            },
            EventKind::Drained {
                instance,
                flows_left,
                reason,
            } => Self::Drained {
                instance,
                flows_left,
                reason: reason.into(),
            },
            EventKind::Attached { interface, mode } => Self::Attached {
                interface,
                mode: mode.to_owned(),
            },
            EventKind::InterfaceGone { interface } => Self::InterfaceGone { interface },
            EventKind::CopyChanged {
                instance,
                side,
                state,
                epoch,
                reason,
            } => Self::CopyChanged {
                instance,
                side: side.into(),
                state: state.to_owned(),
                epoch,
                reason,
            },
            EventKind::Drilled {
                instance,
                is_healthy,
                what,
            } => Self::Drilled {
                instance,
                is_healthy,
                what,
            },
            EventKind::Degraded { what } => Self::Degraded { what },
            EventKind::Lost { count } => Self::KernelEventsLost { count },
        }
    }
}

impl From<EventView> for RebootDto {
    fn from(seen: EventView) -> Self {
        let EventView {
            kind,
            slot,
            pid,
            tid,
            uid,
            gid,
            comm,
            command,
            errno,
            cgroup_id,
            entered,
            throw_took,
            host_generation,
        } = seen;
        Self {
            trigger: kind.into(),
            slot: slot.map(|s| s.0),
            pid,
            tid,
            uid,
            gid,
            comm,
            command,
            command_name: match kind {
                abi::EventKind::GuestReset | abi::EventKind::GuestResetUnarmed => {
                    Some(signal_name(command))
                }
                _ => command_name(command).map(str::to_owned),
            },
            errno,
            cgroup_id,
            entered_ns: whole_ns(entered),
            throw_took_ns: throw_took.map(whole_ns),
            host_generation,
        }
    }
}

impl From<abi::EventKind> for TriggerDto {
    fn from(kind: abi::EventKind) -> Self {
        match kind {
            abi::EventKind::HostReboot => Self::HostReboot,
            abi::EventKind::InstanceReboot => Self::InstanceReboot,
            abi::EventKind::InstanceRebootUnarmed => Self::InstanceRebootUnarmed,
            abi::EventKind::RebootFailed => Self::RebootFailed,
            abi::EventKind::GuestReset => Self::GuestReset,
            abi::EventKind::GuestResetUnarmed => Self::GuestResetUnarmed,
        }
    }
}

impl From<Caller> for CallerDto {
    fn from(caller: Caller) -> Self {
        let Caller { pid, uid, gid } = caller;
        Self { pid, uid, gid }
    }
}

impl From<DrainEnd> for DrainEndDto {
    fn from(end: DrainEnd) -> Self {
        match end {
            DrainEnd::Empty => Self::Empty,
            DrainEnd::TimedOut => Self::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_names_of_the_kernel_header() {
        let known = [
            (libc::LINUX_REBOOT_CMD_RESTART, "RESTART"),
            (libc::LINUX_REBOOT_CMD_HALT, "HALT"),
            (libc::LINUX_REBOOT_CMD_CAD_ON, "CAD_ON"),
            (libc::LINUX_REBOOT_CMD_CAD_OFF, "CAD_OFF"),
            (libc::LINUX_REBOOT_CMD_POWER_OFF, "POWER_OFF"),
            (libc::LINUX_REBOOT_CMD_RESTART2, "RESTART2"),
            (libc::LINUX_REBOOT_CMD_SW_SUSPEND, "SW_SUSPEND"),
            (libc::LINUX_REBOOT_CMD_KEXEC, "KEXEC"),
        ];
        for (number, name) in known {
            assert_eq!(command_name(number.cast_unsigned()), Some(name));
        }
        assert_eq!(command_name(1), None);
    }

    #[test]
    fn a_line_reads_back_as_it_was_written() {
        let event = Event {
            sequence: 3,
            at: std::time::UNIX_EPOCH + std::time::Duration::from_micros(1_500_000),
            kind: EventKind::Stopping,
        };
        let line = EventLine::from(&event);
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(
            json,
            r#"{"line":"event","sequence":3,"at":"1970-01-01T00:00:01.500000Z","what":{"kind":"stopping"}}"#
        );
        assert_eq!(serde_json::from_str::<EventLine>(&json).unwrap(), line);
    }
}
