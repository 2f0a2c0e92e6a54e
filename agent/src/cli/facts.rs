//! What `doctor` judges. Pure: [`super::probe`] fills it in.
//!
//! A fact that cannot be read is absent, never guessed.

use crate::control::dto::{RoutesDto, StatusDto};

/// Everything `doctor` judges.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Effective capabilities of ghostctl, as a mask.
    pub capabilities: Option<u64>,
    pub bpffs: Option<bool>,
    pub tracefs: Option<bool>,
    pub kernel_release: Option<String>,
    pub btf: bool,
    /// net.core.bpf_jit_enable
    pub jit: Option<u32>,
    /// Active security modules, comma-separated.
    pub lsm: Option<String>,
    pub interfaces: Vec<InterfaceFacts>,
    pub foreign_xdp: Vec<ForeignXdp>,
    /// Armed instances whose cgroup the kernel was not told.
    pub cgroup_unknown: Vec<String>,
    /// Why the daemon does not answer; `None` if it does.
    pub daemon_trouble: Option<DaemonTrouble>,
    /// Something is pinned, or may be where we may not look.
    pub pinned: bool,
    /// Why the pins cannot be read, where they had to be.
    pub pins_trouble: Option<String>,
    /// From the daemon, or else from the pins.
    pub status: Option<StatusDto>,
    /// Two readings a moment apart.
    pub routes: Option<(RoutesDto, RoutesDto)>,
}

/// Why the daemon does not answer, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonTrouble {
    /// Nobody listens, or whoever does is hung.
    Silent(String),
    /// We have no right to ask.
    Hidden(String),
}

/// An uplink or a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceFacts {
    pub name: String,
    /// `None`: unreadable, or no route of that family.
    pub v4_forwarding: Option<bool>,
    pub v6_forwarding: Option<bool>,
    /// The effective value: the greater of `all` and the interface's own.
    pub rp_filter: Option<u8>,
    pub bridge_port: bool,
}

/// An XDP program that is not ghostd's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignXdp {
    pub interface: String,
    pub program_id: u32,
    /// `None` without the rights to ask.
    pub program: Option<String>,
}

/// Address families that routes use.
#[derive(Debug, Clone, Copy)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

impl Families {
    pub fn of(routes: &RoutesDto) -> Self {
        let mut addresses = routes.routes.iter().map(|r| r.service.addr);
        Self {
            v4: addresses.clone().any(|a| a.is_ipv4()),
            v6: addresses.any(|a| a.is_ipv6()),
        }
    }
}
