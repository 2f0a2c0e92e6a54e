//! State: host, uplinks, instances, switches, findings.

use std::time::Duration;

use agent_common::abi::{Cause, FenceMode, Position, Side};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FindingDto, Severity, TrafficDto, VmDto};
use crate::model::{HostView, InstanceView, PortView, Snapshot, SwitchView, UplinkView, XdpMode};

/// Where a switch points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PositionDto {
    Primary,
    Ghost,
    /// Flows of the ghost stay with it, everything else goes to the primary.
    Draining,
}

/// Why a switch moved last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CauseDto {
    Commanded,
    InstanceReboot,
    HostReboot,
    /// The primary's guest reset itself or fell over.
    GuestReset,
}

/// A copy of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SideDto {
    Primary,
    Ghost,
}

/// What a copy that may not speak is still allowed to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FenceDto {
    Off,
    /// Address resolution only.
    Quiet,
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum XdpModeDto {
    Native,
    Generic,
    Offloaded,
}

/// Who read the kernel's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The running daemon.
    Daemon,
    /// `ghostctl`, from the pinned maps, because no daemon answered.
    Pins,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostSwitchDto {
    /// Grows by one with each throw.
    pub generation: u64,
    /// Time since the last throw; null if it was never thrown.
    pub thrown_ago_ms: Option<u64>,
    /// Process that threw it last; 0 is unknown.
    pub cause_pid: u32,
    /// Instances that it moves to their ghosts now.
    pub moves_instances: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostDto {
    /// As configured. Null where it was read from the pins, which do not tell.
    pub name: Option<String>,
    /// Version of the ghostd that loaded the programs.
    pub ghostd_version: String,
    /// Layout version of the pinned maps.
    pub abi_version: u32,
    pub switch: HostSwitchDto,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UplinkDto {
    /// Empty when the interface is gone.
    pub interface: String,
    pub ifindex: u32,
    /// Null when the interface is gone.
    pub mode: Option<XdpModeDto>,
    pub program: String,
    /// Kernel id of the attached program.
    pub program_id: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchDto {
    pub instance: String,
    /// Index in `gd_switches`.
    pub slot: u32,
    /// Where packets really go, the host switch taken into account.
    pub position: PositionDto,
    /// Where the slot itself points.
    pub own_position: PositionDto,
    /// The host switch overrides the slot.
    pub by_host: bool,
    /// The kernel may throw this switch by itself.
    pub armed: bool,
    /// Flows to the ghost are recorded, so that the switch can drain.
    pub tracked: bool,
    pub term: u32,
    /// Null before the first move.
    pub cause: Option<CauseDto>,
    /// Process that caused the last move, as the host sees it; 0 is unknown.
    pub cause_pid: u32,
    /// Null if it never moved.
    pub moved_ago_ms: Option<u64>,
    /// Flows of the ghost that are alive; counted only while draining.
    pub draining_flows: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortDto {
    pub interface: String,
    pub ifindex: u32,
    pub side: SideDto,
    pub fence: FenceDto,
    /// Frames that the fence dropped.
    pub fenced_packets: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceDto {
    pub name: String,
    pub switch: SwitchDto,
    pub routes: usize,
    /// Summed over the routes.
    pub traffic: TrafficDto,
    pub ports: Vec<PortDto>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusDto {
    pub source: Source,
    pub host: HostDto,
    pub uplinks: Vec<UplinkDto>,
    /// Sorted by name.
    pub instances: Vec<InstanceDto>,
    /// Those of the instances that this host runs itself, sorted by name.
    pub microvms: Vec<VmDto>,
    pub findings: Vec<FindingDto>,
}

impl StatusDto {
    pub fn of(
        source: Source,
        host: Option<String>,
        seen: &Snapshot,
        findings: Vec<FindingDto>,
    ) -> Self {
        Self {
            source,
            host: HostDto::of(host, seen),
            uplinks: seen.uplinks.iter().map(UplinkDto::from).collect(),
            instances: seen.instances.iter().map(InstanceDto::from).collect(),
            microvms: Vec::new(),
            findings,
        }
    }

    /// Nothing worse than an [`Severity::Info`] was found.
    pub fn healthy(&self) -> bool {
        self.findings.iter().all(|f| f.severity == Severity::Info)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchesDto {
    pub host: HostSwitchDto,
    /// Sorted by instance.
    pub switches: Vec<SwitchDto>,
}

/// Saturates: an age of half a billion years is as good as any above it.
pub fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<Position> for PositionDto {
    fn from(position: Position) -> Self {
        match position {
            Position::Primary => Self::Primary,
            Position::Ghost => Self::Ghost,
            Position::Draining => Self::Draining,
        }
    }
}

impl From<Cause> for CauseDto {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Commanded => Self::Commanded,
            Cause::InstanceReboot => Self::InstanceReboot,
            Cause::HostReboot => Self::HostReboot,
            Cause::GuestReset => Self::GuestReset,
        }
    }
}

impl From<Side> for SideDto {
    fn from(side: Side) -> Self {
        match side {
            Side::Primary => Self::Primary,
            Side::Ghost => Self::Ghost,
        }
    }
}

impl From<FenceMode> for FenceDto {
    fn from(fence: FenceMode) -> Self {
        match fence {
            FenceMode::Off => Self::Off,
            FenceMode::Quiet => Self::Quiet,
            FenceMode::Silent => Self::Silent,
        }
    }
}

impl From<XdpMode> for XdpModeDto {
    fn from(mode: XdpMode) -> Self {
        match mode {
            XdpMode::Native => Self::Native,
            XdpMode::Generic => Self::Generic,
            XdpMode::Offloaded => Self::Offloaded,
        }
    }
}

impl HostSwitchDto {
    pub fn of(seen: &Snapshot) -> Self {
        let moved = seen.instances.iter().filter(|i| i.switch.by_host);
        Self {
            generation: seen.host.generation,
            thrown_ago_ms: seen.host.thrown_ago.map(whole_ms),
            cause_pid: seen.host.cause_pid,
            moves_instances: moved.count(),
        }
    }
}

impl HostDto {
    fn of(name: Option<String>, seen: &Snapshot) -> Self {
        let HostView {
            generation: _,
            thrown_ago: _,
            cause_pid: _,
            abi_version,
            ghostd_version,
        } = &seen.host;
        Self {
            name,
            ghostd_version: ghostd_version.clone(),
            abi_version: *abi_version,
            switch: HostSwitchDto::of(seen),
        }
    }
}

impl From<&UplinkView> for UplinkDto {
    fn from(seen: &UplinkView) -> Self {
        let UplinkView {
            interface,
            ifindex,
            mode,
            program_id,
            program,
        } = seen;
        Self {
            interface: interface.clone(),
            ifindex: ifindex.get(),
            mode: mode.map(XdpModeDto::from),
            program: program.clone(),
            program_id: *program_id,
        }
    }
}

impl From<&InstanceView> for SwitchDto {
    fn from(seen: &InstanceView) -> Self {
        let SwitchView {
            position,
            own_position,
            by_host,
            armed,
            tracked,
            term,
            cause,
            cause_pid,
            moved_ago,
            draining_flows,
        } = seen.switch;
        Self {
            instance: seen.name.clone(),
            slot: seen.slot.0,
            position: position.into(),
            own_position: own_position.into(),
            by_host,
            armed,
            tracked,
            term,
            cause: cause.map(CauseDto::from),
            cause_pid,
            moved_ago_ms: moved_ago.map(whole_ms),
            draining_flows,
        }
    }
}

impl From<&PortView> for PortDto {
    fn from(seen: &PortView) -> Self {
        let PortView {
            interface,
            ifindex,
            side,
            fence,
            fenced_packets,
        } = seen;
        Self {
            interface: interface.clone(),
            ifindex: ifindex.get(),
            side: (*side).into(),
            fence: (*fence).into(),
            fenced_packets: *fenced_packets,
        }
    }
}

impl From<&InstanceView> for InstanceDto {
    fn from(seen: &InstanceView) -> Self {
        Self {
            name: seen.name.clone(),
            switch: seen.into(),
            routes: seen.routes.len(),
            traffic: TrafficDto::sum(seen.routes.iter().map(|r| &r.counters)),
            ports: seen.ports.iter().map(PortDto::from).collect(),
        }
    }
}

impl From<&Snapshot> for SwitchesDto {
    fn from(seen: &Snapshot) -> Self {
        Self {
            host: HostSwitchDto::of(seen),
            switches: switches(seen),
        }
    }
}

pub fn switches(seen: &Snapshot) -> Vec<SwitchDto> {
    seen.instances.iter().map(SwitchDto::from).collect()
}
