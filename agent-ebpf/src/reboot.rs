//! Tracepoints around `reboot(2)`: throw first, report afterwards.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
    ptr,
};

use agent_common::abi::{COMM_BYTES, Cause, Control, Event, EventKind, Position, Switch, flags};
use aya_ebpf::{
    helpers::{
        bpf_get_current_comm, bpf_get_current_uid_gid,
        generated::{bpf_get_current_cgroup_id, bpf_ktime_get_ns},
    },
    macros::tracepoint,
    programs::TracePointContext,
};

use crate::{
    caller::{Scope, may_reboot, scope, thread},
    maps::{CALLERS, EVENTS, HOST_SWITCH, SWITCHES},
};

// Offsets of `syscalls/sys_enter_reboot` and `sys_exit_reboot` (tracefs, format).
const ENTER_MAGIC1: usize = 16;
const ENTER_MAGIC2: usize = 24;
const ENTER_COMMAND: usize = 32;
const EXIT_RESULT: usize = 16;

// include/uapi/linux/reboot.h
const MAGIC1: u32 = 0xfee1_dead;
const MAGIC2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
const RESTART: u32 = 0x0123_4567;
const HALT: u32 = 0xcdef_0123;
const POWER_OFF: u32 = 0x4321_fedc;
const RESTART2: u32 = 0xa1b2_c3d4;
const KEXEC: u32 = 0x4558_4543;

/// Attempts to swap a control word against stores of the daemon. It moves a
/// switch once in a while: two in a row is already rare.
const SWAP_ATTEMPTS: usize = 4;

#[tracepoint]
pub(crate) fn gd_reboot(ctx: TracePointContext) -> u32 {
    let entered_ns = now_ns();
    // SAFETY: fixed offsets within this tracepoint's record.
    let (Ok(magic1), Ok(magic2), Ok(command)) = (unsafe {
        (
            ctx.read_at::<u64>(ENTER_MAGIC1),
            ctx.read_at::<u64>(ENTER_MAGIC2),
            ctx.read_at::<u64>(ENTER_COMMAND),
        )
    }) else {
        return 0;
    };
    let command = command as u32;
    // Whatever the kernel is going to refuse must not move traffic.
    if magic1 as u32 != MAGIC1 || !MAGIC2.contains(&(magic2 as u32)) {
        return 0;
    }
    let restarts = matches!(command, RESTART | RESTART2 | HALT | POWER_OFF);
    if !restarts && command != KEXEC || !may_reboot() {
        return 0;
    }
    match scope() {
        Scope::Host => host_reboots(command, entered_ns),
        // In a PID namespace of its own there is no kexec (kernel/pid_namespace.c).
        Scope::Instance(slot) if restarts => instance_reboots(slot, command, entered_ns),
        Scope::Instance(_) | Scope::Foreign => {}
    }
    0
}

/// A reboot call that comes back has failed, or has left the calling thread
/// alive in a PID namespace that is going down: only errors are reported.
#[tracepoint]
pub(crate) fn gd_reboot_exit(ctx: TracePointContext) -> u32 {
    // SAFETY: fixed offset within this tracepoint's record.
    let Ok(result) = (unsafe { ctx.read_at::<i64>(EXIT_RESULT) }) else {
        return 0;
    };
    let thread = thread();
    // SAFETY: copied at once.
    let Some(mut event) = (unsafe { CALLERS.get(thread).copied() }) else {
        return 0;
    };
    let _ = CALLERS.remove(thread);
    if result >= 0 {
        return 0;
    }
    event.kind = EventKind::RebootFailed as u8;
    event.result = result as i32;
    let _ = EVENTS.output(event, 0);
    0
}

#[inline(always)]
fn host_reboots(command: u32, entered_ns: u64) {
    let Some(host) = HOST_SWITCH.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a live array element. Who and when go before the word that
    // counts, which is added to in one atomic step.
    let generation = unsafe {
        ptr::write_volatile(&raw mut (*host).thrown_ns, entered_ns);
        ptr::write_volatile(&raw mut (*host).cause_pid, (thread() >> 32) as u32);
        atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*host).generation, 1) + 1
    };
    report(
        EventKind::HostReboot,
        u32::MAX,
        command,
        entered_ns,
        now_ns(),
        generation,
    );
}

#[inline(always)]
fn instance_reboots(slot: u32, command: u32, entered_ns: u64) {
    let Some(switch) = SWITCHES.get_ptr_mut(slot) else {
        return;
    };
    let thrown = throw(switch, entered_ns, Cause::InstanceReboot);
    let generation = host_generation();
    if thrown {
        report(
            EventKind::InstanceReboot,
            slot,
            command,
            entered_ns,
            now_ns(),
            generation,
        );
    } else {
        report(
            EventKind::InstanceRebootUnarmed,
            slot,
            command,
            entered_ns,
            0,
            generation,
        );
    }
}

#[inline(always)]
pub(crate) fn host_generation() -> u64 {
    match HOST_SWITCH.get(0) {
        Some(host) => host.generation,
        None => 0,
    }
}

/// Points an armed switch at the ghost. Already there counts as thrown.
#[inline(always)]
pub(crate) fn throw(switch: *mut Switch, entered_ns: u64, cause: Cause) -> bool {
    // The control word is the slot's first eight bytes, and every writer swaps
    // or stores it whole.
    let word = switch.cast::<u64>();
    for _ in 0..SWAP_ATTEMPTS {
        // SAFETY: a live array element, aligned to 64 bytes.
        let old = unsafe { ptr::read_volatile(word) };
        let mut control = Control::from_word(old);
        if control.position == 0 || control.flags & flags::ARMED == 0 {
            return false;
        }
        control.position = Position::Ghost as u8;
        // SAFETY: as above; who and when go before the word that counts.
        unsafe {
            ptr::write_volatile(&raw mut (*switch).moved_ns, entered_ns);
            ptr::write_volatile(&raw mut (*switch).cause, cause as u8);
            ptr::write_volatile(&raw mut (*switch).cause_pid, (thread() >> 32) as u32);
        }
        // SAFETY: as above. The library's atomics leave compare-and-swap out on
        // this target, though its instruction set has it since v3.
        let (_, swapped) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                word,
                old,
                control.to_word(),
            )
        };
        if swapped {
            return true;
        }
    }
    false
}

#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn report(
    kind: EventKind,
    slot: u32,
    command: u32,
    entered_ns: u64,
    thrown_ns: u64,
    generation: u64,
) {
    let event = event(kind, slot, command, entered_ns, thrown_ns, generation);
    // A full ring loses the report, never the throw.
    let _ = EVENTS.output(event, 0);
    let _ = CALLERS.insert(thread(), event, 0);
}

/// What the current task did.
#[inline(always)]
pub(crate) fn event(
    kind: EventKind,
    slot: u32,
    command: u32,
    entered_ns: u64,
    thrown_ns: u64,
    generation: u64,
) -> Event {
    let thread = thread();
    let user = bpf_get_current_uid_gid();
    Event {
        kind: kind as u8,
        pad: [0; 3],
        switch: slot,
        pid: (thread >> 32) as u32,
        tid: thread as u32,
        uid: user as u32,
        gid: (user >> 32) as u32,
        command,
        result: 0,
        // SAFETY: helper without arguments.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        entered_ns,
        thrown_ns,
        host_generation: generation,
        comm: bpf_get_current_comm().unwrap_or([0; COMM_BYTES]),
    }
}
