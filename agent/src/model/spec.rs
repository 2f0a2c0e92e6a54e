//! What an operator wants: instances, their routes and ports.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use agent_common::abi::{FenceMode, Side};

use super::{InstanceName, Stake, VmSpec};

/// Protocols that have ports a route can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// IANA protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Protocol and port of a port route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct L4 {
    pub protocol: Protocol,
    /// Never zero.
    pub port: u16,
}

/// The address that clients use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Service {
    pub addr: IpAddr,
    /// `None` for an address route: all protocols and ports.
    pub l4: Option<L4>,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addr, self.l4) {
            (addr, None) => write!(f, "{addr}"),
            (IpAddr::V4(a), Some(l4)) => write!(f, "{}://{a}:{}", l4.protocol.name(), l4.port),
            (IpAddr::V6(a), Some(l4)) => write!(f, "{}://[{a}]:{}", l4.protocol.name(), l4.port),
        }
    }
}

/// Where packets go for one side of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The side owns the service address itself: packets go on untouched.
    Native,
    /// The destination is rewritten; the port only on a port route.
    Translate { addr: IpAddr, port: Option<u16> },
    /// The side owns the service address too, behind another next hop: packets
    /// go untouched the way to this address.
    Via { addr: IpAddr },
}

/// One route of an instance. All its addresses are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteSpec {
    pub service: Service,
    pub primary: Target,
    pub ghost: Target,
}

/// Whether connections have to stay with the copy that opened them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// The ghost is memory-exact: connections go on whichever copy runs.
    None,
    /// Ghost and primary are separate servers: flows are tracked and drained.
    Connections {
        /// A flow without a packet for this long has ended.
        idle: Duration,
        /// Draining ends after this long, whatever flows are left.
        drain_max: Duration,
    },
}

/// A host-side interface behind which one copy of an instance sits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    pub interface: String,
    pub side: Side,
    pub fence: FenceMode,
}

/// An instance as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    pub name: InstanceName,
    /// The customer, for history and reports.
    pub owner: Option<String>,
    /// Absolute path of the primary's cgroup v2 directory: how the kernel
    /// knows whose `reboot(2)` it sees. May not exist yet.
    pub cgroup: Option<PathBuf>,
    /// Whether the kernel may throw this instance's switch by itself.
    pub armed: bool,
    pub affinity: Affinity,
    pub routes: Vec<RouteSpec>,
    pub ports: Vec<PortSpec>,
    /// A microVM that this host runs; `None` for one that others run.
    pub vm: Option<VmSpec>,
    pub stake: Stake,
}

/// How XDP programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UplinkMode {
    /// Native where the driver has it, generic where not.
    Auto,
    Native,
    Generic,
}

/// Sizes of kernel maps. They are fixed when the maps are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Routes of each family.
    pub routes: u32,
    /// Slots for instances.
    pub instances: u32,
    /// Flows tracked at once, for all instances together.
    pub flows: u32,
    /// Fragmented datagrams tracked at once.
    pub fragments: u32,
}

impl Limits {
    /// Entries of `gd_counters`: one for each route of either family.
    pub const fn counters(&self) -> u32 {
        self.routes.saturating_mul(2)
    }

    /// Entries of each reverse table: both sides of a route may be
    /// translated, and while one route changes both its old and its new
    /// targets are there.
    pub const fn reverse(&self) -> u32 {
        self.routes.saturating_mul(2).saturating_add(2)
    }
}
