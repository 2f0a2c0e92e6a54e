//! Where the running kernel keeps a task's credentials and namespaces.

/// Byte offsets, read from the kernel's BTF by the loader and given to the
/// tracepoint programs as a global: eBPF in Rust has no field relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct TaskOffsets {
    /// `task_struct.cred`.
    pub task_cred: u32,
    /// `task_struct.thread_pid`.
    pub task_thread_pid: u32,
    /// `cred.cap_effective`.
    pub cred_cap_effective: u32,
    /// `cred.user_ns`.
    pub cred_user_ns: u32,
    /// `cred.euid`.
    pub cred_euid: u32,
    /// `pid.level`.
    pub pid_level: u32,
    /// `pid.numbers`.
    pub pid_numbers: u32,
    /// `sizeof(struct upid)`.
    pub upid_bytes: u32,
    /// `upid.ns`.
    pub upid_ns: u32,
    /// `pid_namespace.user_ns`.
    pub pidns_user_ns: u32,
    /// `user_namespace.parent`.
    pub userns_parent: u32,
    /// `user_namespace.owner`.
    pub userns_owner: u32,
}

impl TaskOffsets {
    /// What the object holds before the loader sets it.
    pub const ZERO: Self = Self {
        task_cred: 0,
        task_thread_pid: 0,
        cred_cap_effective: 0,
        cred_user_ns: 0,
        cred_euid: 0,
        pid_level: 0,
        pid_numbers: 0,
        upid_bytes: 0,
        upid_ns: 0,
        pidns_user_ns: 0,
        userns_parent: 0,
        userns_owner: 0,
    };
}
