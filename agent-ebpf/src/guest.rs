//! Tracepoints of KVM: a guest that resets itself, or falls over, throws the
//! switch of the instance in whose cgroup its VMM is, whichever VMM that is.
//!
//! The userspace side has compared the offsets with this kernel's before it
//! attaches these programs (`agent/src/steer/watch.rs`).

use core::ptr;

use agent_common::abi::{
    Cause, Control, EventKind, GuestSignal, HostSwitch, Position, Switch, UNARMED_GAP_NS, flags,
};
use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::{
    caller::instance,
    maps::{EVENTS, SWITCHES},
    reboot::{event, host_generation, now_ns, throw},
};

// Offsets of `kvm/kvm_pio` and `kvm/kvm_userspace_exit` (tracefs, format).
const PIO_RW: usize = 8;
const PIO_PORT: usize = 12;
const PIO_VALUE: usize = 24;
const EXIT_REASON: usize = 8;
const EXIT_ERRNO: usize = 12;

const WRITE: u32 = 1;

/// Keyboard controller: its command 0xfe pulses the reset line.
const PORT_KEYBOARD: u32 = 0x64;
const PULSE_RESET: u8 = 0xfe;
/// Reset control: bit 2 resets the processor (Intel ICH, 13.7.5).
const PORT_RESET: u32 = 0xcf9;
const RESET_CPU: u8 = 4;

// include/uapi/linux/kvm.h
const KVM_EXIT_SHUTDOWN: u32 = 8;
const KVM_EXIT_SYSTEM_EVENT: u32 = 24;

/// Runs at every port access of every guest, so the port comes first.
#[tracepoint]
pub(crate) fn gd_kvm_pio(ctx: TracePointContext) -> u32 {
    // SAFETY: fixed offset within this tracepoint's record.
    let Ok(port) = (unsafe { ctx.read_at::<u32>(PIO_PORT) }) else {
        return 0;
    };
    if port != PORT_KEYBOARD && port != PORT_RESET {
        return 0;
    }
    // SAFETY: as above. Of a repeated write this is the first.
    let (Ok(rw), Ok(value)) =
        (unsafe { (ctx.read_at::<u32>(PIO_RW), ctx.read_at::<u32>(PIO_VALUE)) })
    else {
        return 0;
    };
    let value = value as u8;
    let resets = if port == PORT_KEYBOARD {
        value == PULSE_RESET
    } else {
        value & RESET_CPU != 0
    };
    if rw == WRITE && resets {
        let port = port as u16;
        guest_ends(GuestSignal::Port { port, value });
    }
    0
}

#[tracepoint]
pub(crate) fn gd_kvm_exit(ctx: TracePointContext) -> u32 {
    // SAFETY: fixed offsets within this tracepoint's record.
    let (Ok(reason), Ok(errno)) = (unsafe {
        (
            ctx.read_at::<u32>(EXIT_REASON),
            ctx.read_at::<i32>(EXIT_ERRNO),
        )
    }) else {
        return 0;
    };
    // After an error the reason is that of an earlier exit.
    if errno >= 0 && (reason == KVM_EXIT_SHUTDOWN || reason == KVM_EXIT_SYSTEM_EVENT) {
        let reason = reason as u16;
        guest_ends(GuestSignal::Exit { reason });
    }
    0
}

/// A vCPU runs in a thread of its VMM, so the current task is it.
#[inline(always)]
fn guest_ends(signal: GuestSignal) {
    let entered_ns = now_ns();
    let Some(slot) = instance() else {
        return;
    };
    let Some(switch) = SWITCHES.get_ptr_mut(slot) else {
        return;
    };
    // SAFETY: a live array element; the control word is its first eight bytes.
    let control = Control::from_word(unsafe { ptr::read_volatile(switch.cast::<u64>()) });
    let generation = host_generation();
    // At the ghost there is nothing to move: this guest was given up before.
    match control.effective(HostSwitch::short(generation)) {
        None | Some(Position::Ghost) => return,
        Some(Position::Primary | Position::Draining) => {}
    }
    if control.flags & flags::ARMED == 0 {
        unarmed(switch, slot, signal, entered_ns, generation);
    } else if throw(switch, entered_ns, Cause::GuestReset) {
        let thrown_ns = now_ns();
        let kind = EventKind::GuestReset;
        let word = signal.to_word();
        // A full ring loses the report, never the throw.
        let _ = EVENTS.output(
            event(kind, slot, word, entered_ns, thrown_ns, generation),
            0,
        );
    }
}

#[inline(always)]
fn unarmed(switch: *mut Switch, slot: u32, signal: GuestSignal, entered_ns: u64, generation: u64) {
    // SAFETY: as for the control word; nobody else writes this field, and two
    // vCPUs that do it at once cost one report more.
    let seen_ns = unsafe { ptr::read_volatile(&raw const (*switch).unarmed_seen_ns) };
    if seen_ns != 0 && entered_ns.saturating_sub(seen_ns) < UNARMED_GAP_NS {
        return;
    }
    // SAFETY: as above.
    unsafe { ptr::write_volatile(&raw mut (*switch).unarmed_seen_ns, entered_ns) };
    let kind = EventKind::GuestResetUnarmed;
    let _ = EVENTS.output(
        event(kind, slot, signal.to_word(), entered_ns, 0, generation),
        0,
    );
}
