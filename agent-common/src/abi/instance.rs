//! What ties slots to names, kept in the kernel so that a restarted daemon,
//! or an operator without one, can read it.

/// Longest instance name in bytes.
pub const INSTANCE_NAME_BYTES: usize = 60;

/// Value of `gd_instances`, at the index of the instance's switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct InstanceRecord {
    /// UTF-8, NUL-padded; all zero marks an unused slot.
    pub name: [u8; INSTANCE_NAME_BYTES],
    pub pad: u32,
}

/// The one slot of `gd_meta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Meta {
    /// [`super::ABI_VERSION`] of the writer; zero before the first start.
    pub abi_version: u32,
    pub pad: u32,
    /// Version of the ghostd that loaded the programs, NUL-padded.
    pub ghostd_version: [u8; 16],
    /// CLOCK_REALTIME of that load, seconds since 1970.
    pub loaded_at_s: u64,
    /// The host's boot id, to notice pins that outlived a checkpoint or a kexec.
    pub boot_id: [u8; 16],
    pub pad1: [u64; 2],
}
