//! Kernel ABI: what is written into pinned BPF maps.
//!
//! Integers and byte arrays only, padding explicit, sizes pinned at compile
//! time, fields in network byte order suffixed `_be`. Zero is never a valid
//! tag, so an all-zero map slot always means "unused".
//!
//! A change to any layout here is a change of [`ABI_VERSION`]: the loader
//! compares it before it adopts pinned maps. A new tag is none: what an older
//! program does not know it leaves alone, as it does a zero.

mod counters;
mod event;
mod flow;
mod hop;
mod instance;
pub mod names;
mod port;
mod route;
mod switch;
mod task;

pub use counters::{ROUTE_REASONS, Reason, RouteCounters};
pub use event::{COMM_BYTES, Event, EventKind, GuestSignal, UNARMED_GAP_NS};
pub use flow::{Flow, FlowKey, FragKey, Fragment, RECENT_SLOTS, Recent};
pub use hop::{EGRESS_REFLECT, EGRESS_SLOTS, HOP_SLOTS, Hop, IcmpBudget};
pub use instance::{INSTANCE_NAME_BYTES, InstanceRecord, Meta};
pub use port::{FenceMode, Port, Side};
pub use route::{
    FILTER_WORDS, Filter, ReverseV4, ReverseV6, RouteKeyV4, RouteKeyV6, RouteV4, RouteV6,
    TargetKind, TargetV4, TargetV6,
};
pub use switch::{Cause, Control, HostSwitch, Position, Switch, flags};
pub use task::TaskOffsets;

/// Version of every layout in this module.
pub const ABI_VERSION: u32 = 1;

/// A kernel ABI struct that may be copied to and from a map as plain bytes.
///
/// # Safety
///
/// The type is `repr(C)`, has no padding and no pointer, and every bit
/// pattern of it is valid.
#[allow(unsafe_code)]
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($type:ty: $size:literal),+ $(,)?) => {$(
        const _: () = assert!(size_of::<$type>() == $size);
        // SAFETY: `repr(C)`, explicit padding, integers and byte arrays only;
        // the size assertion above leaves no room for implicit padding.
        #[allow(unsafe_code)]
        unsafe impl Plain for $type {}

        // SAFETY: as for `Plain`.
        #[cfg(feature = "user")]
        #[allow(unsafe_code)]
        unsafe impl aya::Pod for $type {}
    )+};
}

plain! {
    Event: 80,
    Flow: 16,
    FlowKey: 40,
    FragKey: 40,
    Fragment: 16,
    Hop: 64,
    HostSwitch: 64,
    IcmpBudget: 16,
    InstanceRecord: 64,
    Meta: 64,
    Port: 32,
    Recent: 64,
    ReverseV4: 16,
    ReverseV6: 32,
    RouteCounters: 192,
    RouteKeyV4: 8,
    RouteKeyV6: 20,
    RouteV4: 24,
    RouteV6: 48,
    Switch: 64,
    TaskOffsets: 48,
}
