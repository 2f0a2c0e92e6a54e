//! The verdict's surroundings, in maps.

use core::ptr;

use agent_common::{
    abi::{
        Control, Filter, Flow, FlowKey, FragKey, Fragment, HostSwitch, ROUTE_REASONS, Reason,
        Recent, ReverseV4, ReverseV6, RouteCounters, RouteKeyV4, RouteKeyV6, RouteV4, RouteV6,
        Switch,
    },
    packet::{Ip, Kernel, NextHop, Rewrite, SwitchState, Traffic, V4, V6},
};
use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_ktime_get_coarse_ns};

use crate::{
    hop::next_hop,
    maps::{
        COUNTERS, FILTER, FLOWS, FRAGMENTS, HOST_SWITCH, ICMP_BUDGET, RECENT, REVERSE_V4,
        REVERSE_V6, ROUTES_V4, ROUTES_V6, SWITCHES,
    },
};

/// ICMP errors that one CPU sends a second, at most, and in one burst. Linux
/// sends 1,000 a second in all (net.ipv4.icmp_msgs_per_sec).
const ICMP_TOKENS_MAX: u64 = 256;
const NS_PER_TOKEN: u64 = 1_000_000_000 / ICMP_TOKENS_MAX;

/// How long a flow that was looked up is not looked up again. The table of
/// flows takes it for used within that time, and does not evict it.
const RECENT_NS: u64 = 100_000_000;

/// All maps, as seen by one packet.
pub(crate) struct Maps {
    pub(crate) ctx: *mut xdp_md,
    pub(crate) ingress: u32,
}

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// A slot, its control word read once.
#[inline(always)]
pub(crate) fn switch(slot: u32) -> Option<SwitchState> {
    let switch: *const Switch = SWITCHES.get_ptr(slot)?;
    // SAFETY: the pointer is to a live array element; volatile, because
    // userspace and other CPUs store to it, one aligned word at a time.
    let (word, lease_ns, drain_idle_ns) = unsafe {
        (
            ptr::read_volatile(switch.cast::<u64>()),
            ptr::read_volatile(&raw const (*switch).lease_ns),
            ptr::read_volatile(&raw const (*switch).drain_idle_ns),
        )
    };
    Some(SwitchState {
        control: Control::from_word(word),
        lease_ns,
        drain_idle_ns,
    })
}

#[inline(always)]
pub(crate) fn host_generation() -> u16 {
    let Some(host) = HOST_SWITCH.get_ptr(0) else {
        return 0;
    };
    // SAFETY: as for a slot.
    let generation = unsafe { ptr::read_volatile(&raw const (*host).generation) };
    HostSwitch::short(generation)
}

#[inline(always)]
fn counters(counter: u32) -> Option<&'static mut RouteCounters> {
    let counters = COUNTERS.get_ptr_mut(counter)?;
    // SAFETY: this CPU's element; XDP programs do not interrupt each other on
    // a CPU, so the reference is the only one while it lives.
    Some(unsafe { &mut *counters })
}

#[inline(always)]
fn icmp_token() -> bool {
    let Some(budget) = ICMP_BUDGET.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: as for counters.
    let budget = unsafe { &mut *budget };
    let now_ns = now_ns();
    let earned = now_ns.saturating_sub(budget.refilled_ns) / NS_PER_TOKEN;
    if earned > 0 {
        budget.tokens = (budget.tokens + earned).min(ICMP_TOKENS_MAX);
        budget.refilled_ns = now_ns;
    }
    if budget.tokens == 0 {
        return false;
    }
    budget.tokens -= 1;
    true
}

#[inline(always)]
fn asked_lately(key: &FlowKey, now_ns: u64) -> bool {
    let words = key.words();
    let Some(recent) = RECENT.get_ptr_mut(Recent::slot(words)) else {
        return false;
    };
    // SAFETY: as for counters.
    let recent = unsafe { &mut *recent };
    let known = recent.key.words();
    let same = known[0] == words[0]
        && known[1] == words[1]
        && known[2] == words[2]
        && known[3] == words[3]
        && known[4] == words[4];
    if same && recent.until_ns > now_ns {
        return true;
    }
    recent.key = *key;
    recent.until_ns = now_ns + RECENT_NS;
    false
}

impl Maps {
    #[inline(always)]
    pub(crate) fn new(ctx: *mut xdp_md) -> Self {
        // SAFETY: the kernel passes a valid context.
        let ingress = unsafe { (*ctx).ingress_ifindex };
        Self { ctx, ingress }
    }

    #[inline(always)]
    fn count_traffic(counter: u32, traffic: Traffic, bytes: u64) {
        let Some(c) = counters(counter) else { return };
        let (packets, sum) = match traffic {
            Traffic::ToPrimary => (&mut c.primary_packets, &mut c.primary_bytes),
            Traffic::ToGhost => (&mut c.ghost_packets, &mut c.ghost_bytes),
            Traffic::Reverse => (&mut c.reverse_packets, &mut c.reverse_bytes),
        };
        *packets += 1;
        *sum += bytes;
    }

    #[inline(always)]
    fn count_reason(counter: u32, reason: Reason) {
        let Some(c) = counters(counter) else { return };
        let index = reason as usize;
        if index < ROUTE_REASONS {
            c.reasons[index] += 1;
        }
    }
}

/// Everything that does not depend on the family.
macro_rules! common {
    () => {
        #[inline(always)]
        fn may_match(&self, filter: Filter) -> bool {
            FILTER
                .get(filter.word)
                .is_some_and(|word| word & filter.mask != 0)
        }

        #[inline(always)]
        fn switch(&self, slot: u32) -> Option<SwitchState> {
            switch(slot)
        }

        #[inline(always)]
        fn host_generation(&self) -> u16 {
            host_generation()
        }

        #[inline(always)]
        fn now_ns(&self) -> u64 {
            now_ns()
        }

        #[inline(always)]
        fn asked_lately(&self, key: &FlowKey, now_ns: u64) -> bool {
            asked_lately(key, now_ns)
        }

        #[inline(always)]
        fn flow(&self, key: &FlowKey) -> Option<Flow> {
            // SAFETY: copied at once; a recycled element gives a stale or
            // foreign time stamp at worst, never memory that is not ours.
            unsafe { FLOWS.get(key).copied() }
        }

        #[inline(always)]
        fn put_flow(&self, key: &FlowKey, flow: &Flow) {
            // A full LRU map evicts; an error leaves the flow unrecorded,
            // which draining treats as a new one.
            let _ = FLOWS.insert(key, flow, 0);
        }

        #[inline(always)]
        fn forget_flow(&self, key: &FlowKey) {
            // An error says that it is gone already.
            let _ = FLOWS.remove(key);
        }

        #[inline(always)]
        fn fragment(&self, key: &FragKey) -> Option<Fragment> {
            // SAFETY: as for flows.
            unsafe { FRAGMENTS.get(key).copied() }
        }

        #[inline(always)]
        fn put_fragment(&self, key: &FragKey, fragment: &Fragment) {
            let _ = FRAGMENTS.insert(key, fragment, 0);
        }

        #[inline(always)]
        fn count(&self, counter: u32, traffic: Traffic, bytes: u64) {
            Self::count_traffic(counter, traffic, bytes);
        }

        #[inline(always)]
        fn give_up(&self, counter: u32, reason: Reason) {
            Self::count_reason(counter, reason);
        }

        #[inline(always)]
        fn icmp_token(&self) -> bool {
            icmp_token()
        }
    };
}

impl Kernel<V4> for Maps {
    common!();

    #[inline(always)]
    fn route(&self, addr: &V4, port_raw: u16, protocol: u8) -> Option<&RouteV4> {
        // SAFETY: without preallocation a deleted element is freed only after
        // a grace period, so the row stays one while this program runs.
        unsafe { ROUTES_V4.get(key_v4(addr, port_raw, protocol)) }
    }

    #[inline(always)]
    fn reverse(&self, addr: &V4, port_raw: u16, protocol: u8) -> Option<&ReverseV4> {
        // SAFETY: as for routes.
        unsafe { REVERSE_V4.get(key_v4(addr, port_raw, protocol)) }
    }

    #[inline(always)]
    fn next_hop(&self, ip: &Ip<V4>, new: &Rewrite<V4>) -> NextHop {
        next_hop(self, ip, new)
    }
}

// Look-ups are functions of their own here: their keys do not fit the stack of
// the program around them.
impl Kernel<V6> for Maps {
    common!();

    #[inline(never)]
    fn route(&self, addr: &V6, port_raw: u16, protocol: u8) -> Option<&RouteV6> {
        // SAFETY: without preallocation a deleted element is freed only after
        // a grace period, so the row stays one while this program runs.
        unsafe { ROUTES_V6.get(key_v6(addr, port_raw, protocol)) }
    }

    #[inline(never)]
    fn reverse(&self, addr: &V6, port_raw: u16, protocol: u8) -> Option<&ReverseV6> {
        // SAFETY: as for routes.
        unsafe { REVERSE_V6.get(key_v6(addr, port_raw, protocol)) }
    }

    #[inline(always)]
    fn next_hop(&self, ip: &Ip<V6>, new: &Rewrite<V6>) -> NextHop {
        next_hop(self, ip, new)
    }
}

#[inline(always)]
fn key_v4(addr: &V4, port_raw: u16, protocol: u8) -> RouteKeyV4 {
    RouteKeyV4 {
        addr_be: addr.0,
        port_be: port_raw.to_ne_bytes(),
        protocol,
        pad: 0,
    }
}

#[inline(always)]
fn key_v6(addr: &V6, port_raw: u16, protocol: u8) -> RouteKeyV6 {
    RouteKeyV6 {
        addr_be: addr.bytes(),
        port_be: port_raw.to_ne_bytes(),
        protocol,
        pad: 0,
    }
}
