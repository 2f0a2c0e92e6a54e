//! Routing: `bpf_fib_lookup`, and a cache of its answers that lives for
//! milliseconds.

use core::ptr;

use agent_common::{
    abi::{EGRESS_REFLECT, EGRESS_SLOTS, Hop},
    packet::{Addr, Ip, NextHop, Rewrite, Way},
};
use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::{bpf_fib_lookup, bpf_ktime_get_coarse_ns, bpf_redirect},
};

use crate::{
    maps::{EGRESS, HOPS},
    tables::Maps,
};

/// How long an answer is used: a route or a neighbour that changes is followed
/// within this time, whoever changed it. At ten packets within it, the look-up
/// costs a tenth.
const HOP_VALID_NS: u64 = 20_000_000;

/// `struct bpf_fib_lookup` (include/uapi/linux/bpf.h), without its unions.
#[repr(C)]
struct FibParams {
    family: u8,
    l4_protocol: u8,
    sport_be: u16,
    dport_be: u16,
    /// In: bytes from the network header on. Out: the path MTU.
    tot_len: u16,
    ifindex: u32,
    /// IPv4: the TOS byte first. IPv6: flow information.
    tos: [u8; 4],
    src: [u32; 4],
    dst: [u32; 4],
    vlan: u32,
    smac: [u8; 6],
    dmac: [u8; 6],
}

const _: () = assert!(size_of::<FibParams>() == 64);

// BPF_FIB_LKUP_RET_* (include/uapi/linux/bpf.h).
const SUCCESS: i64 = 0;
const BLACKHOLE: i64 = 1;
const UNREACHABLE: i64 = 2;
const PROHIBIT: i64 = 3;
const NOT_FORWARDED: i64 = 4;
const FORWARDING_DISABLED: i64 = 5;
const NO_NEIGHBOUR: i64 = 7;
const FRAGMENTATION_NEEDED: i64 = 8;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What differs between families here.
pub(crate) trait Family: Addr {
    const AF: u8;
    /// As `bpf_fib_lookup` takes it: an IPv4 address in the first word.
    fn words(self) -> [u32; 4];
}

impl Family for agent_common::packet::V4 {
    const AF: u8 = AF_INET;
    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [u32::from_ne_bytes(self.0), 0, 0, 0]
    }
}

impl Family for agent_common::packet::V6 {
    const AF: u8 = AF_INET6;
    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0
    }
}

#[inline(always)]
pub(crate) fn next_hop<A: Family>(maps: &Maps, ip: &Ip<A>, new: &Rewrite<A>) -> NextHop {
    // SAFETY: helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    let src = source(ip, new);
    if let Some(hop) = HOPS.get_ptr_mut(slot(src, new.toward)) {
        // SAFETY: a per-CPU element, and XDP programs do not interrupt each
        // other on a CPU: nobody writes while we read.
        let hop = unsafe { &*hop };
        if hop.valid_until_ns > now_ns
            && hop.ingress == maps.ingress
            && same(&hop.dst, new.toward.words())
            && same(&hop.src, src.words())
        {
            return NextHop {
                way: Way::Direct,
                egress: hop.egress,
                macs: hop.macs,
                mtu: hop.mtu,
            };
        }
    }
    let mut hop = NextHop::other(Way::Up);
    hop.way = look_up(maps, ip, new, &mut hop);
    hop
}

/// The element of `gd_egress` for an interface; maybe of another one.
#[inline(always)]
fn device(ifindex: u32) -> u32 {
    EGRESS.get(ifindex % EGRESS_SLOTS).copied().unwrap_or(0)
}

/// Sends a frame back by the interface that it came in by.
#[inline(always)]
pub(crate) fn reflect(ingress: u32) -> u32 {
    if device(ingress) == ingress | EGRESS_REFLECT {
        // SAFETY: helper with plain arguments.
        return unsafe { bpf_redirect(ingress, 0) as u32 };
    }
    xdp_action::XDP_TX
}

#[inline(always)]
fn slot<A: Family>(src: A, dst: A) -> u32 {
    Hop::slot(src.filter().word, dst.filter().word)
}

/// The source that an answer is kept for: a service's, because hosts with more
/// than one uplink route replies by it. Not a client's: there are too many to
/// keep one each.
#[inline(always)]
fn source<A: Family>(ip: &Ip<A>, new: &Rewrite<A>) -> A {
    if new.src == ip.src { A::ZERO } else { new.src }
}

#[inline(always)]
fn same(a: &[u32; 4], b: [u32; 4]) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3]
}

/// A function of its own: a BPF program has 512 bytes of stack.
#[inline(never)]
fn look_up<A: Family>(maps: &Maps, ip: &Ip<A>, new: &Rewrite<A>, hop: &mut NextHop) -> Way {
    let mut params = FibParams {
        family: A::AF,
        l4_protocol: ip.protocol,
        sport_be: new.ports.src_raw,
        dport_be: new.ports.dst_raw,
        tot_len: ip.total_len,
        ifindex: maps.ingress,
        tos: if A::AF == AF_INET {
            [ip.tos, 0, 0, 0]
        } else {
            [0; 4]
        },
        src: new.src.words(),
        dst: new.toward.words(),
        vlan: 0,
        smac: [0; 6],
        dmac: [0; 6],
    };
    // SAFETY: the struct has the kernel's layout and size.
    let verdict = unsafe {
        bpf_fib_lookup(
            maps.ctx.cast(),
            ptr::from_mut(&mut params).cast(),
            size_of::<FibParams>() as i32,
            0,
        )
    };
    match verdict {
        SUCCESS => {}
        BLACKHOLE | UNREACHABLE | PROHIBIT => return Way::Unreachable,
        NOT_FORWARDED => return Way::Local,
        FORWARDING_DISABLED => return Way::ForwardingOff,
        NO_NEIGHBOUR => return Way::Unresolved,
        FRAGMENTATION_NEEDED => {
            hop.mtu = u32::from(params.tot_len);
            return Way::TooBig;
        }
        _ => return Way::Up,
    }
    let egress = params.ifindex;
    // Same interface: XDP_TX needs no redirect, so no entry either.
    if egress != maps.ingress && device(egress) & !EGRESS_REFLECT != egress {
        return Way::Up;
    }
    let [d, s] = [params.dmac, params.smac];
    let macs = [
        u32::from_ne_bytes([d[0], d[1], d[2], d[3]]),
        u32::from_ne_bytes([d[4], d[5], s[0], s[1]]),
        u32::from_ne_bytes([s[2], s[3], s[4], s[5]]),
    ];
    hop.egress = egress;
    hop.macs = macs;
    hop.mtu = u32::from(params.tot_len);
    let src = source(ip, new);
    if let Some(cached) = HOPS.get_ptr_mut(slot(src, new.toward)) {
        // SAFETY: as for the read in `next_hop`.
        let cached = unsafe { &mut *cached };
        cached.dst = new.toward.words();
        cached.src = src.words();
        cached.ingress = maps.ingress;
        cached.egress = egress;
        cached.mtu = hop.mtu;
        cached.macs = macs;
        // SAFETY: helper without arguments.
        cached.valid_until_ns = unsafe { bpf_ktime_get_coarse_ns() } + HOP_VALID_NS;
    }
    Way::Direct
}
