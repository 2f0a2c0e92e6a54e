//! Programs to measure against; the daemon never loads them.
//!
//! Owns: `gd_floor`, the least that a program which translates a packet has to
//! do (parse, one look-up, rewrite with both checksums, send back), and
//! programs that only return. Refuses: options, extension headers, fragments,
//! TTL, ports, counters, routing, and everything else that makes it right.
#![no_std]
#![no_main]
// Raw pointers and helper calls; the verifier proves each of them.
#![allow(unsafe_code)]
// aya's macros hand a program its context by value.
#![allow(clippy::needless_pass_by_value)]

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, xdp_action},
    btf_maps::HashMap,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// New destination in four words (IPv4: the first), then the first 12 bytes of
/// the new frame, then nothing.
type Target = [u32; 8];

#[btf_map(name = "gd_floor_v4")]
static FLOOR_V4: HashMap<u32, Target, 4096, NO_PREALLOC> = HashMap::new();
#[btf_map(name = "gd_floor_v6")]
static FLOOR_V6: HashMap<[u32; 4], Target, 4096, NO_PREALLOC> = HashMap::new();

const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Of TCP: up to and with its checksum. A UDP packet of less has no data.
const L4_BYTES: usize = 18;

#[xdp]
pub(crate) fn gd_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[xdp]
pub(crate) fn gd_drop(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

#[xdp]
pub(crate) fn gd_send_back(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

#[xdp]
pub(crate) fn gd_floor(ctx: XdpContext) -> u32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + ETHERNET + 20 + L4_BYTES > end {
        return xdp_action::XDP_PASS;
    }
    let done = match load::<u16>(data + 12) {
        IPV4 => v4(data),
        IPV6 if data + ETHERNET + 40 + L4_BYTES <= end => v6(data),
        _ => None,
    };
    match done {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn v4(data: usize) -> Option<()> {
    let l3 = data + ETHERNET;
    if load::<u8>(l3) != 0x45 {
        return None;
    }
    let check = l4_check(load::<u8>(l3 + 9), l3 + 20)?;
    let old = load::<u32>(l3 + 16);
    // SAFETY: copied at once.
    let target = unsafe { FLOOR_V4.get(old) }?;
    let new = target[0];
    send_to(data, target);
    let change = u64::from(!old) + u64::from(new);
    store(l3 + 10, apply(change, load(l3 + 10)));
    store(l3 + 16, new);
    store(check, apply(change, load(check)));
    Some(())
}

#[inline(always)]
fn v6(data: usize) -> Option<()> {
    let l3 = data + ETHERNET;
    if load::<u8>(l3) >> 4 != 6 {
        return None;
    }
    let check = l4_check(load::<u8>(l3 + 6), l3 + 40)?;
    let word = |i: usize| load::<u32>(l3 + 24 + i * 4);
    let old = [word(0), word(1), word(2), word(3)];
    // SAFETY: copied at once.
    let target = unsafe { FLOOR_V6.get(old) }?;
    send_to(data, target);
    let mut change = 0;
    for i in 0..4 {
        change += u64::from(!old[i]) + u64::from(target[i]);
        store(l3 + 24 + i * 4, target[i]);
    }
    store(check, apply(change, load(check)));
    Some(())
}

#[inline(always)]
fn l4_check(protocol: u8, l4: usize) -> Option<usize> {
    match protocol {
        TCP => Some(l4 + 16),
        UDP => Some(l4 + 6),
        _ => None,
    }
}

#[inline(always)]
fn send_to(data: usize, target: &Target) {
    store(data, target[4]);
    store(data + 4, target[5]);
    store(data + 8, target[6]);
}

/// RFC 1624, equation 3.
#[inline(always)]
fn apply(change: u64, check: u16) -> u16 {
    let sum = change + u64::from(!check);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[inline(always)]
fn load<T: Copy>(address: usize) -> T {
    // SAFETY: within the frame by the checks of `gd_floor`, which the verifier
    // repeats; frames lie at even addresses, from where the kernel's
    // architectures load words.
    unsafe { *(address as *const T) }
}

#[inline(always)]
fn store<T>(address: usize, value: T) {
    // SAFETY: as for `load`; XDP frames may be written.
    unsafe {
        *(address as *mut T) = value;
    }
}

/// Never runs, as in the daemon's object.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
