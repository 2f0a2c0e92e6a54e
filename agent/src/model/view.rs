//! What is seen: a snapshot of what the kernel really holds.
//!
//! Made from pinned maps alone, so that `ghostctl` can make one when the
//! daemon is dead.

use std::time::Duration;

use agent_common::abi::{Cause, EventKind, FenceMode, Position, RouteCounters, Side};

use super::{CounterIndex, Ifindex, RouteSpec, SlotIndex};

/// How an XDP program is attached, as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    Native,
    Generic,
    Offloaded,
}

/// An interface that carries one of our XDP programs, or should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkView {
    /// Empty when the interface is gone.
    pub interface: String,
    pub ifindex: Ifindex,
    /// `None`: the pinned link is there, but attached to nothing (interface gone).
    pub mode: Option<XdpMode>,
    /// Kernel id of the attached program.
    pub program_id: u32,
    pub program: String,
}

/// A switch, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchView {
    /// Where packets really go, the host switch taken into account.
    pub position: Position,
    /// Where the slot itself points.
    pub own_position: Position,
    /// The host switch overrides the slot.
    pub by_host: bool,
    pub armed: bool,
    pub tracked: bool,
    pub term: u32,
    pub cause: Option<Cause>,
    pub cause_pid: u32,
    /// Time since the last move; `None` if it never moved.
    pub moved_ago: Option<Duration>,
    /// Flows of the ghost that are still alive; counted only while draining.
    pub draining_flows: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteView {
    pub spec: RouteSpec,
    pub counter: CounterIndex,
    /// Summed over CPUs.
    pub counters: RouteCounters,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortView {
    pub interface: String,
    pub ifindex: Ifindex,
    pub side: Side,
    pub fence: FenceMode,
    pub fenced_packets: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// As recorded in the kernel; unconfigured instances show up too.
    pub name: String,
    pub slot: SlotIndex,
    pub switch: SwitchView,
    pub routes: Vec<RouteView>,
    pub ports: Vec<PortView>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    pub generation: u64,
    /// Time since the host switch was thrown; `None` if it never was.
    pub thrown_ago: Option<Duration>,
    pub cause_pid: u32,
    pub abi_version: u32,
    pub ghostd_version: String,
}

/// Everything that is pinned, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub host: HostView,
    /// Sorted by name.
    pub instances: Vec<InstanceView>,
    pub uplinks: Vec<UplinkView>,
    /// What is not as it should be. Of what is configured only a running
    /// daemon knows.
    pub troubles: Vec<Trouble>,
}

/// Something that keeps steering from being whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// An interface that should carry a program carries none of ours.
    Bare { interface: String },
    /// An interface carries its program in another mode than configured.
    OtherMode { interface: String, mode: XdpMode },
    /// A tracepoint's link is gone from the pins: reboots are not seen.
    Unwatched { pin: &'static str },
    /// A link to one of KVM's tracepoints is not there: guests' resets are not
    /// seen. So it is where there is no KVM.
    GuestsUnwatched { pin: &'static str },
    /// What the daemon could not do, and why.
    Failed { what: String },
}

/// An event of the kernel side, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventView {
    pub kind: EventKind,
    /// `None` for the host.
    pub slot: Option<SlotIndex>,
    pub pid: u32,
    pub tid: u32,
    pub uid: u32,
    pub gid: u32,
    pub comm: String,
    /// Raw `cmd` argument of `reboot(2)`.
    pub command: u32,
    /// Errno of a reboot call that failed.
    pub errno: Option<i32>,
    pub cgroup_id: u64,
    /// CLOCK_MONOTONIC.
    pub entered: Duration,
    /// From entry to the program until the switch was stored; `None` if none was.
    pub throw_took: Option<Duration>,
    pub host_generation: u64,
}
