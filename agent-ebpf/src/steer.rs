//! The XDP programs.

use agent_common::{
    abi::{FenceMode, Side},
    packet::{
        Action, ActionKind, Addr, Answer, Errand, Kernel, Link, PortRule, QUOTE_MIN, V4, V6, Work,
        may_speak, muted_may_pass, steer, steer_error, write_too_big,
    },
};
use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::{
        bpf_ktime_get_ns, bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
        bpf_xdp_get_buff_len,
    },
    macros::xdp,
    programs::XdpContext,
};

use crate::{
    frame::XdpFrame,
    hop::reflect,
    maps::{PORTS, SCRATCH},
    tables::{Maps, host_generation, switch},
};

/// On an uplink: both translations.
#[xdp(frags)]
pub(crate) fn gd_steer(ctx: XdpContext) -> u32 {
    run(ctx.ctx)
}

/// On an instance's port: the fence, then both translations.
#[xdp(frags)]
pub(crate) fn gd_port(ctx: XdpContext) -> u32 {
    if gd_fence(ctx.ctx) != 0 {
        return xdp_action::XDP_DROP;
    }
    run(ctx.ctx)
}

#[inline(always)]
fn run(ctx: *mut xdp_md) -> u32 {
    let Some(link) = Link::parse(&XdpFrame::new(ctx)) else {
        return xdp_action::XDP_PASS;
    };
    let l3 = link.l3 as u64;
    if link.ethertype_raw == V4::ETHERTYPE_RAW {
        return match gd_v4(ctx, l3) {
            IS_ERROR => gd_error_v4(ctx, l3),
            verdict @ IS_TOO_BIG.. => gd_answer_v4(ctx, l3, verdict - IS_TOO_BIG),
            action => action,
        };
    }
    if link.ethertype_raw == V6::ETHERTYPE_RAW {
        return match gd_v6(ctx, l3) {
            IS_ERROR => gd_error_v6(ctx, l3),
            verdict @ IS_TOO_BIG.. => gd_answer_v6(ctx, l3, verdict - IS_TOO_BIG),
            action => action,
        };
    }
    xdp_action::XDP_PASS
}

// Beside the actions of XDP: what is left to another function, see [`ActionKind`].
const IS_ERROR: u32 = 1 << 16;
/// Plus the path MTU, which is at most 65,535.
const IS_TOO_BIG: u32 = 1 << 17;

// One BPF function for each family and for its rare cases: each has a stack of
// its own (512 bytes along a chain of calls), and a global one is verified once
// and apart from its callers, so that paths do not multiply.

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn gd_v4(ctx: *mut xdp_md, l3: u64) -> u32 {
    let Some(work) = scratch(SCRATCH_WORK) else {
        return xdp_action::XDP_PASS;
    };
    family::<V4>(ctx, l3, work)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn gd_v6(ctx: *mut xdp_md, l3: u64) -> u32 {
    let Some(work) = scratch(SCRATCH_WORK) else {
        return xdp_action::XDP_PASS;
    };
    family::<V6>(ctx, l3, work)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn gd_error_v4(ctx: *mut xdp_md, l3: u64) -> u32 {
    error::<V4>(ctx, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn gd_error_v6(ctx: *mut xdp_md, l3: u64) -> u32 {
    error::<V6>(ctx, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn gd_answer_v4(ctx: *mut xdp_md, l3: u64, mtu: u32) -> u32 {
    answer::<V4, { V4::QUOTE_MAX }>(ctx, l3, mtu)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn gd_answer_v6(ctx: *mut xdp_md, l3: u64, mtu: u32) -> u32 {
    answer::<V6, { V6::QUOTE_MAX }>(ctx, l3, mtu)
}

// Elements of `gd_scratch`.
const SCRATCH_WORK: u32 = 0;
const SCRATCH_ERRAND: u32 = 1;

const _: () = {
    let element = size_of::<[u64; 64]>();
    assert!(size_of::<Work<V6>>() <= element);
    assert!(size_of::<Errand<V6>>() <= element);
};

/// This CPU's working memory, as a `T` of at most one element.
#[inline(always)]
fn scratch<T>(index: u32) -> Option<&'static mut T> {
    let element = SCRATCH.get_ptr_mut(index)?;
    // SAFETY: large enough (see above) and aligned to eight bytes; XDP programs
    // do not interrupt each other on a CPU. Zero bytes and what an earlier
    // packet of the same type left are both valid values.
    Some(unsafe { &mut *element.cast::<T>() })
}

/// What [`Link`] can say of where the network header is.
const L3_MAX: u64 = 22;

/// What [`Link::parse`] found, for a function that was told only the offset.
#[inline(always)]
fn link<A: Answer>(l3: u64) -> Option<Link> {
    if l3 > L3_MAX {
        return None;
    }
    Some(Link {
        l3: l3 as usize,
        ethertype_raw: A::ETHERTYPE_RAW,
    })
}

#[inline(always)]
fn family<A: Answer>(ctx: *mut xdp_md, l3: u64, work: &mut Work<A>) -> u32
where
    Maps: Kernel<A>,
{
    let Some(link) = link::<A>(l3) else {
        return xdp_action::XDP_PASS;
    };
    let maps = Maps::new(ctx);
    let action = steer(&maps, &mut XdpFrame::new(ctx), link, work);
    match action.kind {
        ActionKind::Error => IS_ERROR,
        ActionKind::TooBig => IS_TOO_BIG + (action.value & 0xffff),
        _ => carry_out(&maps, action),
    }
}

#[inline(always)]
fn error<A: Answer>(ctx: *mut xdp_md, l3: u64) -> u32
where
    Maps: Kernel<A>,
{
    let Some(link) = link::<A>(l3) else {
        return xdp_action::XDP_PASS;
    };
    let maps = Maps::new(ctx);
    let Some(errand) = scratch(SCRATCH_ERRAND) else {
        return xdp_action::XDP_PASS;
    };
    let action = steer_error::<A, _, _>(&maps, &mut XdpFrame::new(ctx), link, errand);
    carry_out(&maps, action)
}

#[inline(always)]
fn carry_out(maps: &Maps, action: Action) -> u32 {
    match action.kind {
        ActionKind::Send if action.value == maps.ingress => reflect(maps.ingress),
        // SAFETY: helper with plain arguments.
        ActionKind::Send => unsafe { bpf_redirect(action.value, 0) as u32 },
        ActionKind::Drop => xdp_action::XDP_DROP,
        // The last two are answered by the callers.
        ActionKind::Pass | ActionKind::TooBig | ActionKind::Error => xdp_action::XDP_PASS,
    }
}

/// Turns the frame into the answer to itself and sends it back. Quotes less
/// where the linear part of the frame is short.
#[inline(always)]
fn answer<A: Answer, const QUOTE_MAX: usize>(ctx: *mut xdp_md, l3: u64, mtu: u32) -> u32 {
    if l3 > L3_MAX {
        return xdp_action::XDP_DROP;
    }
    let l3 = l3 as usize;
    let much = XdpFrame::new(ctx).linear_bytes() >= l3 + QUOTE_MAX;
    // SAFETY: the context is valid; all pointers into the frame are made anew after this.
    if unsafe { bpf_xdp_adjust_head(ctx, -(A::PREFIX as i32)) } != 0 {
        return xdp_action::XDP_DROP;
    }
    let mut frame = XdpFrame::new(ctx);
    let (written, quote) = if much {
        (
            write_too_big::<A, _, QUOTE_MAX>(&mut frame, l3, mtu),
            QUOTE_MAX,
        )
    } else {
        (
            write_too_big::<A, _, QUOTE_MIN>(&mut frame, l3, mtu),
            QUOTE_MIN,
        )
    };
    if written.is_none() {
        return xdp_action::XDP_DROP;
    }
    // SAFETY: helper on a valid context.
    let whole = unsafe { bpf_xdp_get_buff_len(ctx) } as usize;
    let cut = whole.saturating_sub(l3 + A::PREFIX + quote);
    // SAFETY: as above; the frame is not touched after it.
    if unsafe { bpf_xdp_adjust_tail(ctx, -(cut as i32)) } != 0 {
        return xdp_action::XDP_DROP;
    }
    // SAFETY: the kernel passes a valid context.
    reflect(unsafe { (*ctx).ingress_ifindex })
}

/// Whether (not zero) the copy behind this port may not send this frame.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn gd_fence(ctx: *mut xdp_md) -> u32 {
    u32::from(fenced(ctx))
}

#[inline(always)]
fn fenced(ctx: *mut xdp_md) -> bool {
    // SAFETY: the kernel passes a valid context.
    let ingress = unsafe { (*ctx).ingress_ifindex };
    let Some(port) = PORTS.get_ptr_mut(ingress) else {
        return false;
    };
    // SAFETY: a live element; it is replaced whole by userspace, and the
    // counter is the only field written here.
    let port = unsafe { &mut *port };
    let Some(fence) = FenceMode::from_tag(port.fence) else {
        return false;
    };
    let Some(side) = Side::from_tag(port.side) else {
        return false;
    };
    let Some(state) = switch(port.switch) else {
        return false;
    };
    let rule = PortRule {
        switch: port.switch,
        side,
        fence,
        lease_ns: port.lease_ns,
        term: port.term,
    };
    // The port's lease, or the switch's: a lapsed switch moves the fence too.
    // Not the coarse clock: a lease is a promise.
    let now_ns = if rule.lease_ns != 0 || state.lease_ns != 0 {
        // SAFETY: helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    } else {
        0
    };
    let position = agent_common::packet::owner(&state, host_generation(), now_ns);
    if may_speak(&rule, position, state.control.term, now_ns) {
        return false;
    }
    if muted_may_pass(&XdpFrame::new(ctx), fence) {
        return false;
    }
    port.fenced_packets += 1;
    true
}
