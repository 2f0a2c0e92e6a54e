//! Every name that `bpftool` shows, for both sides.
//!
//! The kernel cuts names at 15 characters; one prefix makes ours easy to find.

/// Where maps, programs and links are pinned. Each pin's file name is the name below.
pub const PIN_ROOT: &str = "/sys/fs/bpf/ghostd";

pub const META: &str = "gd_meta";
pub const ROUTES_V4: &str = "gd_routes_v4";
pub const ROUTES_V6: &str = "gd_routes_v6";
pub const REVERSE_V4: &str = "gd_reverse_v4";
pub const REVERSE_V6: &str = "gd_reverse_v6";
pub const FILTER: &str = "gd_filter";
pub const SWITCHES: &str = "gd_switches";
pub const HOST_SWITCH: &str = "gd_host_switch";
pub const INSTANCES: &str = "gd_instances";
pub const COUNTERS: &str = "gd_counters";
pub const FLOWS: &str = "gd_flows";
pub const FRAGMENTS: &str = "gd_fragments";
pub const PORTS: &str = "gd_ports";
pub const EGRESS: &str = "gd_egress";
pub const CGROUPS: &str = "gd_cgroups";
pub const EVENTS: &str = "gd_events";
pub const ICMP_BUDGET: &str = "gd_icmp_budget";
pub const HOPS: &str = "gd_hops";
pub const CALLERS: &str = "gd_callers";
pub const SCRATCH: &str = "gd_scratch";
pub const RECENT: &str = "gd_recent";

/// XDP on an uplink: both translations.
pub const STEER: &str = "gd_steer";
/// XDP on an instance's port: the fence, then both translations.
pub const PORT: &str = "gd_port";
/// Tracepoint `syscalls/sys_enter_reboot`: throws switches.
pub const REBOOT: &str = "gd_reboot";
/// Tracepoint `syscalls/sys_exit_reboot`: reports a reboot call that failed.
pub const REBOOT_EXIT: &str = "gd_reboot_exit";
/// Tracepoint `kvm/kvm_pio`: a guest that resets itself throws its switch.
pub const KVM_PIO: &str = "gd_kvm_pio";
/// Tracepoint `kvm/kvm_userspace_exit`: a guest that fell over, likewise.
pub const KVM_EXIT: &str = "gd_kvm_exit";

pub const MAPS: [&str; 21] = [
    META,
    ROUTES_V4,
    ROUTES_V6,
    REVERSE_V4,
    REVERSE_V6,
    FILTER,
    SWITCHES,
    HOST_SWITCH,
    INSTANCES,
    COUNTERS,
    FLOWS,
    FRAGMENTS,
    PORTS,
    EGRESS,
    CGROUPS,
    EVENTS,
    ICMP_BUDGET,
    HOPS,
    CALLERS,
    SCRATCH,
    RECENT,
];
pub const PROGRAMS: [&str; 6] = [STEER, PORT, REBOOT, REBOOT_EXIT, KVM_PIO, KVM_EXIT];

/// Names of the link pins: one for each attached interface, by its index.
pub const LINK_PREFIX: &str = "gd_link_";

/// Globals of the BPF object that the loader sets before it loads.
pub mod globals {
    /// Device number of the PID namespace file of the host (`st_dev`).
    pub const HOST_PIDNS_DEV: &str = "HOST_PIDNS_DEV";
    /// Inode number of the PID namespace of the host (`st_ino`).
    pub const HOST_PIDNS_INO: &str = "HOST_PIDNS_INO";
    /// Nesting level of the host's PID namespace (0 for the initial one).
    pub const HOST_PIDNS_LEVEL: &str = "HOST_PIDNS_LEVEL";
    /// Field offsets of kernel structs, from the running kernel's BTF.
    pub const TASK_OFFSETS: &str = "TASK_OFFSETS";
}

const _: () = {
    let mut i = 0;
    while i < MAPS.len() {
        assert!(MAPS[i].len() <= 15);
        i += 1;
    }
    let mut i = 0;
    while i < PROGRAMS.len() {
        assert!(PROGRAMS[i].len() <= 15);
        i += 1;
    }
};
