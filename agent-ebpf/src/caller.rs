//! Who is it: who calls `reboot(2)`, and would the kernel let them? Whose vCPU runs?

use agent_common::abi::TaskOffsets;
use aya_ebpf::{
    bindings::bpf_pidns_info,
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel,
        generated::{
            bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_task,
            bpf_get_ns_current_pid_tgid,
        },
    },
};

use crate::maps::{CGROUPS, HOST_PIDNS_DEV, HOST_PIDNS_INO, HOST_PIDNS_LEVEL, TASK_OFFSETS};

/// Bit of CAP_SYS_BOOT (include/uapi/linux/capability.h).
const CAP_SYS_BOOT: u64 = 1 << 22;
/// User namespaces nest at most this deep (kernel/user_namespace.c).
const USER_NAMESPACES_MAX: usize = 33;
/// PID namespaces nest at most this deep (MAX_PID_NS_LEVEL).
const PID_LEVELS_MAX: u32 = 32;
/// Levels of the cgroup hierarchy that are searched for an instance.
const CGROUP_LEVELS_MAX: i32 = 12;

/// Whose reboot it is.
pub(crate) enum Scope {
    Host,
    /// Slot of the instance whose own PID namespace the caller is in.
    Instance(u32),
    /// A container within an instance, or something that we do not protect.
    Foreign,
}

#[inline(always)]
fn read<T>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address and fails softly.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// The namespace that the current task is in, and its nesting level.
#[inline(always)]
fn pid_namespace(task: u64, at: &TaskOffsets) -> Option<(u64, u32)> {
    let pid: u64 = read(task, at.task_thread_pid)?;
    let level: u32 = read(pid, at.pid_level)?;
    if level > PID_LEVELS_MAX {
        return None;
    }
    let ns = read(pid, at.pid_numbers + level * at.upid_bytes + at.upid_ns)?;
    Some((ns, level))
}

/// Whether the kernel will find CAP_SYS_BOOT in the caller: the walk of
/// `cap_capable` (security/commoncap.c) from the user namespace that owns the
/// caller's PID namespace upwards.
///
/// Without this check anybody could throw switches by a call that fails.
#[inline(always)]
pub(crate) fn may_reboot() -> bool {
    let at = TASK_OFFSETS.load();
    // SAFETY: helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    check(task, &at).unwrap_or(false)
}

#[inline(always)]
fn check(task: u64, at: &TaskOffsets) -> Option<bool> {
    if at.task_cred == 0 {
        return None;
    }
    let cred: u64 = read(task, at.task_cred)?;
    let effective: u64 = read(cred, at.cred_cap_effective)?;
    let own_ns: u64 = read(cred, at.cred_user_ns)?;
    let euid: u32 = read(cred, at.cred_euid)?;
    let (pid_ns, _) = pid_namespace(task, at)?;
    let mut ns: u64 = read(pid_ns, at.pidns_user_ns)?;
    for _ in 0..USER_NAMESPACES_MAX {
        if ns == own_ns {
            return Some(effective & CAP_SYS_BOOT != 0);
        }
        let parent: u64 = read(ns, at.userns_parent)?;
        if parent == 0 {
            return Some(false);
        }
        // The owner of a namespace has every capability in it.
        let owner: u32 = read(ns, at.userns_owner)?;
        if parent == own_ns && owner == euid {
            return Some(true);
        }
        ns = parent;
    }
    Some(false)
}

/// Whose reboot a call of the current task would be.
#[inline(always)]
pub(crate) fn scope() -> Scope {
    let mut info = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: the struct has the kernel's layout and size.
    let in_host = unsafe {
        bpf_get_ns_current_pid_tgid(
            HOST_PIDNS_DEV.load(),
            HOST_PIDNS_INO.load(),
            &raw mut info,
            size_of::<bpf_pidns_info>() as u32,
        )
    };
    if in_host == 0 {
        return Scope::Host;
    }
    let at = TASK_OFFSETS.load();
    // SAFETY: helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    // One level below the host's is an instance's own namespace; deeper ones
    // are containers in it, whose restart is their own affair.
    let own =
        pid_namespace(task, &at).is_some_and(|(_, level)| level == HOST_PIDNS_LEVEL.load() + 1);
    if !own {
        return Scope::Foreign;
    }
    match instance() {
        Some(slot) => Scope::Instance(slot),
        None => Scope::Foreign,
    }
}

/// The instance whose cgroup, or a cgroup below it, the current task is in.
#[inline(always)]
pub(crate) fn instance() -> Option<u32> {
    // SAFETY: helper without arguments.
    let own = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: a slot's number, read at once; a recycled element gives a stale
    // or another number at worst.
    if let Some(slot) = unsafe { CGROUPS.get(own) } {
        return Some(*slot);
    }
    for level in 1..CGROUP_LEVELS_MAX {
        // SAFETY: helper with a plain argument.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id == 0 {
            return None;
        }
        // SAFETY: as for the first.
        if let Some(slot) = unsafe { CGROUPS.get(id) } {
            return Some(*slot);
        }
    }
    None
}

/// Thread id in the low, thread group id in the high half.
#[inline(always)]
pub(crate) fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}
