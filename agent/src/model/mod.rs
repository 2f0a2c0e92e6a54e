//! Nouns: ids, units, what an operator wants and what is seen.
//!
//! Owns: types that cannot be wrong. Refuses: I/O, clocks, `Serialize`.

mod allocation;
mod copy;
mod ids;
mod reserve;
mod spec;
mod view;
mod vm;

pub use allocation::{
    Amounts, Demand, Grade, Grant, HUGE_PAGE_BYTES, Need, NotInForce, Owner, Plan, Planned,
    Priority, Reason, Refusal, Resource, Risk, RiskError, Shortage,
};
pub use copy::{GhostState, GuestEnd, PrimaryState};
pub use ids::{CounterIndex, IdError, Ifindex, InstanceName, SlotIndex};
pub use reserve::{Allocation, Portion, Reserve, Stake, scaled};
pub use spec::{
    Affinity, InstanceSpec, L4, Limits, PortSpec, Protocol, RouteSpec, Service, Target, UplinkMode,
};
pub use view::{
    EventView, HostView, InstanceView, PortView, RouteView, Snapshot, SwitchView, Trouble,
    UplinkView, XdpMode,
};
pub use vm::{CopyId, Health, MacAddress, Network, VmSpec, beside};
