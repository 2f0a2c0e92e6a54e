//! What the verdict asks of its surroundings.

use super::{Addr, Ip, Ports};
use crate::abi::{Control, Filter, Flow, FlowKey, FragKey, Fragment, Reason, Side, TargetKind};

/// One side of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<A> {
    pub kind: TargetKind,
    pub addr: A,
    /// Zero leaves the port as it is.
    pub port_raw: u16,
}

/// A row of a route table.
pub trait Route<A> {
    /// Slot of the switch.
    fn switch(&self) -> u32;
    fn counter(&self) -> u32;
    fn target(&self, side: Side) -> Target<A>;
}

/// A row of a reverse table.
pub trait Reverse<A> {
    /// Slot of the switch.
    fn switch(&self) -> u32;
    fn counter(&self) -> u32;
    fn service(&self) -> A;
    /// Zero leaves the port as it is.
    fn port_raw(&self) -> u16;
    /// Whose packets these are.
    fn side(&self) -> Side;
}

/// A switch slot, its control word read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchState {
    pub control: Control,
    pub lease_ns: u64,
    pub drain_idle_ns: u64,
}

/// What a packet is to say, and the way it is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite<A> {
    pub src: A,
    pub dst: A,
    pub ports: Ports,
    /// Whose next hop it takes: that of [`Self::dst`], or of a
    /// [`TargetKind::Via`] target.
    pub toward: A,
    /// Whether those two differ, which the stack knows nothing of.
    pub via: bool,
}

impl<A: Addr> Rewrite<A> {
    /// What memory holds before anything was decided.
    pub const BLANK: Self = Self {
        src: A::ZERO,
        dst: A::ZERO,
        ports: Ports {
            src_raw: 0,
            dst_raw: 0,
        },
        toward: A::ZERO,
        via: false,
    };

    /// As the packet is.
    #[inline(always)]
    pub(super) fn keep(&mut self, ip: &Ip<A>, ports: Ports) {
        self.src = ip.src;
        self.dst = ip.dst;
        self.ports = ports;
        self.toward = ip.dst;
        self.via = false;
    }

    /// To a side of a route. A function of its own: a BPF program has 512 bytes
    /// of stack.
    #[inline(never)]
    pub(super) fn aim(&mut self, route: &A::RouteRow, side: Side) {
        let target = route.target(side);
        match target.kind {
            TargetKind::Native => {}
            TargetKind::Translate => {
                self.dst = target.addr;
                self.toward = target.addr;
                if target.port_raw != 0 {
                    self.ports.dst_raw = target.port_raw;
                }
            }
            TargetKind::Via => self.go_via(target.addr),
        }
    }

    /// As it is, by the next hop of another address.
    #[inline(always)]
    pub(super) fn go_via(&mut self, addr: A) {
        self.toward = addr;
        self.via = true;
    }

    /// Whether addresses stay what they are in `ip`.
    #[inline(always)]
    pub(super) fn keeps_addresses(&self, ip: &Ip<A>) -> bool {
        self.dst == ip.dst && self.src == ip.src
    }
}

/// How a packet leaves.
///
/// A flat struct and not an enum with data, like all that is handed on here:
/// what an enum's other variants leave undefined, the compiler may keep
/// undefined in a register, and the verifier refuses to see it stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    pub way: Way,
    /// With [`Way::Direct`]: the interface.
    pub egress: u32,
    /// With [`Way::Direct`]: the first 12 bytes of the frame, raw.
    pub macs: [u32; 3],
    /// With [`Way::Direct`] and [`Way::TooBig`]: path MTU in bytes.
    pub mtu: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Way {
    /// By an interface that XDP can send to.
    Direct = 1,
    /// It does not fit the path.
    TooBig = 2,
    /// The neighbour's MAC address is not known yet.
    Unresolved = 3,
    /// To this host itself.
    Local = 4,
    /// By a way only the stack can take.
    Up = 5,
    /// Forwarding is off where the packet came in.
    ForwardingOff = 6,
    /// The routing table refuses.
    Unreachable = 7,
}

impl NextHop {
    /// A way that needs no more words.
    #[inline(always)]
    pub const fn other(way: Way) -> Self {
        Self {
            way,
            egress: 0,
            macs: [0; 3],
            mtu: 0,
        }
    }
}

/// What is counted of a packet that a route names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    ToPrimary,
    ToGhost,
    Reverse,
}

/// Tables and services around the verdict. Rows are read through references
/// into BPF maps: each field once, and never two fields that must agree with a
/// row read before.
pub trait Kernel<A: Addr> {
    /// Whether the bit is set in the filter.
    fn may_match(&self, filter: Filter) -> bool;
    /// The row of exactly this address, port (raw) and protocol; an address
    /// route has zero for both.
    fn route(&self, addr: &A, port_raw: u16, protocol: u8) -> Option<&A::RouteRow>;
    /// As [`Self::route`], of the reverse table.
    fn reverse(&self, addr: &A, port_raw: u16, protocol: u8) -> Option<&A::ReverseRow>;
    fn switch(&self, slot: u32) -> Option<SwitchState>;
    fn host_generation(&self) -> u16;
    /// CLOCK_MONOTONIC, coarse: a scheduler tick of resolution is enough here.
    fn now_ns(&self) -> u64;
    /// Whether this CPU has asked this of the flow a moment ago. At most a
    /// tenth of a second: an evicted flow is missed no longer than that.
    fn asked_lately(&self, key: &FlowKey, now_ns: u64) -> bool;
    fn flow(&self, key: &FlowKey) -> Option<Flow>;
    fn put_flow(&self, key: &FlowKey, flow: &Flow);
    fn forget_flow(&self, key: &FlowKey);
    fn fragment(&self, key: &FragKey) -> Option<Fragment>;
    fn put_fragment(&self, key: &FragKey, fragment: &Fragment);
    /// How a packet leaves once it has been rewritten: the next hop of
    /// [`Rewrite::toward`].
    fn next_hop(&self, ip: &Ip<A>, new: &Rewrite<A>) -> NextHop;
    fn count(&self, counter: u32, traffic: Traffic, bytes: u64);
    fn give_up(&self, counter: u32, reason: Reason);
    /// Takes a token from the budget for ICMP errors.
    fn icmp_token(&self) -> bool;
}
