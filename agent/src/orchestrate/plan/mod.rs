//! The plan: from what the kernel holds to what the configuration wants.
//!
//! Owns: the order in which maps are written, so that after each single
//! effect no packet is sent anywhere that neither the old nor the new
//! configuration names for its service. A new instance gets its slot, then
//! its switch, cgroup and ports, then filter bits, then for each route the
//! reverse entries and the route itself; removal goes the opposite way.
//! An instance that stays keeps its slot, position and term; a service that
//! stays keeps its counter.
//!
//! Refuses: I/O, clocks. Interface indices and cgroup ids are facts passed in.
//!
//! How it fails: [`PlanError`], before any effect. If carrying out stops half
//! way, read the kernel again and plan again: the rest of the way is a plan too.

mod assemble;
mod counters;
mod diff;
mod family;
mod slots;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::BTreeMap;

use agent_common::abi::{
    InstanceRecord, Port, ReverseV4, ReverseV6, RouteKeyV4, RouteKeyV6, RouteV4, RouteV6, Switch,
};

pub use slots::{record, recorded_name};

use crate::model::{CounterIndex, Ifindex, InstanceName, InstanceSpec, Limits, Service, SlotIndex};

/// Plans the way from `actual` to `desired`. Empty if there is nothing to do.
pub fn plan(
    desired: &[InstanceSpec],
    limits: &Limits,
    facts: &Facts,
    actual: &Actual,
) -> Result<Vec<Effect>, PlanError> {
    assemble::Assembly::new(desired, limits, facts, actual)?.effects(limits)
}

/// Why there is no way. Nothing has been done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("the configuration has {wanted} instances, the kernel's maps hold {limit}")]
    TooManyInstances { wanted: usize, limit: u32 },
    #[error("the configuration has {wanted} {family} routes, the kernel's maps hold {limit}")]
    TooManyRoutes {
        family: &'static str,
        wanted: usize,
        limit: u32,
    },
    #[error("two instances are called `{0}`")]
    SharedName(InstanceName),
    #[error("two routes serve {0}")]
    SharedService(Service),
    #[error("a target of {0} is a target of another route too")]
    SharedTarget(Service),
    #[error("the route of {0} has a target of the other address family")]
    MixedFamilies(Service),
    #[error("a target of {0} must name a port if, and only if, the service does")]
    PortMismatch(Service),
    #[error("ports `{first}` and `{second}` are one interface")]
    SharedInterface { first: String, second: String },
    #[error("instances `{first}` and `{second}` have one cgroup")]
    SharedCgroup {
        first: InstanceName,
        second: InstanceName,
    },
    #[error("no slot of `gd_instances` is free")]
    NoSlot,
    #[error("no slot of `gd_counters` is free")]
    NoCounter,
}

/// One write to a map. The executor does exactly this, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Store the name in `gd_instances`. The slot's switch is still all zero.
    ClaimSlot {
        slot: SlotIndex,
        record: InstanceRecord,
    },
    /// Store the whole slot of `gd_switches`: position primary, and the host
    /// switch's present generation as seen, so that an old throw does not
    /// move a new instance.
    InitSwitch {
        slot: SlotIndex,
        switch: Switch,
    },
    /// Store `drain_idle_ns`, then change the flags in one store of the
    /// control word. Where the slot points must not change, so the new word
    /// is [`agent_common::abi::Control::reflagged`] of the present one.
    SetFlags {
        slot: SlotIndex,
        set: u8,
        clear: u8,
        drain_idle_ns: u64,
    },
    /// Insert or replace in `gd_cgroups`.
    PutCgroup {
        cgroup_id: u64,
        slot: SlotIndex,
    },
    /// Insert or replace in `gd_ports`. Lease, term and count of a port that
    /// was there are kept in `port` as they were read.
    PutPort {
        ifindex: Ifindex,
        port: Port,
    },
    /// Store whole words of `gd_filter`, in any order. Before new entries the
    /// words hold old and new bits; the last effect of a plan drops old ones.
    PutFilter {
        words: Vec<FilterWord>,
    },
    /// Zero the counters, on all CPUs, of an index that no route uses.
    ResetCounter {
        counter: CounterIndex,
    },
    /// Insert or replace in `gd_reverse_v4`.
    PutReverseV4 {
        key: RouteKeyV4,
        value: ReverseV4,
    },
    /// Insert or replace in `gd_reverse_v6`.
    PutReverseV6 {
        key: RouteKeyV6,
        value: ReverseV6,
    },
    /// Insert or replace in `gd_routes_v4`; replacing is one update in place.
    PutRouteV4 {
        key: RouteKeyV4,
        value: RouteV4,
    },
    /// Insert or replace in `gd_routes_v6`; replacing is one update in place.
    PutRouteV6 {
        key: RouteKeyV6,
        value: RouteV6,
    },
    DeleteRouteV4 {
        key: RouteKeyV4,
    },
    DeleteRouteV6 {
        key: RouteKeyV6,
    },
    DeleteReverseV4 {
        key: RouteKeyV4,
    },
    DeleteReverseV6 {
        key: RouteKeyV6,
    },
    DeletePort {
        ifindex: Ifindex,
    },
    DeleteCgroup {
        cgroup_id: u64,
    },
    /// Store an all-zero slot in `gd_switches`.
    ClearSwitch {
        slot: SlotIndex,
    },
    /// Store an all-zero record in `gd_instances`.
    ReleaseSlot {
        slot: SlotIndex,
    },
}

/// One word of `gd_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterWord {
    pub index: u32,
    pub bits: u64,
}

/// What the host says about names in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Interfaces that exist. A port on any other gets no entry.
    pub ifindex: BTreeMap<String, Ifindex>,
    /// Ids (inode numbers) of the cgroups that exist. Others get no entry.
    pub cgroup_id: BTreeMap<InstanceName, u64>,
}

/// What the kernel holds, as read from the maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    /// Slots whose record or switch is not all zero.
    pub slots: BTreeMap<SlotIndex, ActualSlot>,
    pub routes_v4: BTreeMap<RouteKeyV4, RouteV4>,
    pub routes_v6: BTreeMap<RouteKeyV6, RouteV6>,
    pub reverse_v4: BTreeMap<RouteKeyV4, ReverseV4>,
    pub reverse_v6: BTreeMap<RouteKeyV6, ReverseV6>,
    pub ports: BTreeMap<Ifindex, Port>,
    pub cgroups: BTreeMap<u64, SlotIndex>,
    /// All words of `gd_filter`; missing ones count as zero.
    pub filter: Vec<u64>,
    /// `HostSwitch::generation`.
    pub host_generation: u64,
}

/// One slot of `gd_instances` and `gd_switches`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActualSlot {
    pub record: InstanceRecord,
    pub switch: Switch,
}
