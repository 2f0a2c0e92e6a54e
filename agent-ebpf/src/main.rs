//! The kernel side: fetch, call `agent-common`, return.
//!
//! Owns: maps, helper calls, pointer checks that the verifier demands.
//! Refuses: decisions: those are in `agent-common`, where they are tested.
#![no_std]
#![no_main]
// Compare-and-swap (see `reboot::throw`) and `frame::address`. The compiler is pinned, and building
// `core` for this target needs its unstable side anyway.
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features)]
// The programs are made of raw pointers and helper calls; the verifier proves
// each of them at load time.
#![allow(unsafe_code)]
// aya's macros hand a program its context by value.
#![allow(clippy::needless_pass_by_value)]

mod caller;
mod frame;
mod guest;
mod hop;
mod maps;
mod reboot;
mod steer;
mod tables;

/// Never runs: an infinite loop is what the verifier refuses, so an object in
/// which a panic can be reached does not load.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
