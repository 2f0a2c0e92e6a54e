//! What can be configured. Every field has its unit, its default, and why.

use std::path::PathBuf;

use super::problem::{Problem, Source, Span};
use crate::model::{Allocation, InstanceSpec, Limits, UplinkMode};

/// A configuration that is complete and contradicts itself nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub host: HostConfig,
    pub steering: SteeringConfig,
    pub limits: Limits,
    pub api: ApiConfig,
    pub ghosts: GhostsConfig,
    /// `[reserve]` and `[[owner]]`
    pub allocation: Allocation,
    pub instances: Vec<InstanceSpec>,
    /// What is odd, but no mistake. For the log.
    pub warnings: Vec<Problem>,
    /// For [`super::check_host`]. Holds the text of the file: take it away
    /// (`std::mem::take`) from a configuration that is kept.
    pub places: Places,
}

/// `[host]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// The host's name in status and reports. Default: the kernel's host
    /// name, which is what operators already call it.
    pub name: Option<String>,
}

/// `[steering]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SteeringConfig {
    /// Interfaces on which clients' packets arrive. At least one, and no
    /// default: a guess would attach a program to the wrong interface.
    pub uplinks: Vec<String>,
    /// Default `auto`: native where the driver has it, generic where not.
    /// Generic works everywhere but is several times slower.
    pub mode: UplinkMode,
    /// Whether to attach over somebody else's XDP program. Default `false`,
    /// because that program may well be the host's firewall.
    pub replace_foreign: bool,
    /// Folder on bpffs for maps, programs and links. Default
    /// `/sys/fs/bpf/ghostd`, where `ghostctl` looks when the daemon is dead.
    pub pins: PathBuf,
}

impl SteeringConfig {
    pub const PINS: &str = agent_common::abi::names::PIN_ROOT;
}

/// Defaults and bounds of `[limits]`. Memory is taken when the maps are made.
impl Limits {
    /// 4,096 routes of each family take about 2 MiB with their reverse
    /// entries, and 1.5 MiB for each CPU (counters); more than most hosts need.
    pub const ROUTES: u32 = 4096;
    /// Beyond a million the counters alone need gigabytes on a large host.
    pub const ROUTES_MAX: u32 = 1_000_000;
    /// 64 B each. No hypervisor of today runs more microVMs.
    pub const INSTANCES: u32 = 1024;
    pub const INSTANCES_MAX: u32 = 65_536;
    /// About 100 B each. The least recently seen flow gives way.
    pub const FLOWS: u32 = 65_536;
    pub const FLOWS_MAX: u32 = 1 << 24;
    /// Fragmented datagrams under way at once; each lives for some
    /// milliseconds, so 8,192 are plenty.
    pub const FRAGMENTS: u32 = 8192;
    pub const FRAGMENTS_MAX: u32 = 1 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            routes: Self::ROUTES,
            instances: Self::INSTANCES,
            flows: Self::FLOWS,
            fragments: Self::FRAGMENTS,
        }
    }
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Path of the unix socket. Default `/run/ghostd/ghostd.sock`: gone
    /// after a reboot, like everything it can answer about.
    pub socket: PathBuf,
    /// Groups whose members may command. Root always may. Default
    /// `ghostd-ops`; a group that does not exist has no members.
    pub operators: Vec<Group>,
    /// Groups whose members may only read. Default none: status tells which
    /// customers run where.
    pub readers: Vec<Group>,
}

impl ApiConfig {
    pub const SOCKET: &str = "/run/ghostd/ghostd.sock";
    pub const OPERATORS: &str = "ghostd-ops";
}

/// `[ghosts]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GhostsConfig {
    /// The program that runs a microVM. Default: the `ghost-vmm` beside the
    /// `ghostd` that runs, so that both are of one version.
    pub vmm: Option<PathBuf>,
}

/// A group, by name or by number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    Name(String),
    Id(u32),
}

/// Where the names of things outside stand in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    pub(super) source: Option<Source>,
    /// As in [`SteeringConfig::uplinks`].
    pub(super) uplinks: Vec<(String, Span)>,
    /// As in [`Config::instances`].
    pub(super) instances: Vec<InstancePlace>,
}

/// Where one instance's cgroup and its ports' interfaces stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct InstancePlace {
    pub(super) cgroup: Option<Span>,
    pub(super) ports: Vec<Span>,
}

impl Places {
    pub(super) fn new(source: &Source) -> Self {
        Self {
            source: Some(source.clone()),
            ..Self::default()
        }
    }
}
